"""Checkpoints and what goes on from them. Run as a program, this file trains, kills and resumes (see `main`)."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT, qwen2_folder
from training_support import FLAGS, train_tiny, vectors
from transformers import TrainerCallback

from llm_sra.evaluation.development import DevEvaluation
from llm_sra.runs import RunError, read_metrics
from llm_sra.trainer.checkpoints import resolve_resume, wants_resume

STEPS, SAVE_STEPS = 10, 2
SAVING = {"save_strategy": "steps", "save_steps": SAVE_STEPS, "max_steps": STEPS}
# Such that everything that a checkpoint holds has a say in what comes after it.
RUN = {**FLAGS, **SAVING, "num_iterations": 2, "lr_scheduler_type": "linear", "warmup_steps": 3, "weight_decay": 0.1}
KILLS = ("after its start", "after a checkpoint", "while it saves", "while it saves", "after its start")


def fingerprint(run: Path) -> dict[str, bytes]:
    """The bytes of all adapters of a run."""
    return {path.parent.name: path.read_bytes() for path in sorted((run / "adapters").glob("*/*.safetensors"))}


def told(run: Path) -> list[dict[str, Any]]:
    """What was logged, but for times."""
    lines = read_metrics(run / "metrics.jsonl")
    return [
        {key: value for key, value in line.items() if "time" not in key and "per_second" not in key} for line in lines
    ]


def newest(run: Path) -> int:
    """Step of the newest checkpoint; 0 if there is none."""
    return max((int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("checkpoint-*")), default=0)


class Stopped(TrainerCallback):
    """Breaks off at the beginning of a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


# -- the program: one process imports the library, and each training is a fork of it --------------------------------


