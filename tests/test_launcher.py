"""Two launched processes and their launcher: signals, a folder in use, a launcher or a process that is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support import ROOT, qwen2_folder
from training_support import FLAGS

from llm_sra.trainer.launcher import PeerGoneError, check_peers
from recipes import launch
from recipes.stopping import SAID, stopping

ACCELERATE, OURS = "accelerate.commands.launch", "recipes.launch"
SLOWLY = 300  # seconds until a pair has come to a moment, on a machine that does much else


def begin(run: Path, module: str = OURS, more: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """Launch two processes that train for long, in a process group of their own."""
    flags = {**FLAGS, "max_steps": 500, "save_strategy": "steps", "save_steps": 1, "output_dir": run}
    words = [str(part) for key, value in flags.items() for part in (f"--{key}", value)]
    config = ["--config_file", str(ROOT / "accelerate_configs" / "cpu.yaml"), "--num_processes", "2"]
    model = ["--model_name_or_path", str(qwen2_folder())]
    command = [sys.executable, "-m", module, *config, "-m", "recipes.train", *model, *words, *more]
    env = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    kept = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)}
    try:  # tests in the background ignore ctrl-C, and so would the training
        return subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def wait_for(reached: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until a moment has come; fail if the process ends before."""
    deadline = time.monotonic() + SLOWLY
    while not reached():
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.005)


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """The processes that a launcher has started."""
    try:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [pid for pid in map(int, found) if b"recipes.train" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def lines_of_ours(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("llm-sra: ")]


def content(run: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(run.rglob("*"))}


def test_a_launcher_that_is_still_importing_ends_in_one_line(tmp_path: Path) -> None:
    process = begin(tmp_path / "run")
    status = Path(f"/proc/{process.pid}/status")
    caught = 1 << (signal.SIGTERM - 1)
    wait_for(lambda: int(status.read_text().split("SigCgt:")[1].split()[0], 16) & caught, process)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    [line] = errors.splitlines()
    assert line.startswith(
        f"llm-sra: stopped by SIGTERM; resume with: {sys.executable} -m recipes.launch --config_file "
    )
    assert line.endswith("--resume_from_checkpoint true") and not (tmp_path / "run").exists()


AWAKE: dict[Path, float] = {}  # when the processes of a run are taken to import
MOMENTS: dict[str, tuple[int, int, Callable[[Path, "subprocess.Popen[str]"], object]]] = {
    "processes start": (signal.SIGTERM, 143, lambda run, process: workers_of(process)),
    "import": (signal.SIGINT, 130, lambda run, process: time.monotonic() > AWAKE.setdefault(run, time.monotonic() + 6)),
    "model": (signal.SIGHUP, 143, lambda run, process: (run / ".lock").exists()),
    "first step": (signal.SIGTERM, 143, lambda run, process: (run / "config.yaml").exists()),
    "training": (signal.SIGINT, 130, lambda run, process: (run / "checkpoints" / "checkpoint-2").exists()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MOMENTS)
def test_a_signal_to_a_launched_pair_is_one_line_and_its_exit_code(tmp_path: Path, name: str) -> None:
    number, code, reached = MOMENTS[name]
    run = tmp_path / "run"
    process = begin(run)
    wait_for(lambda: reached(run, process), process)
    workers = workers_of(process)
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # ctrl-C in a terminal goes to all
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == code, errors
    assert "Traceback" not in errors and not any(map(lives, workers))
    [line] = lines_of_ours(errors)
    assert f"-m {OURS} " in line and line.endswith("--resume_from_checkpoint true")
    assert run.exists() == (name == "training")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_accelerates_own_launcher_passes_a_signal_on_and_the_training_says_how_to_resume(
    tmp_path: Path, number: signal.Signals
) -> None:
    # Its exit code and its traceback are its own; recipes.launch has neither.
    run = tmp_path / "run"
    process = begin(run, ACCELERATE)
    wait_for(lambda: (run / "checkpoints" / "checkpoint-1").exists(), process)
    workers = workers_of(process)
    began = time.monotonic()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 5 and not any(map(lives, workers))
    [line] = lines_of_ours(errors)
    assert f"-m {ACCELERATE} " in line and line.endswith("--resume_from_checkpoint true")


@pytest.mark.slow
def test_a_second_pair_is_refused_without_a_byte_and_workers_without_a_launcher_stop(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = begin(run)
    wait_for(lambda: (run / "checkpoints" / "checkpoint-1").exists(), first)
    workers = workers_of(first)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        before = content(run)
        for more in ([], ["--resume_from_checkpoint", "true"]):
            second = begin(run, more=more)
            _, errors = second.communicate(timeout=SLOWLY)
            assert second.returncode == 2 and "Traceback" not in errors
            [line] = lines_of_ours(errors)
            assert f"{run} is in use: process {workers[0]} on" in line
            assert content(run) == before
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    steps = len(list((run / "checkpoints").glob("checkpoint-*")))
    first.kill()
    _, errors = first.communicate(timeout=SLOWLY)  # when the workers have let go of the pipe, too
    assert not any(map(lives, workers)) and "Traceback" not in errors
    assert f"the launcher (process {first.pid}) is gone" in errors
    assert len(list((run / "checkpoints").glob("checkpoint-*"))) <= steps + 1


@pytest.mark.slow
def test_a_process_that_the_system_kills_ends_all_in_words(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = begin(run)
    wait_for(lambda: (run / "checkpoints" / "checkpoint-1").exists(), process)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=SLOWLY)
    assert process.returncode in (2, 137) and "Traceback" not in errors  # whichever is seen first
    assert any(
        "another process of this training has ended" in line or "SIGKILL" in line for line in errors.splitlines()
    )


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, say: bool = False) -> None:
    """Let accelerate's launcher end with an error, after the training has said how to go on or not."""

    def launcher() -> None:
        if say:
            Path(os.environ[SAID]).write_text("1")
        raise error

    monkeypatch.setattr("accelerate.commands.launch.main", launcher)
    monkeypatch.setattr(stopping, "_command", ["launch", "-m", "recipes.train"])
    monkeypatch.setattr(stopping, "resumable", True)
    monkeypatch.setattr(stopping, "number", None)
    monkeypatch.setenv(SAID, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
@pytest.mark.parametrize("say", [True, False])
def test_the_launcher_says_how_to_go_on_if_no_process_could(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int, say: bool
) -> None:
    from torch.distributed.elastic.multiprocessing import SignalException

    failing(monkeypatch, SignalException("stopped", sigval=number), say)
    assert launch.main() == code
    name = "ctrl-C" if number == signal.SIGINT else number.name
    line = f"llm-sra: stopped by {name}; resume with: launch -m recipes.train --resume_from_checkpoint true\n"
    assert capsys.readouterr().err == ("" if say else line)


@pytest.mark.parametrize(("exitcode", "code", "said"), [(2, 2, ""), (143, 143, ""), (-9, 137, "ended by SIGKILL")])
def test_the_launcher_ends_with_the_code_of_the_process_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exitcode: int, code: int, said: str
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    failing(monkeypatch, ChildFailedError("train", {1: ProcessFailure(1, 4242, exitcode, "none")}))
    assert launch.main() == code
    errors = capsys.readouterr().err
    assert said in errors and (errors.count("\n") == 1) == bool(said)
    assert not said or errors.startswith("llm-sra: process 1 of the training was ended by SIGKILL (")


def test_the_end_of_another_process_is_told_from_an_error_of_ones_own() -> None:
    with pytest.raises(PeerGoneError, match="another process of this training has ended"):
        check_peers(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.1.1]:1234"))
    check_peers(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
