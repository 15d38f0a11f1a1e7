"""A command whose reader goes away, as `llm-sra list | head -1`, ends without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, make_run

COMMANDS = {
    "help": ["--help"],
    "list": ["list"],
    "unbuffered": ["list"],
    "help of a command, by argparse": ["export", "--help"],
    "help of a training": ["train", "--help"],
    "completion": ["completion", "bash"],
    "the commands of a comparison": ["paper", "gsm8k", "--print", "lines"],
    "a table, by rich": ["check", "worksheet"],
}


def run_with_reader_gone(words: list[str], folder: Path, both: bool = False) -> "tuple[int, str]":
    """Exit code and standard error of a command that writes into a pipe which nobody reads; `both`: its errors, too."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "llm_sra", *words], stdout=writing, stderr=writing if both else subprocess.PIPE,
        cwd=folder, env=environment, text=True, timeout=300,
    )  # fmt: skip
    os.close(writing)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_reader_is_gone_ends_without_a_word(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "1" if name == "unbuffered" else "")
    assert run_with_reader_gone(COMMANDS[name], tmp_path) == (141, "")


def test_so_does_one_that_loads_a_model_and_whose_errors_go_there_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    words = ["play", "--run", str(run.path), "--problems", "1"]
    assert run_with_reader_gone(words, tmp_path, both=True) == (141, "")


def test_a_pipe_within_a_command_that_breaks_is_an_error_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    from recipes.terminal import run_command

    def breaks() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    assert run_command(breaks) == 2
    assert "BrokenPipeError" in capsys.readouterr().err
