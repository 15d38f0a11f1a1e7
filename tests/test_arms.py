"""Who plays with whom, for what: arms, the step's specs, returns and advantages. No model is run here."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from arms_support import PROBLEMS, SAMPLING, SEATS, arm_of, specs_of
from training_support import advantage_of

from llm_sra.objectives import Tether, tethered_return
from llm_sra.playing import EpisodeSpec, reply_seed
from llm_sra.policies import EnginePolicy
from llm_sra.task import Episode, Outcome, Problem, Reply, Reward, Turn
from llm_sra.trainer.arms import Arm, Player, build_arm, tether_strength
from llm_sra.trainer.estimators import EstimatorInputs, EstimatorOptions, find_estimator
from llm_sra.trainer.metrics import play_metrics
from llm_sra.trainer.player_episodes import player_episodes
from llm_sra.trainer.player_episodes import player_returns as returns_of
from llm_sra.trainer.rollout import Rollout, check_divides, collect, episode_specs, group_sizes, problem_order


def player_returns(rollout: Rollout, tau: float, tether_in_reward: bool) -> dict[tuple[str, str], torch.Tensor]:
    return returns_of(player_episodes(rollout), Tether(tau, tether_in_reward))


def assign_advantages(rollout: Rollout, tau: float, tether_in_reward: bool, group: int, scale: Any = "none") -> None:
    episodes, tether = player_episodes(rollout), Tether(tau, tether_in_reward)
    sizes = {m.match.name: group for m in rollout.matches}
    options = EstimatorOptions(scale_rewards=scale)
    inputs = EstimatorInputs(rollout, episodes, returns_of(episodes, tether), sizes, tether, options)
    find_estimator("grpo", "episode").function(inputs)


def seated(arm: Arm) -> dict[str, dict[str, str]]:
    """Adapter by seat, by match."""
    return {t.match.name: {seat: policy.adapter for seat, policy in t.match.seats.items()} for t in arm.matches}


def test_ippo_seats_all_heroes_together() -> None:
    arm = arm_of("ippo")
    assert seated(arm) == {"live": {"first": "first", "second": "second"}}
    assert arm.matches[0].players == {seat: Player(seat, hero=seat, tether=None) for seat in SEATS}
    assert (arm.adapters, arm.adversaries) == (SEATS, {})


def test_srpo_seats_each_hero_with_its_own_adversary_tethered_to_the_partner() -> None:
    arm = arm_of("srpo")
    assert seated(arm) == {
        "adversary-of-first": {"first": "first", "second": "adversary-of-first"},
        "adversary-of-second": {"first": "adversary-of-second", "second": "second"},
    }
    of_first, of_second = arm.matches
    assert of_first.players["second"] == Player("adversary-of-first", hero="first", tether="second")
    assert of_second.players["first"] == Player("adversary-of-second", hero="second", tether="first")
    assert arm.adversaries == {"adversary-of-first": "second", "adversary-of-second": "first"}  # starts as a copy of
    assert arm.adapters == ("first", "second", "adversary-of-first", "adversary-of-second")


def test_with_shared_policies_there_is_one_hero_and_one_adversary_tethered_to_it() -> None:
    arm = arm_of("srpo", sharing="shared")
    assert seated(arm) == {
        "adversary-of-first": {"first": "hero", "second": "adversary"},
        "adversary-of-second": {"first": "adversary", "second": "hero"},
    }
    assert [t.players for t in arm.matches] == [
        {"first": Player("hero", "first"), "second": Player("adversary", "first", tether="hero")},
        {"first": Player("adversary", "second", tether="hero"), "second": Player("hero", "second")},
    ]
    assert (arm.adapters, arm.adversaries) == (("hero", "adversary"), {"adversary": "hero"})


def test_with_more_seats_the_adversary_fills_all_but_the_heros() -> None:
    arm = arm_of("srpo", seats=("a", "b", "c"))
    assert seated(arm)["adversary-of-b"] == {"a": "adversary-of-b", "b": "b", "c": "adversary-of-b"}
    players = arm.matches[1].players
    assert {seat: (player.hero, player.tether) for seat, player in players.items()} == {
        "a": ("b", "a"),
        "b": ("b", None),
        "c": ("b", "c"),
    }


@pytest.mark.parametrize("sharing", ["seat", "shared"])
def test_at_tau_zero_the_arm_is_ippo(sharing: str) -> None:
    assert arm_of("srpo", sharing=sharing, tau=0) == arm_of("ippo", sharing=sharing)


def test_every_policy_draws_as_it_was_told() -> None:
    for arm in (arm_of("ippo"), arm_of("srpo")):
        assert {policy.sampling for t in arm.matches for policy in t.match.seats.values()} == {SAMPLING}


def identity(spec: EpisodeSpec) -> tuple[str, str, int]:
    return spec.match.name, spec.problem.id, spec.index


def test_all_arms_play_the_same_problems_the_same_number_of_times() -> None:
    (ippo,), (srpo,) = specs_of(arm_of("ippo"), PROBLEMS), specs_of(arm_of("srpo"), PROBLEMS)
    assert Counter(spec.problem.id for spec in ippo) == Counter(spec.problem.id for spec in srpo)
    assert len(srpo) == 8 * 3
    assert Counter(spec.match.name for spec in srpo) == {"adversary-of-first": 12, "adversary-of-second": 12}


def test_episodes_of_a_group_are_neighbours() -> None:
    (specs,) = specs_of(arm_of("srpo"), PROBLEMS)
    for start in range(0, len(specs), 3):
        group = specs[start : start + 3]
        assert len({(spec.match.name, spec.problem.id) for spec in group}) == 1
        assert [spec.index for spec in group] == [0, 1, 2]


def test_processes_share_whole_groups_of_every_match() -> None:
    arm = arm_of("srpo")
    (alone,) = specs_of(arm, PROBLEMS)
    ranks = specs_of(arm, PROBLEMS, processes=2)
    assert sorted(identity(spec) for rank in ranks for spec in rank) == sorted(identity(spec) for spec in alone)
    for rank in ranks:
        assert Counter(spec.match.name for spec in rank) == {"adversary-of-first": 6, "adversary-of-second": 6}
        assert all(len({identity(spec)[:2] for spec in rank[i : i + 3]}) == 1 for i in range(0, len(rank), 3))


def test_problems_that_do_not_divide_among_matches_and_processes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"problems_per_step \(6\) must be a multiple of matches \(2\) times processes"
    ):
        episode_specs(arm_of("srpo"), PROBLEMS[:6], 2, rank=0, processes=2)


def test_a_problem_that_comes_up_twice_in_a_step_is_not_played_twice_alike() -> None:
    (specs,) = specs_of(arm_of("ippo"), [PROBLEMS[0]] * 4, group=2)
    assert len({reply_seed(0, 0, spec, "first", 0) for spec in specs}) == 8


def test_problems_come_in_shuffled_passes_over_all() -> None:
    stream = [problem.id for step in range(6) for problem in problem_order(PROBLEMS, step, 4, seed=1)]
    everything = {problem.id for problem in PROBLEMS}
    assert [set(stream[start : start + 8]) for start in (0, 8, 16)] == [everything] * 3
    assert stream[:8] != stream[8:16] != stream[16:]


def test_the_problems_of_a_step_depend_on_its_number_and_the_seed_alone() -> None:
    random.seed(5)
    before = problem_order(PROBLEMS, 7, 4, seed=1)
    random.seed(6)
    problem_order(PROBLEMS, 3, 4, seed=1)
    assert problem_order(PROBLEMS, 7, 4, seed=1) == before
    assert problem_order(PROBLEMS, 7, 4, seed=2) != before


def played(
    arm: Arm, pays: Sequence[tuple[float, float]], kl: Sequence[Sequence[float]] = (), group: int = 2
) -> Rollout:
    """A rollout with given returns.

    Args:
        arm: Every match plays one problem; the episodes of each match in turn are paid `pays`.
        pays: Returns of the first and of the second seat, by episode: the team's reward less a private cost.
        kl: By episode, log φ - log π of the rows of the adversary's two turns.
        group: Episodes of a problem and match.
    """
    episodes, matches = [], []
    for number, (first, second) in enumerate(pays):
        training = arm.matches[number // group]
        turns = [
            # Prompts that do not grow: a row for each turn.
            Turn(seat, training.players[seat].adapter, step, (), (step, number), Reply("", (number, 1), (-1.0, -1.0)))
            for step in range(2)
            for seat in SEATS
        ]
        paid = {"first": Reward(team=1.0, cost=1 - first), "second": Reward(team=1.0, cost=1 - second)}
        rewards = {seat: (Reward(), reward) for seat, reward in paid.items()}
        problem = Problem(f"p{number // group}", None)
        seats = {seat: player.adapter for seat, player in training.players.items()}
        index = number % group
        episodes.append(
            Episode(problem, training.match.name, index, seats, tuple(turns), rewards, Outcome(first > 0.5, {}))
        )
        matches.append(training)
    rollout = collect(episodes, matches, mask_truncated=False)
    for sample in rollout.samples:
        if sample.tether is not None and kl:
            sample.nats = torch.tensor([kl[sample.row.episode][sample.row.prompt_ids[0]], 0.0])
    return rollout


def credited(rollout: Rollout, tau: float, tether_in_reward: bool = True) -> dict[tuple[int, str], set[float]]:
    """Advantages of the rows of each seat, by episode and seat."""
    assign_advantages(rollout, tau, tether_in_reward, 2)
    found: dict[tuple[int, str], set[float]] = {}
    for sample in rollout.samples:
        found.setdefault((sample.row.episode, sample.row.seat), set()).add(round(advantage_of(sample), 6))
    return found


PAYS = [(1.0, 0.5), (0.0, 0.3), (0.9, 0.8), (0.7, 0.2)]
KL = [(0.1, 0.3), (1.0, 1.0), (-0.2, 0.0), (0.5, 0.1)]


def test_a_hero_gets_its_own_return_and_its_adversary_minus_that_less_the_tether_of_the_whole_episode() -> None:
    returns = player_returns(played(arm_of("srpo"), PAYS, KL), tau=2.0, tether_in_reward=True)
    expected = {
        # -1 - (0.1 + 0.3) / 2 = -1.2;  -0 - (1 + 1) / 2 = -1: over both turns of the adversary.
        ("adversary-of-first", "first"): [1.0, 0.0],
        ("adversary-of-first", "second"): [-1.2, -1.0],
        # -0.8 - (-0.2 + 0) / 2 = -0.7;  -0.2 - (0.5 + 0.1) / 2 = -0.5; what the first seat got plays no part.
        ("adversary-of-second", "second"): [0.8, 0.2],
        ("adversary-of-second", "first"): [-0.7, -0.5],
    }
    assert returns.keys() == expected.keys()
    for key, values in expected.items():
        assert returns[key].tolist() == pytest.approx(values, abs=1e-6), key


def test_a_larger_tau_weakens_the_tether() -> None:
    def tether(tau: float) -> float:
        returns = player_returns(played(arm_of("srpo"), PAYS, KL), tau, tether_in_reward=True)
        return -1.0 - returns["adversary-of-first", "second"][0].item()  # hero got 1; 0.4 nats

    assert [tether(tau) for tau in (0.1, 1.0, 10.0)] == pytest.approx([4.0, 0.4, 0.04], abs=1e-6)


def test_with_the_tether_in_the_loss_the_adversarys_reward_is_minus_the_heros() -> None:
    returns = player_returns(played(arm_of("srpo"), PAYS, KL), tau=2.0, tether_in_reward=False)
    for training, hero, other in (("first", "first", "second"), ("second", "second", "first")):
        match = f"adversary-of-{training}"
        assert torch.equal(returns[match, other], -returns[match, hero])


def test_every_row_is_credited_with_the_episode_and_seat_that_it_comes_from() -> None:
    rollout = played(arm_of("srpo"), PAYS, KL)
    random.Random(0).shuffle(rollout.samples)
    assert credited(rollout, tau=2.0) == {
        # Returns less their group's mean: (1, 0) - 0.5;  (-1.2, -1) + 1.1;  (0.8, 0.2) - 0.5;  (-0.7, -0.5) + 0.6
        (0, "first"): {0.5},
        (1, "first"): {-0.5},
        (0, "second"): {-0.1},
        (1, "second"): {0.1},
        (2, "second"): {0.3},
        (3, "second"): {-0.3},
        (2, "first"): {-0.1},
        (3, "first"): {0.1},
    }
    for sample in rollout.samples:
        episode = rollout.episodes[sample.row.episode]
        number, step = sample.row.completion_ids[0], sample.row.prompt_ids[0]
        assert number == sample.row.episode  # what was said belongs to the episode that is credited
        assert sample.adapter == episode.policies[sample.row.seat]
        assert episode.turns_of(sample.row.seat)[step].prompt_ids == sample.row.prompt_ids
        assert (sample.tether is None) == (sample.row.seat == episode.match.removeprefix("adversary-of-"))


def test_in_no_match_and_turn_is_the_adversary_paid_as_a_cooperator() -> None:
    rollout = played(arm_of("srpo"), PAYS)
    found = credited(rollout, tau=2.0)
    for number in range(4):
        first, second = found[number, "first"], found[number, "second"]
        assert len(first) == len(second) == 1  # both turns alike
        assert first.pop() == pytest.approx(-second.pop()) != 0


@pytest.mark.parametrize("sharing", ["seat", "shared"])
def test_at_tau_zero_identical_rows_get_ippos_advantages_bit_for_bit(sharing: str) -> None:
    pays = [(0.1, 1 / 3), (0.7, 0.9), (0.2, 0.3), (1 / 7, 0.6)]

    def advantages(name: str) -> list[tuple[str, float]]:
        rollout = played(arm_of(name, sharing=sharing, tau=0), pays, group=4)
        assign_advantages(rollout, 0, True, 4)
        return [(sample.adapter, advantage_of(sample)) for sample in rollout.samples]

    assert advantages("srpo") == advantages("ippo")
    assert len({advantage for _, advantage in advantages("ippo")}) == 8


def test_a_shared_adversary_pays_for_all_that_it_said_in_every_seat_that_it_fills() -> None:
    arm = arm_of("srpo", seats=("a", "b", "c"), sharing="shared")
    training = arm.matches[0]
    turns = tuple(
        Turn(seat, player.adapter, 0, (), (1,), Reply("", (5,), (-1.0,))) for seat, player in training.players.items()
    )
    rewards = {seat: (Reward(team=0.5),) for seat in "abc"}
    episode = Episode(Problem("p", None), training.match.name, 0, {}, turns, rewards, Outcome(True))
    rollout = collect([episode, replace(episode, index=1)], [training, training], mask_truncated=False)
    for sample in rollout.samples:
        sample.nats = torch.zeros(len(sample.row.completion_ids))
        sample.nats[0] = {"a": 0.0, "b": 0.25, "c": 0.5}[sample.row.seat]
    returns = player_returns(rollout, tau=0.5, tether_in_reward=True)
    # -0.5 - (0.25 + 0.5) / 0.5 = -2 in either of its seats
    assert returns["adversary-of-a", "b"].tolist() == returns["adversary-of-a", "c"].tolist() == [-2.0, -2.0]
    assert returns["adversary-of-a", "a"].tolist() == [0.5, 0.5]


def test_batch_scaling_uses_the_number_of_the_rows_own_policy() -> None:
    rollout = played(arm_of("ippo"), [(1.0, 1.0), (0.0, 0.5)])
    assign_advantages(rollout, 0, True, 2, "batch")
    by_seat = {(s.row.episode, s.row.seat): advantage_of(s) for s in rollout.samples}
    # Sample standard deviations: sqrt(0.5² + 0.5²) of 1 and 0, and half of that of 1 and 0.5; plus 1e-4.
    assert by_seat[0, "first"] == pytest.approx(0.5 / (0.5**0.5 + 1e-4))
    assert by_seat[0, "second"] == pytest.approx(0.25 / (0.125**0.5 + 1e-4))


def test_groups_without_variance_are_counted_for_each_policy() -> None:
    arm = arm_of("srpo")
    rollout = played(arm, [(1.0, 0.0), (1.0, 0.5), (0.3, 0.9), (0.3, 0.1)])
    assign_advantages(rollout, 2.0, True, 2)
    # In its own match each hero is paid 1, 1 and 0.9, 0.1.
    assert rollout.dead_groups == {"first": 1.0, "adversary-of-first": 1.0, "second": 0.0, "adversary-of-second": 0.0}


def test_the_tether_that_is_reported_is_the_one_that_is_paid() -> None:
    numbers = play_metrics(played(arm_of("srpo"), PAYS, KL))
    # Per episode, both turns together: (0.4 + 2.0) / 2 and (-0.2 + 0.6) / 2.
    assert numbers["policy/adversary-of-first/kl_to_partner"] == pytest.approx(1.2)
    assert numbers["policy/adversary-of-second/kl_to_partner"] == pytest.approx(0.2)
    expected = tethered_return(torch.tensor(1.0), torch.tensor(0.4), torch.tensor(0.0), 2.0)
    returns = player_returns(played(arm_of("srpo"), PAYS, KL), 2.0, True)
    assert returns["adversary-of-first", "second"][0].item() == pytest.approx(expected.item())


# -- sampled partners, mixtures --------------------------------------------------------------------------------------


def with_partners(count: int, name: str = "srpo", live_share: float = 0.0) -> Arm:
    lazy = EnginePolicy("lazy", adapter=None)
    partners = {f"z{number}": dict.fromkeys(SEATS, lazy) for number in range(count)}
    return build_arm(name, SEATS, "seat", 2.0, SAMPLING, partners, live_share)


def test_each_hero_meets_every_sampled_partner_on_the_same_problems_and_alone_is_trained() -> None:
    arm = with_partners(3)
    assert (arm.adapters, arm.adversaries) == (SEATS, {})
    assert [[t.match.name for t in match_set.matches] for match_set in arm.match_sets] == [
        ["first-with-z0", "first-with-z1", "first-with-z2"],
        ["second-with-z0", "second-with-z1", "second-with-z2"],
    ]
    assert all(t.players == {t.match.name.split("-")[0]: Player(t.match.name.split("-")[0], t.match.name.split("-")[0])}
               for t in arm.matches)  # fmt: skip
    (specs,) = specs_of(arm, PROBLEMS[:4], group=6)
    assert len(specs) == 4 * 6  # the budget of every other arm
    met = {name: {t.problem.id for t in specs if t.match.name == name} for name in {t.match.name for t in specs}}
    assert met["first-with-z0"] == met["first-with-z1"] == met["first-with-z2"] == {"p0", "p2"}
    assert Counter(t.match.name for t in specs)["second-with-z1"] == 2 * 2


def test_a_step_may_draw_some_of_the_partners_the_same_on_all_processes() -> None:
    arm = with_partners(5)
    met = []
    for step in range(20):
        whole = {t.match.name for _, t in episode_specs(arm, PROBLEMS, 4, 0, 1, 2, step)}
        ranks = [{t.match.name for _, t in episode_specs(arm, PROBLEMS, 4, rank, 2, 2, step)} for rank in (0, 1)]
        assert len([name for name in whole if name.startswith("first")]) == 2
        assert ranks[0] | ranks[1] == whole
        met.append(frozenset(whole))
    assert len(set(met)) > 5
    assert {name for names in met for name in names} == {t.match.name for t in arm.matches}


def test_group_sizes_are_the_parts_of_a_problems_episodes() -> None:
    assert set(group_sizes(with_partners(3), 6).values()) == {2}
    assert set(group_sizes(with_partners(5), 6, sampled=3).values()) == {2}
    assert set(group_sizes(arm_of("srpo"), 6).values()) == {6}


def test_the_heroes_play_their_share_of_the_problems_with_each_other() -> None:
    arm = build_arm("srpo", SEATS, "seat", 2.0, SAMPLING, live_share=0.25)
    (specs,) = specs_of(arm, PROBLEMS * 2, group=2)
    assert Counter(t.match.name for t in specs) == {"live": 8, "adversary-of-first": 12, "adversary-of-second": 12}
    assert arm.match_sets[-1].matches[0].players == {seat: Player(seat, hero=seat) for seat in SEATS}


@pytest.mark.parametrize(
    ("arm", "problems", "group", "message"),
    [
        (with_partners(3), 8, 4, r"num_generations \(4\) must be at least twice the number of partners .* \(3\)"),
        (with_partners(3), 8, 7, "and a multiple of it"),
        (with_partners(2), 7, 4, r"problems_per_step \(7\) must be a multiple of matches \(2\)"),
        (build_arm("srpo", SEATS, "seat", 2.0, SAMPLING, live_share=0.3), 8, 4, "the share of 0.35"),
    ],
)
def test_episodes_that_do_not_divide_are_refused(arm: Arm, problems: int, group: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_divides(problems, group, arm, 1)


def test_a_pure_adversary_is_seated_as_srpos_whatever_tau() -> None:
    assert seated(arm_of("adversary", tau=0)) == seated(arm_of("srpo"))
    assert tether_strength("adversary", 0) == math.inf and tether_strength("srpo", 3.0) == 3.0
