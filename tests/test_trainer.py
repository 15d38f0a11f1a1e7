"""Short trainings of a tiny random model, as a user starts them: what moves, by how much, and what is written."""

import json
import logging
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import training_support
from training_support import GRADIENT, Initial, Letters, make_trainer, train_tiny, vectors
from transformers import TrainerCallback

from llm_sra.evaluation.development import DevEvaluation
from llm_sra.runs import Run, read_metrics
from llm_sra.trainer.metrics import TokenMeans, dead_policies, wild_policies
from llm_sra.trainer.parse import ConfigError
from llm_sra.trainer.progress import summary

SUPPORT = training_support.__file__
HEROES = ("left", "right")
ADVERSARIES = ("adversary-of-left", "adversary-of-right")


def steps_of(run: Run) -> list[dict[str, Any]]:
    """What was logged of each step."""
    return [line for line in read_metrics(run.path / "metrics.jsonl") if "time/train" in line]


def trained(out: Path, **overrides: Any) -> tuple[Run, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A run, its adapters at the end, and how far each of them moved."""
    initial = Initial()
    run = train_tiny(out, callbacks=[initial], **overrides)
    final = vectors(run.adapters)
    return run, final, {name: final[name] - before for name, before in initial.vectors.items()}


class Counts(TrainerCallback):
    """Keeps how many updates the optimizer made of each of its groups, one for each adapter."""

    def __init__(self) -> None:
        self.updates: list[set[int]] = []

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer = kwargs["optimizer"]
        self.updates = [
            {int(optimizer.state[parameter]["step"]) for parameter in group["params"]}
            for group in optimizer.param_groups
        ]


@pytest.fixture(scope="module")
def srpo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return trained(tmp_path_factory.mktemp("runs") / "srpo", log_episodes=-1)


def test_every_policy_is_trained(srpo: tuple) -> None:
    _, final, moved = srpo
    assert set(final) == {*HEROES, *ADVERSARIES}
    for name, change in moved.items():
        assert change.norm() > 0.01, name
    assert (final["adversary-of-left"] - final["right"]).norm() > 0.01


def test_the_same_seed_gives_the_same_run_and_another_seed_another(srpo: tuple, tmp_path: Path) -> None:
    run, final, _ = srpo
    torch.manual_seed(99)  # no global generator has a say
    again = train_tiny(tmp_path / "again", log_episodes=-1)
    assert {
        name: torch.equal(final[name], vector) for name, vector in vectors(again.adapters).items()
    } == dict.fromkeys(final, True)
    for episodes in (run.path / "episodes").iterdir():
        assert (again.path / "episodes" / episodes.name).read_text() == episodes.read_text()
    other = vectors(train_tiny(tmp_path / "other", seed=1).adapters)
    assert not any(torch.equal(final[name], other[name]) for name in final)


def test_heroes_start_alike_in_all_arms_and_adversaries_as_copies_of_their_partners(tmp_path: Path) -> None:
    started = {}
    for arm, seed in (("srpo", 0), ("ippo", 0), ("srpo", 1)):
        initial = Initial()
        train_tiny(tmp_path / f"{arm}-{seed}", callbacks=[initial], arm=arm, seed=seed, max_steps=1)
        started[arm, seed] = initial.vectors
    assert set(started["ippo", 0]) == set(HEROES)
    for hero in HEROES:
        assert torch.equal(started["ippo", 0][hero], started["srpo", 0][hero])
        assert not torch.equal(started["srpo", 1][hero], started["srpo", 0][hero])
    assert not torch.equal(started["srpo", 0]["left"], started["srpo", 0]["right"])
    assert torch.equal(started["srpo", 0]["adversary-of-left"], started["srpo", 0]["right"])
    assert torch.equal(started["srpo", 0]["adversary-of-right"], started["srpo", 0]["left"])


def test_tau_zero_is_ippo_bit_for_bit(srpo: tuple, tmp_path: Path) -> None:
    # Also where the two are told different things of the adversaries that neither has.
    ippo = train_tiny(tmp_path / "ippo", arm="ippo", log_episodes=-1)
    zero = train_tiny(tmp_path / "zero", arm="srpo", tau=0, adversary_updates=3, adversary_learning_rate=1.0)
    one, other = vectors(ippo.adapters), vectors(zero.adapters)
    assert set(one) == set(other) == set(HEROES)
    assert all(torch.equal(one[name], other[name]) for name in HEROES)
    assert not torch.equal(one["left"], srpo[1]["left"])


def test_shared_policies_are_one_hero_and_one_adversary(tmp_path: Path) -> None:
    run, _, moved = trained(tmp_path / "run", sharing="shared")
    assert run.heroes == {"left": "hero", "right": "hero"}
    assert set(moved) == {"hero", "adversary"}
    assert min(change.norm().item() for change in moved.values()) > 0.01
    (first, _) = steps_of(run)
    assert {key.split("/")[2] for key in first if key.startswith("play/left/")} == {"hero", "adversary"}


def test_what_is_logged_of_each_step(srpo: tuple) -> None:
    first, second = steps_of(srpo[0])
    assert (first["step"], second["step"]) == (1, 2)
    for number in ("return", "team_reward", "cost", "solve_rate", "effort", "tokens"):
        for match in ("left/left", "right/adversary-of-left", "left/adversary-of-right", "right/right"):
            assert f"play/{match}/{number}" in first
    for policy in (*HEROES, *ADVERSARIES):
        for number in ("entropy", "clip_fraction", "grad_norm", "loss", "dead_groups"):
            assert f"policy/{policy}/{number}" in first
    for policy in ADVERSARIES:
        assert first[f"policy/{policy}/kl_to_partner"] == 0.0  # it starts as a copy
        assert second[f"policy/{policy}/kl_to_partner"] != 0.0
    assert not any(f"policy/{policy}/kl_to_partner" in first for policy in HEROES)
    for part in ("generate", "score", "train", "sync"):
        assert first[f"time/{part}"] >= 0
    assert first["time/generate"] > 0
    norms = [first[f"policy/{policy}/grad_norm"] for policy in (*HEROES, *ADVERSARIES)]
    assert min(norms) > 0
    assert first["grad_norm"] == pytest.approx(sum(norm**2 for norm in norms) ** 0.5, rel=1e-6)


def test_what_is_logged_is_what_was_played(srpo: tuple) -> None:
    run = srpo[0]
    lines = (run.path / "episodes" / "step-000001.jsonl").read_text().splitlines()
    episodes = [json.loads(line) for line in lines]
    assert Counter(episode["match"] for episode in episodes) == dict.fromkeys(ADVERSARIES, 6)  # 2 problems x 3
    first = steps_of(run)[0]
    for match, hero in zip(ADVERSARIES, HEROES, strict=True):
        (other,) = set(HEROES) - {hero}
        played = [episode for episode in episodes if episode["match"] == match]
        for seat, policy in ((hero, hero), (other, match)):
            assert {episode["policies"][seat] for episode in played} == {policy}
            rewards = [episode["rewards"][seat] for episode in played]  # by step: team, own, cost
            numbers = {
                "return": fmean(sum(team + own - cost for team, own, cost in steps) for steps in rewards),
                "team_reward": fmean(sum(team for team, _, _ in steps) for steps in rewards),
                "cost": fmean(sum(cost for _, _, cost in steps) for steps in rewards),
                "tokens": fmean(sum(t["tokens"] for t in e["turns"] if t["seat"] == seat) for e in played),
                "effort": fmean(episode["effort"][seat] for episode in played),
            }
            for name, value in numbers.items():
                assert first[f"play/{seat}/{policy}/{name}"] == pytest.approx(value), name


def test_arms_of_equal_budget_report_how_many_episodes_each_policy_had(srpo: tuple, tmp_path: Path) -> None:
    def counts(run: Run) -> dict[str, float]:
        return {key: value for key, value in steps_of(run)[0].items() if key.split("/")[-1] == "episodes"}

    # 4 problems x 3: each of IPPO's trains two heroes, each of SRPO's one hero and one adversary.
    assert counts(srpo[0]) == {"episodes": 12, **{f"policy/{name}/episodes": 6 for name in (*HEROES, *ADVERSARIES)}}
    ippo = train_tiny(tmp_path / "ippo", arm="ippo", max_steps=1)
    assert counts(ippo) == {"episodes": 12, "policy/left/episodes": 12, "policy/right/episodes": 12}
    shared = train_tiny(tmp_path / "shared", arm="ippo", sharing="shared", max_steps=1)
    assert counts(shared) == {"episodes": 12, "policy/hero/episodes": 24}


def test_what_saves_memory_changes_nothing(tmp_path: Path) -> None:
    _, _, plain = trained(tmp_path / "plain", **GRADIENT)
    _, _, small = trained(tmp_path / "small", **GRADIENT, gradient_checkpointing=True, rollout_batch_size=2)
    for name, change in plain.items():
        assert (small[name] - change).norm() < 1e-4 * change.norm()


def test_the_adversarys_own_learning_rate_is_its_own(tmp_path: Path) -> None:
    flags = {**GRADIENT, "learning_rate": 0.5}
    _, _, both = trained(tmp_path / "both", **flags)
    _, _, still = trained(tmp_path / "still", **flags, adversary_learning_rate=0.0)
    _, _, fast = trained(tmp_path / "fast", **flags, adversary_learning_rate=2.0)
    for name in HEROES:
        assert torch.equal(still[name], both[name])
        assert torch.equal(fast[name], both[name])
    for name in ADVERSARIES:
        assert still[name].abs().max() == 0
        # Plain gradient descent: 2 / 0.5 times as far.
        assert torch.allclose(fast[name], 4 * both[name], rtol=1e-3, atol=1e-6)
        assert both[name].norm() > 1e-3


def test_number_of_updates_of_heroes_and_adversaries(tmp_path: Path) -> None:
    counts = Counts()
    train_tiny(tmp_path / "run", callbacks=[counts], num_iterations=2, adversary_updates=3, max_steps=2)
    # 2 steps x 2 iterations for a hero; x 3 for an adversary.
    assert counts.updates == [{4}, {4}, {12}, {12}]


def test_later_iterations_compare_with_the_policy_before_the_first(tmp_path: Path) -> None:
    once = steps_of(train_tiny(tmp_path / "once", max_steps=1, learning_rate=0.3))
    often = steps_of(train_tiny(tmp_path / "often", max_steps=1, learning_rate=0.3, num_iterations=3))
    for policy in (*HEROES, *ADVERSARIES):
        assert once[0][f"policy/{policy}/clip_fraction"] == 0.0
        assert often[0][f"policy/{policy}/clip_fraction"] > 0.01


def test_clipping_limits_the_norm_of_each_adapter(tmp_path: Path) -> None:
    _, _, free = trained(tmp_path / "free", **GRADIENT)
    run, _, clipped = trained(tmp_path / "clipped", **{**GRADIENT, "max_grad_norm": 0.05})
    for name, change in free.items():
        assert change.norm() > 0.1
        assert clipped[name].norm().item() == pytest.approx(0.05, rel=1e-3)
        assert torch.allclose(clipped[name] / 0.05, change / change.norm(), atol=1e-4)
        assert steps_of(run)[0][f"policy/{name}/grad_norm"] == pytest.approx(change.norm().item(), rel=1e-3)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_is_used(tmp_path: Path) -> None:
    initial = Initial()

    class Last(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.model = kwargs["model"]

    last = Last()
    with pytest.raises(FloatingPointError, match=r"step 0: the gradient of adapter 'right' is nan"):
        train_tiny(tmp_path / "run", callbacks=[initial, last], task=f"{SUPPORT}:Broken", arm="ippo")
    now = Initial()
    now.on_train_begin(None, None, None, model=last.model)
    assert all(torch.equal(now.vectors[name], initial.vectors[name]) for name in HEROES)


def test_the_reference_divergence_is_measured_from_the_base(tmp_path: Path) -> None:
    first, second = steps_of(train_tiny(tmp_path / "run", beta=0.1, arm="ippo"))
    for hero in HEROES:
        assert first[f"policy/{hero}/kl_to_base"] == pytest.approx(0, abs=1e-6)  # fresh adapters change nothing
        assert second[f"policy/{hero}/kl_to_base"] > 1e-4
    assert "beta: 0.1" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_other_direction_of_the_tether_trains_otherwise(srpo: tuple, tmp_path: Path) -> None:
    run, final, _ = trained(tmp_path / "run", kl_direction="partner_adversary", tau=0.1)
    assert not torch.equal(final["adversary-of-left"], srpo[1]["adversary-of-left"])
    assert "policy/adversary-of-left/kl_to_partner" in steps_of(run)[1]


def test_replies_that_were_all_cut_and_masked_train_nothing(tmp_path: Path) -> None:
    task_args = {"reply_tokens": 1}
    run, _, moved = trained(
        tmp_path / "run", mask_truncated_completions=True, task_args=task_args, max_steps=1, loss_type="grpo"
    )
    (line,) = steps_of(run)
    assert line["replies_cut"] == 1
    assert line["play/left/left/tokens"] == 2  # the option has arrived: two turns of one token
    assert all(change.abs().max() == 0 for change in moved.values())


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_seat_that_was_never_asked_does_no_harm(algorithm: str, tmp_path: Path) -> None:
    run, _, moved = trained(tmp_path / "run", task_args={"turns": 1}, arm="ippo", algorithm=algorithm, max_steps=1)
    (line,) = steps_of(run)
    assert line["play/right/right/tokens"] == 0
    assert moved["left"].abs().max() > 0 and moved["right"].abs().max() == 0


def test_without_steps_an_epoch_is_a_pass_over_the_problems(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", max_steps=-1, num_train_epochs=3, problems_per_step=2, arm="ippo")
    # 4 problems, 2 a step, 3 times.
    assert [line["step"] for line in steps_of(run)] == [1, 2, 3, 4, 5, 6]


def test_more_problems_a_step_than_there_are_give_different_episodes(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", max_steps=1, problems_per_step=8, num_generations=2, arm="ippo", log_episodes=-1)
    episodes = [json.loads(line) for line in (run.path / "episodes" / "step-000001.jsonl").read_text().splitlines()]
    said = Counter((e["problem"], "|".join(turn["text"] for turn in e["turns"])) for e in episodes)
    assert len(episodes) == 16
    assert max(said.values()) == 1


def test_a_policy_that_learns_no_more_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="llm_sra.trainer.trainer"):
        train_tiny(tmp_path / "dead", task=f"{SUPPORT}:Nothing", arm="ippo", max_steps=1)
    assert [record.getMessage().split(" no longer")[0] for record in caplog.records] == ["step 1: left, right"]
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="llm_sra.trainer.trainer"):
        train_tiny(tmp_path / "alive", arm="ippo", max_steps=1)
    assert caplog.records == []


def test_a_policy_is_dead_without_entropy_or_without_variance() -> None:
    numbers = {
        "policy/a/entropy": 0.01,
        "policy/a/dead_groups": 0.0,
        "policy/b/entropy": 1.0,
        "policy/b/dead_groups": 1.0,
        "policy/c/entropy": 0.5,
        "policy/c/dead_groups": 0.9,
        "task/entropy": 0.0,  # a task's own metric
    }
    assert dead_policies(numbers) == ["a", "b"]


def test_a_policy_is_wild_once_its_entropy_has_more_than_tripled() -> None:
    first = {"policy/a/entropy": 0.3, "policy/b/entropy": 0.3, "policy/a/loss": 0.1, "task/entropy": 0.1}
    numbers = {"policy/a/entropy": 0.91, "policy/b/entropy": 0.89, "policy/a/loss": 9.0, "task/entropy": 9.0}
    assert wild_policies(numbers, first) == ["a"]


def test_a_progress_line_shows_the_solve_rate_and_the_heroes_efforts(srpo: tuple) -> None:
    line = steps_of(srpo[0])[0]
    left, right = (line[f"play/{hero}/{hero}/effort"] for hero in HEROES)
    assert summary(line) == f"solved {line['solve_rate']:.2f}, effort left {left:.1f}, right {right:.1f}"


def test_means_over_tokens_do_not_depend_on_micro_batches() -> None:
    def mean(*batches: tuple[float, int]) -> float:
        means = TokenMeans()
        for total, tokens in batches:
            means.add("x", torch.tensor(total), torch.tensor(tokens))
        return means.reduce()["x"]

    # 12 over 6 tokens; the micro-batches' own means are 1 and 2.2, or 5 and 1.4.
    assert mean((1.0, 1), (11.0, 5)) == mean((5.0, 1), (7.0, 5)) == mean((12.0, 6)) == 2.0


def test_divergence_entropy_its_gap_and_lengths_are_logged_by_turn_too(srpo: tuple) -> None:
    line = steps_of(srpo[0])[0]
    for name in ("entropy", "entropy_turn1", "entropy_turn2"):
        gap = line[f"policy/adversary-of-left/{name}"] - line[f"policy/right/{name}"]
        assert line[f"policy/adversary-of-left/{name.replace('entropy', 'entropy_gap')}"] == pytest.approx(gap)
    for hero in HEROES:
        assert 1 <= line[f"play/{hero}/{hero}/reply_tokens_turn2_p50"] <= line[f"play/{hero}/{hero}/reply_tokens_p95"]
    for adversary in ("adversary-of-left", "adversary-of-right"):
        turns = [line[f"policy/{adversary}/kl_to_partner_turn{turn}"] for turn in (1, 2)]
        assert sum(turns) == pytest.approx(line[f"policy/{adversary}/kl_to_partner"], abs=1e-5)
        assert f"policy/{adversary}/kl_to_partner_turn1_p95" in line
    for policy in (*HEROES, "adversary-of-left"):
        entropies = [line[f"policy/{policy}/entropy_turn{turn}"] for turn in (1, 2)]
        assert min(entropies) - 1e-6 <= line[f"policy/{policy}/entropy"] <= max(entropies) + 1e-6


PARTNER = """
class Apple:
    def reply(self, messages, rng):
        return "apple"
"""


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    (tmp_path / "partner.py").write_text(PARTNER)
    path = tmp_path / "roster.yaml"
    path.write_text("partners:\n  - {name: apple, kind: scripted, policy: 'partner.py:Apple'}\n")
    return path


def test_the_dev_roster_is_played_during_training(roster: Path, tmp_path: Path) -> None:
    run = train_tiny(
        tmp_path / "run", dev_roster=roster, eval_strategy="steps", eval_steps=1, logging_steps=2, dev_problems=2
    )
    lines = read_metrics(run.path / "metrics.jsonl")
    evaluations = [line for line in lines if "eval_self_play" in line]
    assert [line["step"] for line in evaluations] == [1, 2]
    numbers = {"self_play", "effort/left", "effort/right", "apple/left", "apple/right", "mean_partner", "worst_partner"}
    for line in evaluations:
        assert {f"eval_{name}" for name in numbers} <= set(line)
        assert line["eval_worst_partner"] == min(line["eval_apple/left"], line["eval_apple/right"])
        # Numbers of the training stay on the training's lines, which are means of two steps.
        assert not any(key.startswith(("policy/", "play/", "time/")) for key in line)
    assert [line["step"] for line in steps_of(run)] == [2]


def test_the_run_does_not_depend_on_evaluations(srpo: tuple, roster: Path, tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", dev_roster=roster, eval_strategy="steps", eval_steps=1, dev_problems=2)
    final = vectors(run.adapters)
    assert all(torch.equal(final[name], srpo[1][name]) for name in final)


def test_the_best_checkpoint_by_its_worst_partner_is_what_is_left(
    roster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr(DevEvaluation, "__call__", lambda self: {"worst_partner": next(scores)})
    run = train_tiny(
        tmp_path / "run",
        max_steps=3,
        dev_roster=roster,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        save_total_limit=2,
    )
    best, last = (vectors(run.path / "checkpoints" / f"checkpoint-{step}") for step in (2, 3))
    final = vectors(run.adapters)
    assert set(final) == {*HEROES, *ADVERSARIES}
    for name, vector in final.items():
        assert torch.equal(vector, best[name])
        assert not torch.equal(vector, last[name])
    state = json.loads((run.path / "checkpoints" / "checkpoint-3" / "trainer_state.json").read_text())
    assert (state["best_metric"], state["best_model_checkpoint"]) == (
        0.9,
        str(run.path / "checkpoints" / "checkpoint-2"),
    )
    assert not (run.path / "checkpoints" / "checkpoint-1").exists()


def test_an_evaluation_that_was_best_but_not_saved_does_no_harm(
    roster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.1])
    monkeypatch.setattr(DevEvaluation, "__call__", lambda self: {"worst_partner": next(scores)})
    run = train_tiny(
        tmp_path / "run",
        dev_roster=roster,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
    )
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert set(vectors(run.adapters)) == {*HEROES, *ADVERSARIES}


def test_evaluations_without_a_roster_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dev_roster"):
        train_tiny(tmp_path / "run", eval_strategy="steps", eval_steps=1)


def test_ratios_that_are_cut_below_one_are_refused_for_cispo(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epsilon_high must be 1 or more"):
        train_tiny(tmp_path / "run", loss_type="cispo")


def test_a_trainer_that_is_made_by_hand_takes_the_same_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", Letters(), max_steps=1)
    before = {name: [p.detach().clone() for p in trainer.bank.parameters(name)] for name in trainer.arm.adapters}
    trainer.train()
    for name in trainer.arm.adapters:
        assert any(not torch.equal(a, b) for a, b in zip(before[name], trainer.bank.parameters(name), strict=True))
    assert trainer.state.global_step == 1
