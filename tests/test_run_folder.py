"""A run folder: one writer, and starts that fail."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, Toy
from training_support import train_tiny

from llm_sra.runs import RunError
from llm_sra.runs.locks import LOCK, FolderLock, LockedError
from llm_sra.runs.writer import OVERWRITTEN, RunWriter

HOLD = (
    "import sys; from pathlib import Path; from llm_sra.runs.locks import FolderLock\n"
    "lock = FolderLock(Path(sys.argv[1]))"
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
    orphan = "\nimport os, time\nif not os.fork(): print(os.getpid(), flush=True); time.sleep(60)\nos._exit(0)"
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
    ("host", "pid", "refused"),
    [("elsewhere", 1, True), (None, os.getpid(), True), (None, 2**22 + 1, False)],
    ids=["another machine", "a process that runs", "a process that is gone"],
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


def test_what_a_killed_process_was_writing_is_removed_when_the_run_goes_on(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", max_steps=1, save_strategy="steps", save_steps=1)
    left = [run.path / ".config.yaml.1.partial", run.path / "episodes" / ".step-000001.jsonl.1.partial"]
    for path in left:
        path.write_text("half")
    train_tiny(tmp_path / "run", max_steps=2, save_strategy="steps", save_steps=1, resume_from_checkpoint="true")
    assert not any(path.exists() for path in left)