def start(run: Path, model: str, *more: str, prepare: Callable[[], None] = lambda: None) -> int:
    """Start a training as the command line does, in a process of its own; returns its number."""
    flags = [str(part) for key, value in RUN.items() for part in (f"--{key}", value)]
    if pid := os.fork():
        return pid
    status = 1
    try:
        log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        prepare()
        from recipes.train import main as train

        train([*flags, "--model_name_or_path", model, "--output_dir", str(run), *more])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pid: int) -> str:
    """How a process ended."""
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def kill_while_saving() -> None:
    """Let the process kill itself when a part of a checkpoint is written, but not yet the optimizer's state."""
    from llm_sra.trainer import SRPOTrainer

    def stop(self: SRPOTrainer, output_dir: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    SRPOTrainer._save_optimizer_and_scheduler = stop


def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds, but no longer than so."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)


def main(out: Path, model: str) -> None:
    """One run that is never killed, and one that is killed again and again and then comes to its end."""
    rng = random.Random(3)
    began = time.monotonic()
    report: dict[str, Any] = {"whole": ended(start(out / "whole", model)), "kills": []}
    step = (time.monotonic() - began) / STEPS
    run = out / "killed"
    for kind in KILLS:
        before, lines = newest(run), len(read_metrics(run / "metrics.jsonl"))
        prepare = kill_while_saving if kind == "while it saves" else lambda: None
        pid = start(run, model, "--resume_from_checkpoint", "true", prepare=prepare)
        if kind != "while it saves":
            wait(lambda: (run / "config.yaml").is_file(), 60)
            if kind == "after a checkpoint":
                wait(lambda before=before: newest(run) > before, 60)
            reached = newest(run)  # at the latest at the next checkpoint, so that the run does not come to its end
            wait(lambda reached=reached: newest(run) > reached, rng.random() * SAVE_STEPS * step)
            os.kill(pid, signal.SIGKILL)
        staging = run / "checkpoints" / ".saving"
        report["kills"].append(
            {
                "end": ended(pid),
                "kind": kind,
                "from": before,
                "newest": newest(run),
                "lines": [lines, len(read_metrics(run / "metrics.jsonl"))],
                "half": sorted(str(p.relative_to(staging)) for p in staging.rglob("*")) if staging.is_dir() else [],
            }
        )
    # As a copy that broke off leaves it: newer than all others, and without its state.
    shutil.copytree(run / "checkpoints" / f"checkpoint-{newest(run)}", run / "checkpoints" / f"checkpoint-{STEPS - 1}")
    (run / "checkpoints" / f"checkpoint-{STEPS - 1}" / "trainer_state.json").unlink()
    report["last"] = ended(start(run, model, "--resume_from_checkpoint", "true"))
    (out / "report.json").write_text(json.dumps(report))


# -- the tests -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with the runs `whole` and `killed`, and how it went."""
    out = tmp_path_factory.mktemp("killed")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, str(out), str(qwen2_folder())]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    logs = "\n".join(path.read_text()[-3000:] for path in out.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    report = json.loads((out / "report.json").read_text())
    assert (report["whole"], report["last"]) == ("exit 0", "exit 0"), logs
    return out, report


def test_a_run_that_is_killed_and_resumed_ends_with_the_adapters_of_one_that_never_was(killed: tuple) -> None:
    out, report = killed
    kills = report["kills"]
    assert [kill["end"] for kill in kills] == ["SIGKILL"] * len(KILLS)
    assert all(kill["newest"] < STEPS for kill in kills)
    assert kills[-1]["newest"] > 0  # the last start went on from a checkpoint
    expected = fingerprint(out / "whole")
    assert set(expected) == {"left", "right", "adversary-of-left", "adversary-of-right"}
    assert fingerprint(out / "killed") == expected


def test_a_checkpoint_that_a_kill_left_half_written_is_not_gone_on_from(killed: tuple) -> None:
    _, report = killed
    saving = [kill for kill in report["kills"] if kill["kind"] == "while it saves"]
    assert len(saving) == 2
    for kill in saving:
        half = f"checkpoint-{kill['from'] + SAVE_STEPS}"
        assert f"{half}/left/adapter_model.safetensors" in kill["half"]
        assert f"{half}/optimizer.pt" not in kill["half"]
        assert kill["newest"] == kill["from"]


def test_every_step_is_logged_once_and_as_if_there_had_been_no_kill(killed: tuple) -> None:
    out, report = killed
    assert any(kill["lines"][1] > kill["newest"] for kill in report["kills"])  # some logged more than they saved
    lines = told(out / "killed")
    assert [line["step"] for line in lines] == [*range(1, STEPS + 1), STEPS]  # the last one sums up
    assert lines[:-1] == told(out / "whole")[:-1]


def test_the_episodes_of_a_resumed_run_are_those_of_a_whole_one(killed: tuple) -> None:
    out, _ = killed
    written = {path.name: path.read_text() for path in (out / "killed" / "episodes").iterdir()}
    assert written == {path.name: path.read_text() for path in (out / "whole" / "episodes").iterdir()}
    assert len(written) == STEPS


def test_a_finished_run_that_is_resumed_stays_as_it_was(killed: tuple, tmp_path: Path) -> None:
    out, _ = killed
    run = tmp_path / "run"
    shutil.copytree(out / "whole", run)
    before = told(run)
    train_tiny(run, model_name_or_path=qwen2_folder(), **RUN, resume_from_checkpoint=True)
    assert fingerprint(run) == fingerprint(out / "whole")
    assert [line["step"] for line in told(run)] == [line["step"] for line in before]


def test_a_run_goes_on_from_the_checkpoint_that_is_named(killed: tuple, tmp_path: Path) -> None:
    out, _ = killed
    run = tmp_path / "run"
    shutil.copytree(out / "whole", run)
    train_tiny(run, **RUN, resume_from_checkpoint=str(run / "checkpoints" / "checkpoint-4"))
    assert fingerprint(run) == fingerprint(out / "whole")
    assert [line["step"] for line in told(run)] == [*range(1, STEPS + 1), STEPS]


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    short = {**RUN, "max_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "run", callbacks=[Stopped(step=1)], **short)
    assert [line["step"] for line in told(tmp_path / "run")] == [1]
    train_tiny(tmp_path / "run", **short, resume_from_checkpoint="true")
    train_tiny(tmp_path / "whole", **short)
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    assert told(tmp_path / "run")[:2] == told(tmp_path / "whole")[:2]


def test_a_resumed_run_knows_which_checkpoint_was_best_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "roster.yaml").write_text("partners: []\n")
    evaluating = {"dev_roster": tmp_path / "roster.yaml", "eval_strategy": "steps", "eval_steps": 1}
    flags = {**RUN, "max_steps": 3, "save_steps": 1, "load_best_model_at_end": True, **evaluating}
    scores = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr(DevEvaluation, "__call__", lambda self: {"worst_partner": next(scores)})
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_tiny(run, callbacks=[Stopped(step=2)], **flags)
    train_tiny(run, **flags, resume_from_checkpoint=True)
    best, last = (vectors(run / "checkpoints" / f"checkpoint-{step}") for step in (2, 3))
    for name, vector in vectors(run / "adapters").items():
        assert torch.equal(vector, best[name])
        assert not torch.equal(vector, last[name])


@pytest.mark.parametrize("resume", [None, False, "false", "False", "none", ""])
def test_who_does_not_ask_to_resume_does_not(resume: Any) -> None:
    assert not wants_resume(resume)


@pytest.mark.parametrize("resume", [True, "true", "True", "latest", "runs/x/checkpoints/checkpoint-3"])
def test_who_asks_to_resume_does(resume: Any) -> None:
    assert wants_resume(resume)


@pytest.mark.parametrize("resume", [False, "false"])
def test_a_folder_that_is_taken_stays_as_it_was(tmp_path: Path, resume: Any) -> None:
    run = tmp_path / "run"
    half = run / "checkpoints" / ".saving" / "checkpoint-2"  # another process may be writing it
    half.mkdir(parents=True)
    (run / "config.yaml").write_text("heroes: {}\n")
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(RunError, match="already holds a run"):
        train_tiny(run, resume_from_checkpoint=resume)
    assert half.is_dir()
    assert (run / "config.yaml").read_text() == "heroes: {}\n"
    assert (run / "metrics.jsonl").read_text() == '{"step": 1}\n'


def checkpoint(folder: Path, step: int, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if whole:
        (path / "trainer_state.json").write_text("{}")
    return path


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9)
    expected = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, whole=False)
    half = checkpoint(tmp_path / ".saving", 12)
    for resume in (True, "true", "latest"):
        assert resolve_resume(resume, tmp_path) == str(expected)
    assert not half.exists()


def test_without_a_whole_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert resolve_resume(True, tmp_path / "missing") is None
    checkpoint(tmp_path, 1, whole=False)
    checkpoint(tmp_path / ".saving", 2)
    assert resolve_resume(True, tmp_path) is None


def test_a_named_checkpoint_must_be_whole(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path, 1)
    assert resolve_resume(str(whole), tmp_path) == str(whole)
    for broken in (checkpoint(tmp_path, 2, whole=False), tmp_path / "missing", checkpoint(tmp_path / ".saving", 3)):
        with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
            resolve_resume(str(broken), tmp_path)


def test_a_checkpoint_holds_every_adapter(killed: tuple) -> None:
    out, _ = killed
    last = vectors(out / "whole" / "checkpoints" / f"checkpoint-{STEPS}")
    final = vectors(out / "whole" / "adapters")
    assert set(last) == set(final)
    assert all(torch.equal(last[name], final[name]) for name in final)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
