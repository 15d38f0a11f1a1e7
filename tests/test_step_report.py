"""What is logged of a step, and what a user is warned of, on short trainings of a tiny random model."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pytest
import torch
import training_support
from training_support import Trained, steps_of, train_tiny, trained

from llm_sra.runs import Run
from llm_sra.task import Sampling
from llm_sra.trainer import build_arm
from llm_sra.trainer.metrics import TokenMeans, exploding_policies, without_entropy, without_variance
from llm_sra.trainer.progress import summary
from llm_sra.trainer.step_report import StepReport

HEROES = ("left", "right")
ADVERSARIES = ("adversary-of-left", "adversary-of-right")
SUPPORT = training_support.__file__


@pytest.fixture(scope="module")
def srpo(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("runs") / "srpo", log_episodes=-1)


def test_what_is_logged_of_each_step(srpo: Trained) -> None:
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


def test_what_is_logged_is_what_was_played(srpo: Trained) -> None:
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


def test_arms_of_equal_budget_report_how_many_episodes_each_policy_had(srpo: Trained, tmp_path: Path) -> None:
    def counts(run: Run) -> dict[str, float]:
        return {key: value for key, value in steps_of(run)[0].items() if key.split("/")[-1] == "episodes"}

    # 4 problems x 3: each of IPPO's trains two heroes, each of SRPO's one hero and one adversary.
    assert counts(srpo[0]) == {"episodes": 12, **{f"policy/{name}/episodes": 6 for name in (*HEROES, *ADVERSARIES)}}
    ippo = train_tiny(tmp_path / "ippo", arm="ippo", max_steps=1)
    assert counts(ippo) == {"episodes": 12, "policy/left/episodes": 12, "policy/right/episodes": 12}
    shared = train_tiny(tmp_path / "shared", arm="ippo", sharing="shared", max_steps=1)
    assert counts(shared) == {"episodes": 12, "policy/hero/episodes": 24}


def warned(steps: Sequence[Mapping[str, float]], caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of a training with these numbers, up to the first colon but one."""
    report = StepReport(build_arm("ippo", HEROES, "seat", 0.0, Sampling()), TokenMeans())
    caplog.clear()
    for step, numbers in enumerate(steps, 1):
        report.warn(numbers, step)
    return [record.getMessage() for record in caplog.records]


def test_a_policy_that_learns_no_more_is_warned_of_once_that_lasts(caplog: pytest.LogCaptureFixture) -> None:
    equal = {"policy/left/entropy": 3.8, "policy/left/dead_groups": 1.0, "policy/right/dead_groups": 0.5}
    alive = {"policy/left/entropy": 3.8, "policy/left/dead_groups": 0.5}
    assert warned([equal] * 9, caplog) == []
    [message] = warned([equal] * 30, caplog)
    assert message.startswith("step 10: for 10 steps nearly all groups of left have had no variance")
    assert "entropy now: 3.8 nats" in message and "explores" not in message and "num_generations" in message
    assert warned(([equal] * 9 + [alive]) * 5, caplog) == []  # it never lasts
    assert len(warned([*[equal] * 10, alive, *[equal] * 10], caplog)) == 2  # it comes back

    silent = {"policy/left/entropy": 0.01, "policy/left/dead_groups": 0.9, "policy/right/entropy": 0.01}
    [message] = warned([silent] * 30, caplog)
    assert message.startswith("step 10: the entropy of left, right has been below 0.02 nats a token for 10 steps")
    assert "no longer explores" in message and "entropy_coef" in message and "variance" not in message
    assert len(warned([{**silent, "policy/left/dead_groups": 1.0}] * 10, caplog)) == 2  # both, each with its help


def test_a_policy_that_has_decided_while_rewards_still_vary_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    # The quickstart's free rider: its entropy falls from 0.34 to 0.01 by step 60, while rewards vary in most groups.
    falling = [
        {"policy/left/entropy": 0.34 * 0.01 ** (step / 80), "policy/left/dead_groups": 0.1} for step in range(80)
    ]
    assert falling[60]["policy/left/entropy"] < 0.02 < falling[45]["policy/left/entropy"]
    assert warned(falling, caplog) == []
    [message] = warned([{**numbers, "policy/left/dead_groups": 0.9} for numbers in falling], caplog)
    assert message.startswith("step 60: the entropy of left has been below") and "earn the same" in message


def test_a_task_that_pays_nothing_is_no_matter_of_entropy_and_not_of_the_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="llm_sra.trainer.step_report"):
        train_tiny(tmp_path / "dead", task=f"{SUPPORT}:Nothing", arm="ippo", max_steps=1)
    assert caplog.records == []


def test_a_seat_that_was_paid_nothing_in_the_first_step_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="llm_sra.trainer.step_report"):
        train_tiny(tmp_path / "one", task=f"{SUPPORT}:OneSided", arm="ippo", max_steps=1)
    [record] = [record for record in caplog.records if record.name == "llm_sra.trainer.step_report"]
    assert "paid seat 'right' nothing in any of 12 episodes (left in 12)" in record.getMessage()


def test_a_policy_with_varied_rewards_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="llm_sra.trainer.step_report"):
        train_tiny(tmp_path / "alive", arm="ippo", max_steps=1)
    assert caplog.records == []


def test_a_policy_without_entropy_is_not_one_without_variance() -> None:
    numbers = {
        "policy/a/entropy": 0.01,
        "policy/a/dead_groups": 0.6,
        "policy/decided/entropy": 0.01,
        "policy/decided/dead_groups": 0.4,
        "policy/b/entropy": 1.0,
        "policy/b/dead_groups": 1.0,
        "policy/c/entropy": 0.5,
        "policy/c/dead_groups": 0.9,
        "task/entropy": 0.0,  # a task's own metric
    }
    assert (without_entropy(numbers), without_variance(numbers)) == (["a"], ["b"])


def test_a_policy_is_wild_once_its_entropy_has_more_than_tripled() -> None:
    first = {"policy/a/entropy": 0.3, "policy/b/entropy": 0.3, "policy/a/loss": 0.1, "task/entropy": 0.1}
    numbers = {"policy/a/entropy": 0.91, "policy/b/entropy": 0.89, "policy/a/loss": 9.0, "task/entropy": 9.0}
    assert exploding_policies(numbers, first) == ["a"]


def test_a_progress_line_shows_the_solve_rate_and_the_heroes_efforts(srpo: Trained) -> None:
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


def test_divergence_entropy_its_gap_and_lengths_are_logged_by_turn_too(srpo: Trained) -> None:
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
