"""Turn-level credit, critics, sampled partners and schedules: by hand. No model is run here."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_sra.objectives import (
    Tether,
    explained_variance,
    gae,
    group_advantages,
    returns_to_go,
    turn_rewards,
    value_loss,
)
from llm_sra.objectives.partner_returns import PartnerReturns
from llm_sra.objectives.risk.cvar import cvar
from llm_sra.objectives.risk.entropic import entropic
from llm_sra.objectives.risk.expectation import expectation
from llm_sra.objectives.risk.worst_case import worst_case
from llm_sra.objectives.tau_schedule import TauSchedule
from llm_sra.task import Episode, Outcome, Problem, Reply, Reward, Sampling, Turn
from llm_sra.trainer.arms import Arm, build_arm
from llm_sra.trainer.credit import weigh_partners
from llm_sra.trainer.critic_credit import whiten
from llm_sra.trainer.estimators import EstimatorInputs, EstimatorOptions, find_estimator
from llm_sra.trainer.player_episodes import player_episodes, player_returns
from llm_sra.trainer.rollout import Rollout, collect

SEATS = ("first", "second")


def close(tensor: torch.Tensor, expected: Sequence[float]) -> bool:
    return tensor.tolist() == pytest.approx(list(expected), abs=1e-6)


# -- rules -----------------------------------------------------------------------------------------------------------

R, V = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.2, 0.4]])


def test_gae_by_hand() -> None:
    # δ = (0 + 0.9 * 0.2 - 0.5, 0 + 0.9 * 0.4 - 0.2, 1 - 0.4) = (-0.32, 0.16, 0.6), γ λ = 0.45
    # A = (-0.32 + 0.45 * 0.43, 0.16 + 0.45 * 0.6, 0.6)
    assert close(gae(R, V, 0.9, 0.5)[0], [-0.1265, 0.43, 0.6])


def test_gae_at_lambda_one_is_the_return_less_the_value_and_at_zero_one_step() -> None:
    assert close(gae(R, V, 1.0, 1.0)[0], [0.5, 0.8, 0.6])  # 1 - V
    assert close(gae(R, V, 1.0, 0.0)[0], [-0.3, 0.2, 0.6])  # V' - V, and 1 - V at the end


def test_gae_gives_sequences_of_other_lengths_nothing_after_their_end() -> None:
    longer = torch.nn.functional.pad(R, (0, 2)), torch.nn.functional.pad(V, (0, 2))
    assert close(gae(*longer, 0.9, 0.5)[0], [-0.1265, 0.43, 0.6, 0.0, 0.0])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=6), st.floats(0, 1), st.floats(0, 1)
)
def test_gae_is_the_discounted_sum_of_its_errors(steps: list[tuple[float, float]], gamma: float, lam: float) -> None:
    rewards, values = (torch.tensor([column], dtype=torch.float64) for column in zip(*steps, strict=True))
    ahead = [*values[0, 1:].tolist(), 0.0]
    errors = [r + gamma * after - v for (r, v), after in zip(steps, ahead, strict=True)]
    expected = [sum((gamma * lam) ** (k - t) * errors[k] for k in range(t, len(errors))) for t in range(len(errors))]
    assert close(gae(rewards, values, gamma, lam)[0], expected)


def test_the_value_loss_is_half_the_squared_error_and_clipping_takes_the_larger_of_two() -> None:
    values, old, returns = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 0.9, 0.0]), torch.tensor([1.0, 2.0, 1.0])
    assert close(value_loss(values, old, returns, None), [0.0, 0.5, 0.5])
    # The first moved by 1, more than 0.2: held at 0.2, its error is 0.8, and 0.8² / 2 = 0.32 is the larger.
    assert close(value_loss(values, old, returns, 0.2), [0.32, 0.5, 0.5])


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])  # variance 1.25
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((4,), 7.0), returns) == pytest.approx(0.0)
    assert explained_variance(torch.tensor([0.0, 2.0, 4.0, 6.0]), returns) == pytest.approx(0.0)  # errors vary as much
    assert math.isnan(explained_variance(torch.zeros(2), torch.ones(2)))


def test_rewards_belong_to_the_last_turn_before_them() -> None:
    # The seat moves at steps 1 and 3 of 5: what step 0 brought came before it; steps 1, 2 are its first turn's.
    rewards = turn_rewards([10.0, 1.0, 2.0, 3.0, 4.0], [1, 3])
    assert close(rewards, [3.0, 7.0])
    assert close(returns_to_go(rewards), [10.0, 7.0])
    assert turn_rewards([10.0, 1.0], []).shape == (0,)  # never asked


def test_leave_one_out_compares_with_the_others_alone() -> None:
    returns = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert close(group_advantages(returns, baseline="leave_one_out")[0], [1.0, -1 / 3, -1 / 3, -1 / 3])
    assert close(group_advantages(returns)[0], [0.75, -0.25, -0.25, -0.25])


# -- episodes --------------------------------------------------------------------------------------------------------


def arm_of(name: str, tau: float = 2.0, **options: Any) -> Arm:
    return build_arm(name, SEATS, "seat", tau, Sampling(), **options)


def played(
    arm: Arm, pays: Sequence[Sequence[tuple[float, float]]], kl: Sequence[Sequence[float]] = (), appended: bool = True
) -> Rollout:
    """A rollout of the first match, of two tokens a turn.

    Args:
        arm: Of which the first match is played.
        pays: Of each episode, by step, what both seats are paid. The seats alternate, the first begins.
        kl: By episode, log φ - log π of each token of the adversary.
        appended: Whether a seat's view only grows, which makes its episode one row.
    """
    training = arm.matches[0]
    episodes = []
    for number, steps in enumerate(pays):
        turns, sofar = [], {seat: (9, number) for seat in SEATS}
        for step in range(len(steps)):
            seat = SEATS[step % 2]
            prompt = sofar[seat] if appended else (9, number, step)
            said = (step, 1)
            sofar[seat] = (*prompt, *said, 7)
            turns.append(Turn(seat, training.match.seats[seat].name, step, (), prompt, Reply("", said, (-1.0, -1.0))))
        rewards = {seat: tuple(Reward(own=step[i]) for step in steps) for i, seat in enumerate(SEATS)}
        seats = {seat: policy.name for seat, policy in training.match.seats.items()}
        outcome = Outcome(True)
        episodes.append(Episode(Problem("p", None), training.match.name, number, seats, tuple(turns), rewards, outcome))
    rollout = collect(episodes, [training] * len(episodes), mask_truncated=False)
    for sample in rollout.samples:
        if sample.tether is not None:
            rest = iter(kl[sample.row.episode][2 * min(t for t in sample.row.turns if t >= 0) :] if kl else ())
            sample.nats = torch.tensor([next(rest, 0.0) if turn >= 0 else 0.0 for turn in sample.row.turns])
    return rollout


def estimate(rollout: Rollout, algorithm: str, level: str, tau: float = 2.0, **options: Any) -> None:
    """Fill in advantages by an estimator; all episodes are one group."""
    episodes, tether = player_episodes(rollout), Tether(tau)
    sizes = {training.match.name: len(rollout.episodes) for training in rollout.matches}
    returns = player_returns(episodes, tether)
    inputs = EstimatorInputs(rollout, episodes, returns, sizes, tether, EstimatorOptions(**options))
    find_estimator(algorithm, level).function(inputs)


def credited(
    rollout: Rollout, how: str, tau: float = 2.0, algorithm: str = "", **options: Any
) -> dict[tuple[int, str], list[float]]:
    """Advantages of all that was said, by episode and seat; between replies they must be 0."""
    estimate(rollout, algorithm or ("ppo" if how == "token" else "grpo"), how, tau, **options)
    found: dict[tuple[int, str], list[float]] = {}
    for sample in rollout.samples:
        said = torch.tensor(sample.row.turns) >= 0
        assert not sample.advantages[~said].any()
        values = found.setdefault((sample.row.episode, sample.row.seat), [])
        values += [round(value, 6) for value in sample.advantages[said].tolist()]
    return found


# Four steps: first, second, first, second. Own rewards of the first and second seat by step.
TWO = [[(1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 1.0)], [(0.0, 0.0), (0.0, 0.0), (2.0, 0.0), (0.0, 0.0)]]


@pytest.mark.parametrize("appended", [True, False])
def test_episode_level_gives_every_turn_the_same(appended: bool) -> None:
    found = credited(played(arm_of("ippo"), TWO, appended=appended), "episode")
    assert found[0, "first"] == [-0.5] * 4  # 1 against 2, mean 1.5
    assert found[0, "second"] == [0.5] * 4  # 1 against 0


@pytest.mark.parametrize("appended", [True, False])
def test_turn_level_compares_what_each_turn_and_later_ones_brought(appended: bool) -> None:
    found = credited(played(arm_of("ippo"), TWO, appended=appended), "turn")
    # First seat, to go: 1, 0 in the one episode and 2, 2 in the other.
    assert found[0, "first"] == [-0.5, -0.5, -1.0, -1.0] and found[1, "first"] == [0.5, 0.5, 1.0, 1.0]
    assert found[0, "second"] == [0.5] * 4


def test_a_turn_that_the_others_did_not_come_to_is_compared_with_nothing() -> None:
    short = [TWO[0], TWO[1][:2]]
    found = credited(played(arm_of("ippo"), short), "turn")
    # To go 1, 0 against 0: only the first turns are compared.
    assert found[0, "first"] == [0.5, 0.5, 0.0, 0.0] and found[1, "first"] == [-0.5, -0.5]


@pytest.mark.parametrize("how", ["episode", "turn", "token"])
def test_an_episode_may_end_before_a_seat_is_asked(how: str) -> None:
    rollout = played(arm_of("ippo"), [[(1.0, 1.0)], [(0.0, 0.0), (0.0, 3.0)]])
    for sample in rollout.samples:
        sample.values = torch.zeros(len(sample.row.completion_ids))
    # With a critic that expects nothing an advantage is what came after; else it is less the mean of both episodes.
    [early, late] = {"episode": ([0.5], [1.0]), "turn": ([0.5], [0.0]), "token": ([1.0], [3.0])}[how]
    options = {"gamma": 1.0, "gae_lambda": 1.0} if how == "token" else {}
    found = credited(rollout, how, **options)
    assert found[0, "first"] == 2 * early and found[1, "second"] == 2 * late
    assert (0, "second") not in found


def test_turn_level_leave_one_out_is_no_constant_factor_of_the_mean_where_groups_differ_in_size() -> None:
    three = [TWO[0], TWO[1], TWO[1][:2]]
    mean = credited(played(arm_of("ippo"), three), "turn")[0, "first"]
    others = credited(played(arm_of("ippo"), three), "turn", advantage_baseline="leave_one_out")[0, "first"]
    # To go at turn 1: 1, 2, 0, and 1 less the mean of the others is 0; at turn 2: 0 and 2, factors 3/2 and 2.
    assert mean == [0.0, 0.0, -1.0, -1.0] and others == [0.0, 0.0, -2.0, -2.0]


def test_a_turns_tether_is_that_of_what_was_said_from_it_on() -> None:
    kl = [[0.1, 0.3, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]]
    found = credited(played(arm_of("srpo"), TWO, kl), "turn")
    # The adversary sits second, paid -R of the first: -0, -0 after its turns in episode 0 (the 1 came before), -2, 0 in
    # episode 1. Less KL / 2: turn 1: -(0.6) / 2 = -0.3 against -2; turn 2: -0.2 / 2 = -0.1 against 0.
    assert found[0, "second"] == [0.85, 0.85, -0.05, -0.05]


def with_values(rollout: Rollout, value: float) -> Rollout:
    for sample in rollout.samples:
        sample.values = torch.full((len(sample.row.completion_ids),), value)
    return rollout


@pytest.mark.parametrize("appended", [True, False])
def test_a_critics_advantages_run_over_tokens_and_turns(appended: bool) -> None:
    rollout = with_values(played(arm_of("ippo"), TWO[:1], appended=appended), 0.25)
    found = credited(rollout, "token", gamma=0.5, gae_lambda=1.0)
    # Tokens of the first seat: two, reward 1 at the second; two more, nothing. With λ = 1 the discounted return less V.
    assert found[0, "first"] == [0.25, 0.75, -0.25, -0.25]
    # The second's reward comes at its last token: 0.125, 0.25, 0.5, 1 less 0.25
    assert found[0, "second"] == [-0.125, 0.0, 0.25, 0.75]


def test_a_critic_is_fitted_to_advantage_plus_value_where_something_was_said() -> None:
    rollout = with_values(played(arm_of("ippo"), TWO[:1]), 0.25)
    credited(rollout, "token", gamma=0.5, gae_lambda=1.0)
    (first, _) = rollout.samples
    said = torch.tensor(first.row.turns) >= 0
    assert first.targets is not None and first.targets[~said].isnan().all()
    assert close(first.targets[said], [0.5, 1.0, 0.0, 0.0])


def test_turns_as_decisions_give_all_tokens_of_a_turn_one_advantage_and_fit_its_first_value() -> None:
    rollout = with_values(played(arm_of("ippo"), TWO[:1]), 0.25)
    estimate(rollout, "ppo", "turn", gamma=0.5, gae_lambda=1.0)
    (_, second) = rollout.samples
    said = torch.tensor(second.row.turns) >= 0
    assert close(second.advantages[said], [0.25, 0.25, 0.75, 0.75])  # 0.5 and 1 less 0.25
    assert second.targets is not None and close(second.targets[said].nan_to_num(-9), [0.5, -9, 1.0, -9])


def test_with_a_critic_the_tether_is_paid_at_the_token_that_it_belongs_to() -> None:
    kl = [[0.2, 0.4, 0.0, 0.6]]
    rollout = with_values(played(arm_of("srpo"), TWO[:1], kl), 0.0)
    found = credited(rollout, "token", tau=2.0, gamma=1.0, gae_lambda=0.0)
    assert found[0, "second"] == [-0.1, -0.2, 0.0, -0.3]  # λ = 0 and V = 0: the token's own reward


def test_whitening_makes_a_policys_advantages_zero_on_average_and_one_in_deviation() -> None:
    rollout = with_values(played(arm_of("ippo"), TWO), 0.25)
    credited(rollout, "token", gamma=1.0, gae_lambda=1.0)
    whiten(rollout)
    for adapter in SEATS:
        mine = [s for s in rollout.samples if s.adapter == adapter]
        own = torch.cat([s.advantages[torch.tensor(s.row.own).bool()] for s in mine])
        assert own.mean().item() == pytest.approx(0, abs=1e-5) and own.std(correction=0).item() == pytest.approx(
            1, abs=1e-3
        )
        assert all(not s.advantages[torch.tensor(s.row.turns) < 0].any() for s in mine)


# -- sampled partners ------------------------------------------------------------------------------------------------


def sampled(means: Sequence[float]) -> tuple[Arm, Rollout]:
    """Two episodes of the first seat's hero with each partner, returns one above and one below the mean by 0.5."""
    partners = {f"z{i}": {seat: None for seat in SEATS} for i in range(len(means))}
    arm = build_arm("srpo", SEATS, "seat", 1.0, Sampling(), partners)  # type: ignore[arg-type]
    episodes, matches = [], []
    for training, mean in zip(arm.match_sets[0].matches, means, strict=True):
        for index, value in enumerate((mean + 0.5, mean - 0.5)):
            turn = Turn("first", "first", 0, (), (1,), Reply("", (5,), (-1.0,)))
            rewards = {seat: (Reward(team=value),) for seat in SEATS}
            problem, seats = Problem("p", None), {"first": "first", "second": str(training.partner)}
            episodes.append(Episode(problem, training.match.name, index, seats, (turn,), rewards, Outcome(True)))
            matches.append(training)
    return arm, collect(episodes, matches, mask_truncated=False)


