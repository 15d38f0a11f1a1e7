"""Every command of the documentation is run, with little to do, or says in a comment what it needs or takes.

A command of which neither holds fails: `# needs a GPU`, `# needs ...` and `# takes ...` are the marks. What is marked
is still read by the program that it is for, and files that it names must exist.
"""

import argparse
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT
from transformers.utils.logging import disable_progress_bar

import llm_sra
from llm_sra import registry
from llm_sra.partners.rosters import read_roster
from llm_sra.trainer.parse import parse
from recipes.cli import main
from recipes.commands import warm_start
from recipes.commands.best_response import parser as respond_parser
from recipes.commands.strangers import parser as strangers_parser
from recipes.comparing.responding import default_recipe

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "README.md",
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"(?:^|\s)#.*\b(needs|takes) \w+")
PROGRAMS = r"(?:\S*/)?(?:llm-sra|make|accelerate|pip|python[\d.]*|pre-commit|pytest|mkdocs|vllm|export)"
INDENTED = re.compile(rf"^(?: {{4}}|\t)\$? ?{PROGRAMS} +[\w./-]", re.MULTILINE)
INLINE = re.compile(rf"`({PROGRAMS} [^`]+)`")
LISTED = re.compile(r"\$\(llm-sra list (\w+) --path (\S+)\)")
FILE_OF_A_BLOCK = re.compile(r"# ([\w./-]+\.(?:py|yaml))\n")
BESIDE = ("recipes", "eval", "tasks", "accelerate_configs", "requirements", "examples")  # that commands need
LITTLE = {"max_steps": 1, "problems_per_step": 4, "dev_problems": 1, "eval_steps": 1, "save_steps": 1}
MATCHES = 4  # of the sampled partners of one recipe
FEW = {"compare": ["--print"], "eval": ["--problems", "1"], "play": ["--problems", "1"], "serve": ["--print"]}
QUICKSTART = ["--max_steps", "1", "--problems", "1"]


def train_little(train: Callable[..., Any], recipe: str, **said: Any) -> Any:
    """A short training, from Python."""
    return train(recipe, **{**said, **LITTLE, "num_generations": 2, "disable_tqdm": True})


def evaluate_little(evaluate: Callable[..., Any], *places: Any, **said: Any) -> Any:
    """A short evaluation, from Python."""
    return evaluate(*places, **{**said, "problems": 1})


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        words: As the shell splits them, without what stands before the program's name.
        marked: Whether it says what it needs.
    """

    words: tuple[str, ...]
    marked: bool


class Parsed(BaseException):
    """The program took the command line; nothing is run."""


def listed(call: re.Match[str]) -> str:
    """What the shell puts in the place of `$(llm-sra list KIND --path NAME)`."""
    return str(getattr(registry, f"shipped_{call[1]}")()[call[2]])


def commands(block: str) -> list[Command]:
    """The commands of a block; a mark stands in a command's own line, or in the one above."""
    found, above = [], False
    for line in LISTED.sub(listed, block.replace("\\\n", " ")).splitlines():
        words, here = shlex.split(line, comments=True), bool(MARK.search(line))
        if words:
            found.append(Command((Path(words[0]).name, *words[1:]), here or above))
        above = here and not words
    return found


def little(flags: Sequence[str]) -> list[str]:
    """What makes a training short, beside what its command says."""
    recipe = flags[flags.index("--config") + 1] if "--config" in flags else None
    values = yaml.safe_load(registry.find_recipe(recipe).read_text()) if recipe else {}
    group = {"num_generations": 2 * MATCHES if values.get("partners") else 2}
    resumes = {} if "--resume_from_checkpoint" in flags else {"overwrite_output_dir": "true"}
    said = {**LITTLE, **group, **resumes, "disable_tqdm": "true"}
    return [part for key, value in said.items() for part in (f"--{key}", str(value))]


