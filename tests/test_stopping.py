"""Signals end a training of real processes in one line, within seconds, with an exit code that says which it was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, qwen2_folder
from training_support import FLAGS

from llm_sra.trainer.launcher import Launcher, LauncherGoneError
from recipes.stopping import Stopping, interrupt

Moment = Callable[[Path], bool]
MOMENTS: dict[str, tuple[int, int, Moment]] = {
    "import": (signal.SIGHUP, 143, lambda run: True),
    "model": (signal.SIGTERM, 143, lambda run: (run / ".lock").exists()),
    "first step": (signal.SIGINT, 130, lambda run: (run / "config.yaml").exists()),
    "saving": (signal.SIGTERM, 143, lambda run: (run / "checkpoints" / ".saving").exists()),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_a_signal_at_any_moment_is_one_line_with_the_command_that_goes_on(tmp_path: Path, name: str) -> None:
    number, code, reached = MOMENTS[name]
    run = tmp_path / "run"
    flags = {**FLAGS, "max_steps": 500, "save_strategy": "steps", "save_steps": 1, "output_dir": run}
    words = [str(part) for key, value in flags.items() for part in (f"--{key}", value)]
    command = [sys.executable, "-m", "recipes.train", "--model_name_or_path", str(qwen2_folder()), *words]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    before = signal.signal(number, signal.SIG_DFL)  # tests in the background ignore ctrl-C, and so would the training
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    signal.signal(number, before)
    time.sleep(1)
    deadline = time.monotonic() + 120
    while not reached(run) and time.monotonic() < deadline:
        time.sleep(0.002)
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    said = [line for line in errors.splitlines() if line.startswith("llm-sra: ")]
    assert len(said) == 1 and said[0].endswith("--resume_from_checkpoint true"), errors
    if name != "saving":
        assert not run.exists()


def test_a_start_that_overwrites_is_started_again_and_a_step_is_resumed() -> None:
    stopping = Stopping()
    stopping.number = signal.SIGTERM
    stopping._command = ["llm-sra", "train", "--overwrite_output_dir", "true", "--seed", "3"]
    assert stopping.line() == (
        "llm-sra: stopped by SIGTERM; start again with: llm-sra train --overwrite_output_dir true --seed 3"
    )
    stopping.resumable = True
    assert stopping.line() == (
        "llm-sra: stopped by SIGTERM; resume with: llm-sra train --seed 3 --resume_from_checkpoint true"
    )


def test_a_process_whose_launcher_is_gone_stops() -> None:
    Launcher(os.getppid()).check()
    Launcher(None).check()
    with pytest.raises(LauncherGoneError, match=r"the launcher \(process 4194305\) is gone"):
        Launcher(2**22 + 1).check()


SWALLOWS = """import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass
except BaseException as error:
    raise ImportError("half a module") from error
"""


def test_ctrl_c_within_an_import_ends_a_command_whatever_the_imported_module_does_with_it(tmp_path: Path) -> None:
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    program = "import signal, recipes.stopping as s; signal.signal(signal.SIGINT, s.interrupt); import swallows"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "llm-sra: interrupted\n")
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)


@pytest.mark.parametrize("seconds", [0.05, 0.7, pytest.param(1.5, marks=pytest.mark.slow)])
def test_ctrl_c_while_a_command_begins_is_one_line(tmp_path: Path, seconds: float) -> None:
    program = "import sys, recipes.cli; print('begun', flush=True); sys.exit(recipes.cli.main())"
    flags = ["eval", "--run", str(tmp_path), "--roster", "worksheet_test", "--out", str(tmp_path / "out")]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-c", program, *flags], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    assert process.stdout and process.stdout.readline() == "begun\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    # On a machine that does little else it may have come to its end: the folder is no run.
    assert (process.returncode, errors) == (130, "llm-sra: interrupted\n") or process.returncode == 2