def weighed(means: Sequence[float], measure: Any, earned: PartnerReturns | None = None) -> tuple[list[float], Rollout]:
    arm, rollout = sampled(means)
    episodes, tether = player_episodes(rollout), Tether(1.0)
    returns, sizes = player_returns(episodes, tether), {t.match.name: 2 for t in arm.matches}
    inputs = EstimatorInputs(rollout, episodes, returns, sizes, tether, EstimatorOptions())
    find_estimator("grpo", "episode").function(inputs)
    weigh_partners(rollout, arm, episodes, returns, measure, {"first": earned or PartnerReturns(0.0)})
    return [sample.advantages.item() for sample in rollout.samples], rollout


def test_a_hero_learns_most_from_the_partners_that_its_risk_measure_weighs_most() -> None:
    # Variance within partners 1 / (4 - 2) = 0.5, of a mean of two 0.25; the means vary by 0.5, half of it chance: 1 and
    # 0 become 0.75 and 0.25. Entropic at τ = log 9: w ∝ (1/3, 1), so (1/4, 3/4); times two partners 1/2 and 3/2.
    advantages, rollout = weighed([1.0, 0.0], lambda returns: entropic(returns, math.log(9)))
    assert advantages == pytest.approx([0.25, -0.25, 0.75, -0.75])
    assert rollout.notes["risk/first/z0/weight"] == pytest.approx(0.25)
    assert rollout.notes["risk/first/z1/return"] == pytest.approx(0.0)
    assert rollout.notes["risk/first/noise"] == pytest.approx(0.5)


