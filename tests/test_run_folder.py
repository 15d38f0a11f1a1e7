"""A run folder: one writer, starts that fail, checkpoints that are damaged, and runs that go back to an earlier one."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import ROOT, Toy
from training_support import train_tiny, vectors

from llm_sra import files
from llm_sra.files import WriteError
from llm_sra.locks import LOCK, FolderLock, LockedError
from llm_sra.run_writer import OVERWRITTEN, RunWriter
from llm_sra.runs import RunError, read_metrics
from llm_sra.trainer import checkpoints, metrics
from llm_sra.trainer.manifest import MANIFEST, damage, write_manifest
from llm_sra.trainer.resuming import ResumeError, check_options

SAVING = {"save_strategy": "steps", "save_steps": 1}
HOLD = (
    "import sys; from pathlib import Path; from llm_sra.locks import FolderLock\nlock = FolderLock(Path(sys.argv[1]))"
)


class Unready(Toy):
    """`Toy` whose problems cannot be made."""

    def problems(self, *args: Any, **kwargs: Any) -> Any:
        raise FileNotFoundError("data.jsonl is missing")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def another_process(code: str, *args: object) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def a_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("heroes: {}\narguments: {seed: 1}\n")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    return folder


# -- one writer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overwrite", "resume"), [(False, False), (True, False), (False, True)])
def test_a_second_training_is_refused_and_learns_who_holds_the_folder(
    tmp_path: Path, overwrite: bool, resume: bool
) -> None:
    run = a_run(tmp_path / "run")
    holder = another_process(HOLD + "\nprint('held', flush=True)\ninput()", run)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    before = content(run)
    who = rf"process {holder.pid} on {socket.gethostname()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d writes to it"
    with pytest.raises(RunError, match=who):
        train_tiny(run, overwrite_output_dir=overwrite, resume_from_checkpoint="true" if resume else None)
    assert content(run) == before
    holder.kill()
    holder.wait()
    with RunWriter(run, overwrite=False, resume=True):
        assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()  # a dead process holds nothing
    assert not (run / LOCK).exists()


def test_a_fork_does_not_keep_the_lock_of_a_parent_that_died(tmp_path: Path) -> None:
    orphan = "\nimport os, time\npid = os.fork()\nif not pid: time.sleep(60)\nprint(pid, flush=True)\nos._exit(0)"
    parent = another_process(HOLD + orphan, tmp_path)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.wait()
    FolderLock(tmp_path).release()
    os.kill(child, 9)


def test_one_process_cannot_hold_a_folder_twice(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        FolderLock(tmp_path)
    lock.release()
    FolderLock(tmp_path).release()


@pytest.mark.parametrize(
    ("host", "pid", "refused"), [("elsewhere", 1, True), (None, os.getpid(), True), (None, 2**22 + 1, False)]
)
def test_without_locks_of_the_file_system_the_recorded_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str | None, pid: int, refused: bool
) -> None:
    def flock(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / LOCK).write_text(json.dumps({"host": host or socket.gethostname(), "pid": pid, "since": "today"}))
    if refused:
        with pytest.raises(LockedError, match="This file system has no locks: if that process is dead, delete"):
            FolderLock(tmp_path)
    else:
        FolderLock(tmp_path).release()


# -- starts that fail ------------------------------------------------------------------------------------------------

BAD_STARTS: dict[str, dict[str, Any]] = {
    "a task whose data is missing": {"task": f"{__file__}:Unready"},
    "no such roster of partners": {"partners": "missing.yaml"},
    "no such model": {"model_name_or_path": "/nowhere/model"},
    "a pool with an adapter that is missing": {"partners": "POOL"},
    "a bad development roster": {"dev_roster": "BAD", "eval_strategy": "steps"},
    "an engine that cannot start": {
        "engine": "server",
        "vllm_server_base_url": "http://127.0.0.1:9",
        "vllm_server_timeout": 0.1,
    },
}


@pytest.mark.parametrize("name", BAD_STARTS)
def test_a_start_that_fails_leaves_no_run_and_deletes_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "BAD").write_text("partners: [{name: a, nonsense: 1}]\n")
    (tmp_path / "POOL").write_text("partners: [{name: a, adapter: /nowhere/adapter}]\n")
    flags = {
        key: str(tmp_path / value) if value in ("BAD", "POOL") else value for key, value in BAD_STARTS[name].items()
    }
    with pytest.raises((ValueError, OSError, RuntimeError)):
        train_tiny(tmp_path / "runs" / "new", **flags)
    assert not (tmp_path / "runs").exists()
    run = a_run(tmp_path / "run")
    before = content(run)
    for more in ({"overwrite_output_dir": True}, {"resume_from_checkpoint": "true"}):
        with pytest.raises((ValueError, OSError, RuntimeError)):
            train_tiny(run, **flags, **more)
        assert content(run) == before


@pytest.mark.parametrize("more", [{"overwrite_output_dir": True}, {"resume_from_checkpoint": "true"}])
def test_an_error_in_the_first_step_leaves_the_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no episode")

    monkeypatch.setattr("llm_sra.trainer.trainer.play", fail)
    run = a_run(tmp_path / "run")
    before = content(run)
    with pytest.raises(ValueError, match="no episode"):
        train_tiny(run, **more)
    assert content(run) == before
    with pytest.raises(ValueError, match="no episode"):
        train_tiny(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_a_killed_process_had_set_aside_comes_back(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    before = content(run)
    (run / OVERWRITTEN).mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (run / name).rename(run / OVERWRITTEN / name)
    (run / LOCK).write_text("{}")
    with pytest.raises(RunError, match="already holds a run"):
        RunWriter(run, overwrite=False, resume=False).__enter__()
    assert content(run) == before


# -- checkpoints -----------------------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing": ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
    "empty": ("scheduler.pt", empty, r"scheduler.pt has 0 bytes, expected \d+"),
    "one bit": ("left/adapter_model.safetensors", flip, "left/adapter_model.safetensors is not what was saved"),
    "random numbers": ("rng_state.pth", Path.unlink, "rng_state.pth is missing"),
    "state": ("trainer_state.json", flip, "trainer_state.json is not what was saved"),
    "no manifest": (MANIFEST, Path.unlink, "manifest.json is missing"),
    "torn manifest": (MANIFEST, lambda path: path.write_bytes(path.read_bytes()[:40]), "manifest.json cannot be read"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three checkpoints."""
    return train_tiny(tmp_path_factory.mktemp("saved") / "run", **SAVING, max_steps=3).path


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    name, spoil, message = DAMAGES[kind]
    place = tmp_path / "checkpoints"
    shutil.copytree(saved / "checkpoints", place)
    assert damage(place / "checkpoint-3") is None
    spoil(place / "checkpoint-3" / name)
    with pytest.raises(FileNotFoundError, match=message):
        checkpoints.resolve_resume(str(place / "checkpoint-3"), place)
    assert checkpoints.resolve_resume("true", place) == str(place / "checkpoint-2")
    assert "checkpoint-3 is damaged" in caplog.text and "the checkpoint before it is taken" in caplog.text