def run_llm_sra(name: str, *flags: str) -> None:
    """As the shell would, in this process."""
    if name == "quickstart":
        flags = (*flags, *QUICKSTART)
    elif name == "train":
        flags = (*flags, *little(flags))
    assert main([name, *flags, *FEW.get(name, [])]) == 0


def run_accelerate(launch: str, *flags: str) -> None:
    """As the shell would, on a CPU."""
    assert launch == "launch"
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, *little(flags)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def run_make(*targets: str) -> None:
    """What `make` would do, without doing it: the tests are run by `make test` themselves."""
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for target in (word for word in targets if "=" not in word):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def run_pip(*words: str) -> None:
    """What the Makefile does with the same words has been done: these tests run in what it installed."""
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    made = [shlex.split(line.split("-m pip ")[1]) for line in lines if "-m pip " in line]
    assert sorted(words) in [sorted(word for word in line if word != "--quiet") for line in made], words


def run_python(*words: str) -> None:
    """Tests are collected and not run; of an example that has flags, only the flags are read."""
    if words[0].endswith(".py"):
        run_example(*words)
        return
    assert words[:2] == ("-m", "pytest")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *words[2:]], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stdout


def run_example(file: str, *words: str) -> None:
    """As Python would, in this process: up to its flags if it has any. `test_examples` runs examples to their end."""
    with pytest.MonkeyPatch.context() as patched, suppress(Parsed):
        patched.setattr("sys.argv", [file, *words])
        patched.setattr(llm_sra, "evaluate", partial(evaluate_little, llm_sra.evaluate))
        stop_after_flags(patched)
        runpy.run_path(file, run_name="__main__")


def stop_after_flags(patched: pytest.MonkeyPatch) -> None:
    """Raise `Parsed` as soon as a program has read its command line."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(*args: Any, **options: Any) -> None:
        original(*args, **options)
        raise Parsed

    patched.setattr(argparse.ArgumentParser, "parse_args", parse_args)


def run_precommit(word: str) -> None:
    """Git's hooks stay as they are; that their configuration can be used is seen."""
    assert word == "install"
    assert yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]


RUN: dict[str, Callable[..., None]] = {
    "llm-sra": run_llm_sra,
    "accelerate": run_accelerate,
    "make": run_make,
    "pip": run_pip,
    "python": run_python,
    "pre-commit": run_precommit,
}


