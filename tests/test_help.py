"""What the command line says of itself: help, version, completion, and a finished quickstart."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from support import ROOT

import llm_sra
from llm_sra.engines import ENGINES
from llm_sra.evaluation.matches import DECODINGS
from llm_sra.evaluation.options import CHUNK
from llm_sra.trainer.parse import ConfigError, parse
from recipes.cli import COMMANDS, main
from recipes.commands.eval import parser as eval_parser
from recipes.commands.train_help import as_text, make_table
from recipes.fields import TABLE, read_table

TAKE_FIELDS = ("train", "compare", "paper", "best-response", "strangers", "warm-start", "serve")
OUT = ("--out", "no/folder")
MISTAKES = (
    (["train", "--config", "worksheet/srp"], "did you mean 'worksheet/srpo'"),
    (
        ["train", "--config", "worksheet/srpo", "--tua", "1"],
        "unknown key 'tua' .*did you mean 'tau'",
    ),
    (["train", "--config", "worksheet/srpo", "--tau", "-1"], "tau must be 0 or more, got -1.0"),
    (["train", "--config", "worksheet/srpo", "--tau"], "argument --tau: expected one argument"),
    (["train", "--config", "worksheet/srpo", "--num_generations", "x"], "num_generations must be a whole number"),
    (
        ["train", "--config", "worksheet/srpo", "--arm", "srppo"],
        "arm must be one of .*did you mean 'srpo'",
    ),
    (["train", "--config", "worksheet/srpo", "--task", "worksheeet"], "unknown task .*did you mean 'worksheet'"),
    (["compare", "--config", "worksheet/srpo", "--arms", "ippo", "sprro", *OUT], "arm must be one of .*got 'sprro'"),
    (
        ["compare", "--config", "worksheet/ippo", "worksheet/srp", *OUT],
        "no recipe worksheet/srp .*'worksheet/srpo'",
    ),
    (
        ["compare", "--config", "worksheet/srpo", "--roster", "worksheet_tset", *OUT],
        "no roster .*'worksheet_test'",
    ),
    (["paper", "gsm8k", "--tau", "high"], "tau must be a number, got 'high'"),
    (["best-response", "--roster", "worksheet_tset", *OUT], "no roster .*'worksheet_test'"),
    (["strangers", "--task", "worksheet", "--max_stepz", "3", *OUT], "unknown key 'max_stepz'"),
    (["warm-start", "--config", "worksheet/srpo", "--lora_r", "big", *OUT], "lora_r must be a whole number, got 'big'"),
    (["serve", "--config", "worksheet/srpo", "--lora_r", "big"], "lora_r must be a whole number, got 'big'"),
    (["eval", "--run", "no/run", "--roster", "worksheet_test", *OUT], "no/run is not a run"),
)


def without_heavy_imports(commands: Sequence[Sequence[str]]) -> list[str]:
    """What each command writes, all in one process that then has none of the large packages loaded."""
    program = """
import contextlib, io, json, sys
from llm_sra.trainer.parse import ConfigError, parse
from recipes.cli import COMMANDS, main
written = []
for argv in json.loads(sys.argv[1]):
    stream = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        main(argv)
    written.append(stream.getvalue())
