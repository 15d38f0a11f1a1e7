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
from recipes.stopping import Stopping

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