def read_only(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A marked command is one that its program would take, as far as that can be known without running it."""
    program, *words = command.words
    if program == "make":
        run_make(*words)
    elif program == "accelerate":
        assert Path(words[words.index("--config_file") + 1]).is_file()
        if "recipes.cli" in words:
            read_only(Command(("llm-sra", *words[words.index("recipes.cli") + 1 :]), True), monkeypatch)
            return
        script = next(index for index, word in enumerate(words) if word.endswith(".py"))
        assert Path(words[script]).is_file()
        read_training(words[script + 1 :])
    elif program == "llm-sra" and words[0] == "train":
        read_training(words[1:])
    elif program == "llm-sra" and words[0] == "warm-start":  # further flags are a training's
        args, flags = warm_start.parser().parse_known_args(words[1:])
        read_training(["--config", args.config, *flags])
    elif program == "llm-sra" and words[0] == "best-response":
        args, rest = respond_parser().parse_known_args(words[1:])
        read_roster(args.roster)
        read_training(["--config", args.config, *rest])
    elif program == "llm-sra" and words[0] == "strangers":
        args, rest = strangers_parser().parse_known_args(words[1:])
        read_training(["--config", args.config or default_recipe(args.task), *rest])
    elif program == "llm-sra" and words[0] in ("compare", "paper"):  # --print reads all of it
        run_llm_sra(*(word for word in words if word != "--run" or words[0] == "compare"))
    elif program == "llm-sra":
        with monkeypatch.context() as patched, suppress(Parsed):
            stop_after_flags(patched)
            run_llm_sra(*words)
    else:
        assert program in {"pip", "python", "tensorboard", "vllm"}, command
        assert all((ROOT / word).exists() for word in words if word.endswith((".txt", ".py"))), command


def read_training(flags: Sequence[str]) -> None:
    """Recipe and flags are taken, but for what a GPU alone can do."""
    recipe = flags[list(flags).index("--config") + 1]
    rest = [flag for index, flag in enumerate(flags) if "--config" not in (flag, flags[index - 1])]
    parse(recipe, [*rest, "--use_cpu", "true", "--bf16", "false"])


# -- the pages -------------------------------------------------------------------------------------------------------


EXTRAS = {"pettingzoo": "mpe2", "textarena": "textarena"}  # pages whose examples need a package that may be missing


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart was run, and a run of the effort game made."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in BESIDE:
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        disable_progress_bar()
        run_llm_sra("quickstart")
        run_llm_sra("train", "--config", "recipes/effort/srpo.yaml")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_runs_or_says_what_it_needs(
    page: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.stem in EXTRAS:
        pytest.importorskip(EXTRAS[page.stem])
    home = tmp_path / "home"
    shutil.copytree(workshop, home, symlinks=True)
    monkeypatch.chdir(home)
    monkeypatch.setattr("sys.stdin", io.StringIO("pass\n" * 100))  # a human who never works
    monkeypatch.setattr(llm_sra, "train", partial(train_little, llm_sra.train))
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if file := FILE_OF_A_BLOCK.match(block):
            Path(file[1]).write_text(block)
        elif language == "python":
            exec(compile(block, f"{page.name}, python block", "exec"), {"__name__": "__main__"})
        elif language == "bash":
            for command in commands(block):
                if command.words[0] == "export":
                    monkeypatch.setenv(*command.words[1].split("=", 1))
                    continue
                if command.marked:
                    read_only(command, monkeypatch)
                    continue
                run = RUN.get(command.words[0])
                assert run, f"no test knows how to run {shlex.join(command.words)!r}: say what it needs, or add it"
                run(*command.words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_stand_in_blocks_that_are_run(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert not INDENTED.findall(text), "put commands into a block that opens with ```bash"
    assert {language for language, _ in FENCE.findall(page.read_text(encoding="utf-8"))} <= {
        "bash", "python", "yaml", "text"
    }  # fmt: skip


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_in_sentences_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = partial(re.findall, r"--(\w+)")
    for text in INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        program, *words = shlex.split(text)
        if program == "make":
            run_make(*(word for word in words if "=" not in word))
        elif Path(program).name == "llm-sra" and words[0].islower():
            with suppress(SystemExit):
                assert main([words[0], "--help-all" if words[0] == "train" else "--help"]) == 0
            known = capsys.readouterr().out if flags(text) else text
            assert set(flags(text)) <= {"config", *flags(known)}, text  # training's help lists fields alone


def test_a_command_without_a_mark_that_nobody_knows_is_seen() -> None:
    [plain, marked, below, last] = commands(
        "curl example\nllm-sra train --engine vllm  # needs a GPU\n# needs a GPU\nllm-sra train \\\n  --x y\nmake test"
    )
    assert plain.words[0] not in RUN and not plain.marked and not last.marked
    assert below == Command(("llm-sra", "train", "--x", "y"), True)
    assert marked.marked and marked.words == ("llm-sra", "train", "--engine", "vllm")


def test_an_example_must_take_the_flags_that_its_page_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run_python("examples/srpo_loop.py", "--arm", "srpo")
    with pytest.raises(SystemExit):
        run_python("examples/srpo_loop.py", "--arms", "srpo")


def test_a_marked_command_must_still_be_one_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    good = commands("llm-sra train --config recipes/worksheet/srpo.yaml --engine vllm  # needs a GPU\n")
    bad = commands("llm-sra train --config recipes/worksheet/srpo.yaml --engin vllm  # needs a GPU\n")
    read_only(good[0], monkeypatch)
    with pytest.raises(ValueError, match="unknown key 'engin'"):
        read_only(bad[0], monkeypatch)
    with pytest.raises(SystemExit):
        read_only(commands("llm-sra eval --runs x  # takes hours\n")[0], monkeypatch)