heavy = [name for name in ("torch", "transformers", "trl", "matplotlib", "scipy") if name in sys.modules]
print(json.dumps([heavy, written]))
"""
    words = [sys.executable, "-c", program, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    heavy, written = json.loads(done.stdout)
    assert heavy == []
    return list(written)


def test_help_a_list_and_a_wrong_name_import_nothing_heavy() -> None:
    asked = [[name, "--help"] for name in COMMANDS]
    shown = without_heavy_imports([["--help"], ["--version"], ["list"], ["evla"], *asked])
    assert all(shown)


def test_every_command_that_takes_fields_lists_them_by_help_all_and_says_so() -> None:
    shown = without_heavy_imports([[name, how] for name in TAKE_FIELDS for how in ("--help", "--help-all")])
    names = {row["dest"] for row in read_table()}
    for name, short, whole in zip(TAKE_FIELDS, shown[::2], shown[1::2], strict=True):
        assert "--help-all" in short and whole.startswith(f"usage: llm-sra {name}")
        flags = re.findall(r"^  --(\w+)", whole, re.MULTILINE)
        assert names <= set(flags) and flags.count("partners") == flags.count("tau") == 1, name
    assert [name for name in COMMANDS if name not in TAKE_FIELDS] == [
        name for name in COMMANDS if "--help-all" not in parser_of(name)._option_string_actions
    ]


def parser_of(command: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = import_module(f"recipes.commands.{command.replace('-', '_')}").parser()
    return parser


def test_a_mistake_in_a_name_or_a_value_is_said_before_anything_heavy_is_imported() -> None:
    said = without_heavy_imports([argv for argv, _ in MISTAKES])
    for (argv, message), line in zip(MISTAKES, said, strict=True):
        assert re.fullmatch(rf"llm-sra: \w+Error: .*{message}.*\n", line), (argv, line)


@pytest.mark.parametrize(("argv", "message"), [one for one in MISTAKES if one[0][0] == "train" and "--tau" in one[0]])
def test_a_training_from_python_says_the_same(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(argv[2], argv[3:])


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"llm-sra {llm_sra.__version__}\n"
    shown = subprocess.run([sys.executable, "-m", "llm_sra", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert shown.stdout == f"llm-sra {llm_sra.__version__}\n"


def test_what_is_known_of_the_fields_is_what_the_configuration_says() -> None:
    """If this fails: `python -m recipes.commands.train_help` writes it anew."""
    assert TABLE.read_text(encoding="utf-8") == as_text(make_table())


def test_trainings_help_begins_with_the_method(capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    shells = ("bash", "zsh")
    return dict(zip(shells, without_heavy_imports([["completion", shell] for shell in shells]), strict=True))


COMPLETED = {
    "tr": "train",
    "train --config worksheet/best": "worksheet/best_response",
    "train --config my": "my.yaml",
    "compare --config worksheet/ippo worksheet/adv": "worksheet/adversary",
    "compare --config worksheet/ippo --arms sr": "srpo",
    "compare --config worksheet/ippo --kl_d": "--kl_direction",
    "train --arm mep --tau_schedule t": "target_kl",
    "train --task my": "my.py",
    "check hana": "hanabi",
    "train --model_name_or_path worksheet/p": "worksheet/pupil",
    "eval --roster hanabi_t": "hanabi_test",
    "train --dev_roster my": "my.yaml",
    "list --path multi": "multi_gpu",
    "warm-start --partners wor": "",  # scripted ones, which only the task knows
    "eval --run no": "",  # bash goes on with files
}


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_flags_names_that_ship_and_files(scripts: dict[str, str], tmp_path: Path) -> None:
    for name in ("my.yaml", "my.py", "my.txt"):
        (tmp_path / name).touch()
    tries = "".join(
        f"COMP_WORDS=(llm-sra {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_llm_sra\n"
        'echo "${COMPREPLY[*]}"\n'
        for words in COMPLETED
    )
    words = ["bash", "--norc", "-c", f"{scripts['bash']}\n{tries}complete -p llm-sra"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    *found, registered = done.stdout.splitlines()
    assert dict(zip(COMPLETED, found, strict=True)) == COMPLETED
    assert registered == "complete -o bashdefault -o default -F _shtab_llm_sra llm-sra"


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
@pytest.mark.parametrize("how", ['eval "$(<completion)"', "source ./completion"])
def test_zsh_takes_the_script(how: str, scripts: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(scripts["zsh"])
    program = f"autoload -Uz compinit; compinit -u -D; {how}; echo $_comps[llm-sra]; whence -w _llm_sra_recipes"
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("_shtab_llm_sra\n_llm_sra_recipes: function\n", "")


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