def test_a_checkpoint_of_an_earlier_version_has_no_manifest_and_is_resumed(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "checkpoint-3"
    shutil.copytree(saved / "checkpoints" / "checkpoint-3", old)
    (old / MANIFEST).unlink()
    state = torch.load(old / "objective.pt", weights_only=True)
    state.pop("manifest")
    torch.save(state, old / "objective.pt")
    assert checkpoints.resolve_resume("true", tmp_path) == str(old)
    assert "was saved without manifest.json: its files cannot be checked" in caplog.text
    empty(old / "optimizer.pt")
    assert damage(old) == "optimizer.pt is empty"


def test_a_checkpoint_without_the_optimizer_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text("{}")
    write_manifest(tmp_path, resumable=False)
    assert damage(tmp_path) == "it was saved with save_only_model, so the optimizer's state is missing"


def test_a_folder_that_is_replaced_is_deleted_only_after_the_new_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("staged", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    seen = []
    real = shutil.rmtree

    def rmtree(path: Path, **kwargs: Any) -> None:
        if path.exists():
            seen.append((path.name, (tmp_path / "final" / "file").read_text()))
        real(path, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    files.publish_folder(tmp_path / "staged", tmp_path / "final")
    assert seen == [(".final.replaced", "staged")]
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


# -- lineage ---------------------------------------------------------------------------------------------------------


def test_a_run_that_went_back_goes_on_with_its_new_line(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    first = str(run / "checkpoints" / "checkpoint-1")
    train_tiny(run, **SAVING, max_steps=2, learning_rate=0.001, resume_from_checkpoint=first)
    kept = {path.name for path in (run / "checkpoints" / "earlier-1").iterdir()}
    assert kept == {"checkpoint-2", "checkpoint-3", "adapters", "episodes", "metrics.jsonl"}
    assert checkpoints.resolve_resume("true", run / "checkpoints") == str(run / "checkpoints" / "checkpoint-2")
    train_tiny(run, **SAVING, max_steps=3, learning_rate=0.001, resume_from_checkpoint="true")
    steps = [(line["step"], line["learning_rate"]) for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    assert steps == [(1, 0.02), (2, 0.001), (3, 0.001)]
    assert yaml.safe_load((run / "config.yaml").read_text())["arguments"]["learning_rate"] == 0.001
    before, after = (vectors(path / "adapters") for path in (saved, run))
    assert not torch.equal(before["left"], after["left"])


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [("optim", "adamw_torch", "sgd"), ("lora_r", 8, 16), ("arm", "ippo", "srpo"), ("sharing", "shared", "separate")],
)
def test_an_option_that_cannot_take_effect_is_refused(name: str, before: object, now: object) -> None:
    check_options({name: before}, {name: before})
    with pytest.raises(ResumeError, match=f"{name} was {before} and is now {now}"):
        check_options({name: before}, {name: now})


def test_tau_is_fixed_only_where_a_controller_moves_it() -> None:
    check_options({"tau": 1.0, "tau_schedule": "constant"}, {"tau": 2.0, "tau_schedule": "constant"})
    with pytest.raises(ResumeError, match=r"tau was 1\.0 and is now 2\.0"):
        check_options({"tau": 1.0, "tau_schedule": "target_kl"}, {"tau": 2.0, "tau_schedule": "target_kl"})


# -- a full disk -----------------------------------------------------------------------------------------------------


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_for_torch(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")


def full_for_safetensors(*args: Any, **kwargs: Any) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


FULL: dict[str, tuple[str, Callable[..., None], str]] = {
    "lock": ("os.ftruncate", full, r"the lock of the folder to .*/\.lock: No space"),
    "config": ("llm_sra.runs.write_whole", full, r"the configuration to .*config\.yaml: No space"),
    "metrics": ("llm_sra.trainer.metrics.json.dumps", full, r"the metrics to .*metrics\.jsonl: No space"),
    "episodes": ("llm_sra.trainer.metrics.json_lines", full, r"the episodes of a step to .*step-000001\.jsonl: No"),
    "adapters": ("peft.peft_model.safe_save_file", full_for_safetensors, r"the adapters to .*: .*No space left"),
    "optimizer": (
        "transformers.trainer.torch.save",
        full_for_torch,
        r"a checkpoint to .*/checkpoint-1/.*not be written",
    ),
    "state": ("transformers.TrainerState.save_to_json", full, r"a checkpoint to .*/checkpoint-1/.*: No space"),
    "manifest": ("llm_sra.trainer.manifest.write_whole", full, r"files to .*/manifest\.json: No space"),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_one_line_that_names_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    target, failure, message = FULL[what]
    monkeypatch.setattr(target, failure)
    with pytest.raises(WriteError, match=rf"^cannot write {message}.*MiB are free there$"):
        train_tiny(tmp_path / "run", **SAVING, max_steps=1)
    assert not (tmp_path / "run" / "checkpoints" / "checkpoint-1").exists()


@pytest.mark.parametrize("error", [RuntimeError("gloo: connection closed"), ValueError("no number")])
def test_errors_of_another_kind_are_not_blamed_on_the_disk(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), files.writing("a file", tmp_path):
        raise error


def test_metrics_are_kept_until_a_resumed_run_logs(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step"')
    file = metrics.MetricsFile(path)
    state: Any = type("State", (), {"global_step": 1, "is_world_process_zero": True})()
    file.on_train_begin(None, state, None)  # type: ignore[arg-type]
    assert path.read_text().count("\n") == 2
    state.global_step = 2
    file.on_log(None, state, None, logs={"loss": 0.5})  # type: ignore[arg-type]
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "loss": 0.5}]
