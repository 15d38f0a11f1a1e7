"""The command line: what it shows, what it refuses in one line, and that it works from anybody's folder."""

import io
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import support
import yaml
from rich.console import Console
from support import ROOT, make_run, qwen2, qwen2_folder, qwen2_tokenizer, save_model

from llm_sra.registry import load_task
from llm_sra.runs import Run
from llm_sra.task import Message
from recipes.cli import COMMANDS, main
from recipes.commands.play import Human, introduction, printable
from recipes.terminal import run_command

FEW_TOKENS = {"max_completion_length": 4}
PARTNERS = """
class Shout:
    def reply(self, messages, rng):
        return "\\x1b[2J\\x1b]0;owned\\x07[bold]NO[/bold]\\u202e"

class Fails:
    def reply(self, messages, rng):
        raise LookupError("no idea")

class Mute:
    pass
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents on the worksheet that write nonsense."""
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", **FEW_TOKENS)


@pytest.fixture
def partners(tmp_path: Path) -> Path:
    path = tmp_path / "partners.py"
    path.write_text(PARTNERS)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- play ------------------------------------------------------------------------------------------------------------


def test_play_shows_every_turn_and_how_each_episode_ended(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--run", str(run.path), "--partner", "diligent", "--problems", "2"]) == 0
    shown = capsys.readouterr().out
    turns = [line.split(")")[0].strip() + ")" for line in shown.splitlines() if line.startswith("    ")]
    assert turns == ["first (first)", "second (diligent)"] * 6
    assert shown.count("problem ") == 2
    assert shown.count("solved   returns: first +0.70, second +0.80") == 2  # 1 - 3 x 0.1 and 1 - 2 x 0.1
    assert "[length]" in shown


def test_play_seats_the_agent_where_it_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--run", str(run.path), "--partner", "lazy", "--seat", "second", "--problems", "1", "--greedy"]
    assert main(["play", *flags]) == 0
    shown = capsys.readouterr().out
    assert shown.count("first (lazy)  pass") == 3 and shown.count("second (second)") == 3
    assert "not solved   returns: first +0.00, second -0.30" in shown


def test_play_without_a_partner_is_self_play_and_the_same_for_the_same_seed(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(seed: str) -> str:
        assert main(["play", "--run", str(run.path), "--problems", "1", "--seed", seed]) == 0
        return capsys.readouterr().out

    assert shown("0") == shown("0") != shown("1")
    assert shown("0").count("first (first)") == shown("0").count("second (second)") == 3


def test_a_human_at_the_table_sees_the_sheet_and_types(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.worksheet import Worksheet

    [problem] = Worksheet().problems("test", 1)
    a, b, c = problem.data["numbers"]
    typed = [f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}", "pass"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed)))
    assert main(["play", "--run", str(run.path), "--partner", "human", "--problems", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("you> ") == 3 and f"Q: {problem.id}" in shown
    assert [f"second (human)  {line}" in shown for line in typed] == [True] * 3
    assert "solved   returns: first +0.70, second +0.80" in shown


def test_a_human_who_leaves_ends_the_program_quietly(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["play", "--run", str(run.path), "--partner", "human"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "llm-sra: interrupted"


def test_what_a_partner_says_is_shown_and_never_sent_to_the_terminal(
    run: Run, partners: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", "--run", str(run.path), "--partner", f"{partners}:Shout", "--problems", "1"]) == 0
    shown = capsys.readouterr().out
    assert "\\x1b[2J\\x1b]0;owned\\x07[bold]NO[/bold]\\u202e" in shown.replace("\n", "")
    assert not [c for c in shown if not c.isprintable() and c != "\n"]


def test_a_human_is_asked_again_for_an_empty_line_and_for_what_is_no_choice() -> None:
    screen, typed = io.StringIO(), iter(["", "  ", "maybe", " work "])
    human = Human(Console(file=screen), ask=lambda _: next(typed), choices=("rest", "work"))
    assert human.reply([Message("user", "Your move")], random.Random(0)) == "work"
    assert screen.getvalue().count("Type a reply, or /quit.") == 2
    assert screen.getvalue().count("One of: rest, work; or /quit.") == 1


def test_a_human_leaves_by_quit() -> None:
    human = Human(Console(file=io.StringIO()), ask=lambda _: "/quit")
    with pytest.raises(SystemExit) as left:
        human.reply([Message("user", "Your move")], random.Random(0))
    assert left.value.code == 0


def test_a_human_is_told_the_task_and_what_can_be_said() -> None:
    told = introduction(load_task("worksheet", None))
    about, *rest = told.splitlines()
    assert len(about) > 20 and rest[0].startswith("You can say: ") and told.endswith("/quit leaves.")


def test_what_an_agent_says_is_not_sent_to_the_humans_terminal_either() -> None:
    screen = io.StringIO()
    human = Human(Console(file=screen), ask=lambda _: "pass")
    assert human.reply([Message("user", "Q: 3+2+5\n\x1b[2J\ud800")], random.Random(0)) == "pass"
    assert screen.getvalue() == "Q: 3+2+5\n\\x1b[2J\\ud800\n"


@pytest.mark.parametrize(
    ("text", "shown"), [("3+2=5", "3+2=5"), ("a\nb", "a\nb"), ("é🙂", "é🙂"), ("\t\r\x00", "\\t\\r\\x00")]
)
def test_printable_text_stays_and_control_characters_are_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


# -- train, export, eval ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, from a recipe."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "recipe.yaml"
    path.write_text(
        f"model_name_or_path: {qwen2_folder()}\ntask: worksheet\ntask_args: {{explain: false}}\narm: ippo\n"
        "max_steps: 5\nproblems_per_step: 1\n"
        f"num_generations: 2\nmax_completion_length: 24\nlora_r: 2\noutput_dir: {folder}/run\nreport_to: none\n"
        "save_strategy: 'no'\nuse_cpu: true\nbf16: false\ngradient_checkpointing: false\ndisable_tqdm: true\n"
    )
    with redirect_stdout(io.StringIO()) as shown:
        assert main(["train", f"--config={path}", "--max_steps", "1"]) == 0
    (folder / "shown.txt").write_text(shown.getvalue())
    return folder / "run"


def test_a_training_leaves_a_run_and_names_the_next_command(trained: Path) -> None:
    run = Run.open(trained)
    assert (run.config["max_steps"], run.config["lora_r"], run.config["arm"]) == (1, 2, "ippo")
    assert sorted(path.name for path in run.adapters.iterdir() if path.is_dir()) == ["first", "second"]
    assert run.heroes == {"first": "first", "second": "second"}
    shown = (trained.parent / "shown.txt").read_text()
    assert f"trained: {trained}\n" in shown
    assert f"llm-sra eval --run {trained} --roster worksheet_test --out {trained}/report" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "RunError: .*already holds a run"),
        (["--overwrite_output_dir", "true", "--model_name_or_path", "./gone"], "ModelError: no model folder"),
        (
            ["--overwrite_output_dir", "true", "--dev_roster", "gone.yaml"],
            r"RosterError: no roster gone\.yaml \(looked ",
        ),
        (["--overwrite_output_dir", "true", "--dev_roster", "worksheet_dv"], "RosterError: .*mean 'worksheet_dev'"),
        (["--overwrite_output_dir", "true", "--task", "gone"], "UnknownNameError: unknown task"),
        (["--overwrite_output_dir", "true", "--tua", "1"], "ConfigError: unknown key"),
    ],
)
def test_a_training_that_cannot_start_leaves_the_earlier_run_as_it_was(
    trained: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(trained)
    assert main(["train", "--config", str(trained.parent / "recipe.yaml"), *flags]) == 2
    assert files(trained) == before
    assert_one_line(capsys, message)


def test_export_writes_what_was_asked_for_and_says_where(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["export", "--run", str(run.path), "--policy", "first"]
    assert main([*flags, "--out", str(tmp_path / "adapter")]) == 0
    assert main([*flags, "--out", str(tmp_path / "merged"), "--merge"]) == 0
    assert capsys.readouterr().out == f"exported: {tmp_path}/adapter\nexported: {tmp_path}/merged\n"
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


# -- bad input -------------------------------------------------------------------------------------------------------


def assert_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """What was printed on stderr is one line of ours, and no traceback; progress bars of others may come before."""
    error = capsys.readouterr().err
    ours = [line for line in error.splitlines() if line.startswith("llm-sra: ")]
    assert "Traceback" not in error
    assert len(ours) == 1 and error.endswith(ours[0] + "\n")
    assert re.search(message, ours[0])


BAD = [
    (["play", "--run", "{tmp}/gone"], "RunError: .*gone is not a run"),
    (["play", "--run", "{run}", "--partner", "lasy"], "unknown scripted partner 'lasy'; did you mean 'lazy'"),
    (["play", "--run", "{run}", "--seat", "frist"], "unknown seat 'frist'; did you mean 'first'"),
    (["play", "--run", "{run}", "--partner", "{tmp}/gone.py:Class"], "no file .*gone.py"),
    (["play", "--run", "{run}", "--partner", "{tmp}/partners.py:Shut"], "did you mean 'Shout'"),
    (["play", "--run", "{run}", "--partner", "{tmp}/partners.py:Mute"], "the class needs `reply"),
    (["play", "--run", "{run}", "--partner", "{tmp}/partners.py:Fails"], "PolicyError: .*Fails.*no idea"),
    (["export", "--run", "{run}", "--policy", "thrid", "--out", "{tmp}/out"], "unknown policy 'thrid'"),
    (["export", "--run", "{run}", "--policy", "first", "--out", "{tmp}"], "RunError: .*already holds something"),
    (["eval", "--run", "{tmp}/gone", "--roster", "worksheet_dev", "--out", "{tmp}/out"], "RunError: .*is not a run"),
    (["eval", "--run", "{run}", "--roster", "{tmp}/broken.yaml", "--out", "{tmp}/out"], "RosterError: .*is not YAML"),
    (["train", "--config", "{tmp}/gone.yaml"], "NoFileError: no recipe"),
    (["train", "--config", "{tmp}/broken.yaml"], "ConfigError: .*is not YAML"),
    (["train", "--model_name_or_path", "x", "--bf16", "false", "--arm", "srppo"], "arm must be one of ippo, srpo"),
    (["train", "--model_name_or_path", "x", "--bf16", "false", "--tua", "3"], "unknown key 'tua'.*did you mean 'tau'"),
    (["train", "--model_name_or_path", "x", "--bf16", "false", "stray"], "cannot tell what 'stray'"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD, ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    run: Run,
    partners: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("partners: [\ntau: {")
    before = files(tmp_path), files(run.path)
    assert main([argument.format(run=run.path, tmp=tmp_path) for argument in arguments]) == 2
    assert (files(tmp_path), files(run.path)) == before
    assert_one_line(capsys, message)


def test_a_task_option_of_the_wrong_kind_is_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model_name_or_path", str(qwen2_folder()), "--bf16", "false", "--use_cpu", "true"]
    options = ["--task_args", '{"turns": "8"}', "--output_dir", str(tmp_path / "run")]
    assert main(["train", *flags, *options]) == 2
    assert not (tmp_path / "run").exists()
    assert_one_line(capsys, "task worksheet: .*`turns` must be a whole number, got '8'")


def test_a_model_that_cannot_hold_a_problem_is_one_line_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = qwen2_tokenizer()
    base = save_model(qwen2(tokenizer, context=8), tokenizer, tmp_path / "small")
    run = make_run(tmp_path / "runs" / "small", base=base, **FEW_TOKENS)
    assert main(["play", "--run", str(run.path)]) == 2
    assert_one_line(capsys, "ContextError: problem .*seat 'first' sees .* but the context .* holds 8")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (KeyError("no such engine"), "KeyError: no such engine"),
        (NotADirectoryError(20, "Not a directory", "x"), "NotADirectoryError: [Errno 20] Not a directory: 'x'"),
    ],
)
def test_an_error_is_shown_in_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise error

    assert run_command(fails) == 2
    assert capsys.readouterr().err == f"llm-sra: {line}\n"


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        (lambda: object().defect, "AttributeError: 'object' object has no attribute 'defect'"),  # type: ignore[attr-defined]
        (lambda: {}["p"], "KeyError: 'p'"),
        (lambda: int("p"), "ValueError: invalid literal for int()"),
        (lambda: [][0], "IndexError: list index out of range"),
        (lambda: (lambda a: a)(), "TypeError: "),  # type: ignore[call-arg, misc]
    ],
)
def test_an_error_of_ours_is_a_traceback_that_asks_for_a_report(
    fails: Callable[[], Any], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(fails) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last)") and error in shown
    assert "Please report it" in shown.splitlines()[-1]


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["tarin"], 2), (["--help"], 0), (["-h"], 0)])
def test_without_a_command_it_lists_them(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    shown = capsys.readouterr()
    listed, other = (shown.out, shown.err) if code == 0 else (shown.err, shown.out)  # what was asked for is no error
    assert other == ""
    assert ("did you mean 'train'?" in listed) == (arguments == ["tarin"])
    assert all(f"\n  {command} " in listed for command in ("train", "watch", "eval", "play", "export", "quickstart"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_refuses_unknown_flags(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as left:
        assert left.code == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"usage: llm-sra {command}")
    assert shown.err == ""
    if command == "serve":
        return  # passes what it does not know to the recipe
    try:
        code = main([command, "--no_such_flag", "3"])
    except SystemExit as left:
        code = left.code  # type: ignore[assignment]
    assert code == 2


# -- from a user's own folder ----------------------------------------------------------------------------------------


def entry_point() -> list[str]:
    """The installed command; where the package is not installed, the same without the current folder on the path."""
    installed = Path(sys.executable).with_name("llm-sra")
    if installed.is_file():
        return [str(installed)]
    return [sys.executable, "-P", "-c", "import sys; from recipes.cli import main; sys.exit(main())"]


def test_it_works_in_a_folder_with_a_users_own_tasks_and_eval(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "eval").mkdir(parents=True)
    (home / "eval" / "__init__.py").write_text("raise SystemExit('this is mine')")
    (home / "recipes.py").write_text("raise SystemExit('this is mine')")
    shutil.copy(support.__file__, home / "tasks.py")
    own = make_run(home / "runs" / "own", task=f"{home}/tasks.py:Toy", **FEW_TOKENS)
    config = yaml.safe_load((own.path / "config.yaml").read_text())
    config["arguments"]["task"] = "tasks.py:Toy"
    (own.path / "config.yaml").write_text(yaml.safe_dump(config))
    # A module of the shipped package `tasks`, which the user's tasks.py must not hide.
    partner = "name: lazy, kind: scripted, policy: 'tasks.worksheet.partners:Lazy'"
    (home / "roster.yaml").write_text(f"partners: [{{{partner}}}]")

    arguments = ["eval", "--run", "runs/own", "--roster", "roster.yaml", "--out", "out", "--problems", "2"]
    arguments.append("--trust_task")  # its configuration was rewritten by hand, so it is nobody's
    done = subprocess.run(
        [*entry_point(), *arguments],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert "lazy" in done.stdout and "runs/own" in (home / "out" / "results.json").read_text()