def test_the_expectation_leaves_advantages_as_they_are_and_the_worst_case_only_those_with_the_worst() -> None:
    assert weighed([1.0, 0.0], expectation)[0] == pytest.approx([0.5, -0.5, 0.5, -0.5])
    assert weighed([1.0, 0.0], worst_case)[0] == pytest.approx([0.0, 0.0, 1.0, -1.0])


def test_the_risk_measures_differ_and_not_by_a_factor() -> None:
    measures = (expectation, worst_case, lambda r: entropic(r, 0.5), lambda r: cvar(r, 0.5))
    found = [torch.tensor(weighed([4.0, 2.0, 0.0], measure)[0]) for measure in measures]
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            assert torch.cosine_similarity(one, other, dim=0) < 0.995


def test_smoothing_pools_returns_over_steps() -> None:
    earned = PartnerReturns(0.5)
    weighed([6.0, 0.0], worst_case, earned)
    _, rollout = weighed([0.0, 6.0], worst_case, earned)  # (0.5 * 6 + 0) / 1.5 and (0 + 6) / 1.5
    assert rollout.notes["risk/first/z0/return"] == pytest.approx(2.0)
    assert rollout.notes["risk/first/z1/return"] == pytest.approx(4.0)
    assert rollout.notes["risk/first/z0/weight"] == pytest.approx(1.0)


