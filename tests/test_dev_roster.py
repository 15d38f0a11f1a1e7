"""The development roster: it is played during training, decides which checkpoint is best, and changes nothing."""

import json
from pathlib import Path

import pytest
import torch
import training_support
from training_support import Trained, steps_of, train_tiny, trained, vectors

from llm_sra.evaluation.development import DevEvaluation
from llm_sra.runs import Run, read_metrics

HEROES = ("left", "right")
ADVERSARIES = ("adversary-of-left", "adversary-of-right")
SUPPORT = training_support.__file__


@pytest.fixture(scope="module")
def srpo(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("runs") / "srpo", log_episodes=-1)


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
        tmp_path / "run",
        dev_roster=roster,
        trust_scripts=True,
        eval_strategy="steps",
        eval_steps=1,
        logging_steps=2,
        dev_problems=2,
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


def test_the_run_does_not_depend_on_evaluations(srpo: Trained, roster: Path, tmp_path: Path) -> None:
    run = train_tiny(
        tmp_path / "run", dev_roster=roster, trust_scripts=True, eval_strategy="steps", eval_steps=1, dev_problems=2
    )
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
        trust_scripts=True,
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
        trust_scripts=True,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
    )
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert set(vectors(run.adapters)) == {*HEROES, *ADVERSARIES}


FAILS_ONCE = """
class Apple:
    asked = 0

    def reply(self, messages, rng):
        type(self).asked += 1
        if type(self).asked == 1:
            raise ConnectionError("\\x1b[2J gone")
        return "apple"
"""


def test_a_partner_that_fails_is_warned_of_and_asked_again_and_its_step_is_never_best(
    roster: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (roster.parent / "partner.py").write_text(FAILS_ONCE)
    saving = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    dev = {"dev_roster": roster, "trust_scripts": True, "eval_strategy": "steps", "eval_steps": 1, "dev_problems": 2}
    run = train_tiny(tmp_path / "run", arm="ippo", **dev, **saving)
    first, second = (line for line in read_metrics(run.path / "metrics.jsonl") if "eval_self_play" in line)
    assert first["eval_worst_partner"] is None and "eval_apple/left" not in first
    assert second["eval_worst_partner"] == min(second["eval_apple/left"], second["eval_apple/right"])
    [warning] = [record.getMessage() for record in caplog.records if "development roster" in record.getMessage()]
    assert "partner apple failed, and the training goes on without it this time" in warning
    assert "gone" in warning and "\x1b" not in warning
    assert Run.open(f"{run.path}@best").checkpoint == "checkpoint-2"


def test_evaluations_without_a_roster_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dev_roster"):
        train_tiny(tmp_path / "run", eval_strategy="steps", eval_steps=1)
