"""What the command line says of itself: help, version, completion, and a finished quickstart."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

import llm_sra
from llm_sra.engines import ENGINES
from llm_sra.evaluation.matches import DECODINGS
from llm_sra.evaluation.options import CHUNK
from recipes.cli import main
from recipes.commands.eval import parser as eval_parser
from recipes.commands.train_help import SHORT, short_help


def test_help_a_list_and_a_wrong_name_import_nothing_heavy() -> None:
    program = """
import sys
from recipes.cli import COMMANDS, main
asked = [[name, "--help"] for name in COMMANDS]
for argv in [["--help"], ["--version"], ["list"], ["evla"], *asked]:
    try:
        main(argv)
    except SystemExit:
        pass
print([name for name in ("torch", "transformers", "trl", "matplotlib") if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"llm-sra {llm_sra.__version__}\n"
    shown = subprocess.run([sys.executable, "-m", "llm_sra", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert shown.stdout == f"llm-sra {llm_sra.__version__}\n"


def test_trainings_help_begins_with_the_method_and_is_as_written_down(capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails: `python -m recipes.commands.train_help` writes it anew."""
    assert SHORT.read_text() == short_help()
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 300
    assert max(map(len, lines)) < 250  # the longest is a list of choices
    assert lines.index("The method:") < 10
    assert main(["train", "--help-all"]) == 0
    everything = capsys.readouterr().out
    flags = set(re.findall(r"^  --(\w+)", everything, re.MULTILINE))
    assert {"weight_decay", "tau", "trust_remote_code", "adam_beta1"} <= flags
    assert everything.count("\n  --tau ") == 1


def test_evaluations_help_says_the_defaults_that_hold() -> None:
    shown = " ".join(eval_parser().format_help().split())
    assert f"(default {CHUNK})" in shown
    assert f"{', '.join(ENGINES[:-1])} or {ENGINES[-1]}" in shown
    assert eval_parser().parse_args(["--run", "a", "--out", "b"]).decoding == list(DECODINGS)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_completes_commands_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("quickstart", "--cross_play", "--adversary_learning_rate", "--version"))
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True).returncode == 0


def test_a_finished_quickstart_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report" / "report.html"
    page.parent.mkdir()
    page.write_text("the page")
    assert main(["quickstart", "--out", str(tmp_path)]) == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [page]
    assert page.read_text() == "the page"
    shown = capsys.readouterr().out
    assert "holds a finished quickstart, which is left as it is" in shown
    assert str(page) in shown
    assert "--again" in shown