def test_a_partner_that_a_step_does_not_meet_keeps_its_weight() -> None:
    arm, rollout = sampled([10.0, 0.0])
    earned = {"first": PartnerReturns(0.5)}

    def weigh(rollout: Rollout) -> list[float]:
        episodes = player_episodes(rollout)
        returns = player_returns(episodes, Tether(1.0))
        for sample in rollout.samples:
            sample.advantages = torch.ones(1)
        weigh_partners(rollout, arm, episodes, returns, worst_case, earned)
        return [sample.advantages.item() for sample in rollout.samples]

    assert weigh(rollout) == [0.0, 0.0, 2.0, 2.0]  # all weight on the second, times two partners
    alone = collect(rollout.episodes[2:], rollout.matches[2:], mask_truncated=False)
    assert weigh(alone) == [2.0, 2.0]  # as before, not 1: the first partner, which is not met, still counts
    assert alone.notes["risk/first/z0/weight"] == 0.0


# -- the tether's strength -------------------------------------------------------------------------------------------


def test_a_line_goes_from_its_start_to_tau_and_stays_there() -> None:
    schedule = TauSchedule("linear", 10.0, start=2.0, steps=4)
    assert [schedule.at(step) for step in range(6)] == [2.0, 4.0, 6.0, 8.0, 10.0, 10.0]


def test_too_large_a_divergence_strengthens_the_tether_and_too_small_a_one_weakens_it() -> None:
    schedule = TauSchedule("target_kl", 10.0, target=2.0)
    schedule.observe(2.2)  # an error of 0.1: 1/τ grows by 1 %
    assert schedule.at(1) == pytest.approx(10 / 1.01)
    schedule.observe(0.0)  # an error of -1, held at -0.2: 1/τ shrinks by 2 %
    assert schedule.at(2) == pytest.approx(10 / 1.01 / 0.98)
    resumed = TauSchedule("target_kl", 10.0, target=2.0)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.at(2) == schedule.at(2)
