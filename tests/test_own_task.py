"""Starting a task of one's own: `llm-sra new` writes one, `llm-sra check` says what is wrong with it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Scripted
from llm_sra.protocol.check import Trial, TrialTurn
from llm_sra.protocol.texts import Longest, added, grows, longest
from llm_sra.registry import load_task
from llm_sra.task import Message, Outcome, Problem
from llm_sra.trainer.parse import parse
from recipes.cli import main
from recipes.commands.new import STARTER

BROKEN = """
from llm_sra import Task
from llm_sra.task import Message, Outcome, Problem, Reward


class Base(Task):
    seats = ("ann", "bob")

    def problems(self, split, count=None, seed=0):
        return [Problem(f"{split}-{n}", f"{split} {n}") for n in range(4)][:count]

    def start(self, problem, rng):
        return ()

    def actors(self, state):
        return self.seats[len(state) : len(state) + 1]

    def view(self, state, seat):
        return [Message("user", "say")]

    def step(self, state, replies, rng):
        return (*state, 1), {seat: Reward(cost=-1.0) for seat in self.seats}

    def outcome(self, state):
        return Outcome(True)


class Other(Base):
    pass


class Helper:
    pass
"""


def played(task: Any, first: Any, second: Any) -> Any:
    match = Match("scripts", {"first": Scripted("a", first), "second": Scripted("b", second)})
    (episode,) = play(task, [EpisodeSpec(task.problems("train", 1)[0], match)], {}, seed=1)
    return episode


class Says:
    def __init__(self, text: str) -> None:
        self.text = text

    def reply(self, messages: list[dict[str, str]], rng: Any) -> str:
        return self.text


def test_the_starter_pays_the_team_once_and_charges_who_answers() -> None:
    task = load_task(f"{STARTER}:Proofread")
    idle = task.partners["idle"]()
    page = task.start(task.problems("train", 1)[0], None)
    right, wrong = Says(page.misspelt), Says("garden")

    def returns(first: Any, second: Any) -> list[float]:
        return [played(task, first, second).total(seat) for seat in task.seats]

    assert returns(idle, right) == pytest.approx([1.0, 0.8])
    assert returns(right, idle) == pytest.approx([0.8, 1.0])
    assert returns(right, wrong) == pytest.approx([-0.2, -0.2])  # the last word counts
    assert returns(idle, idle) == [0.0, 0.0]
    assert played(task, idle, right).turns[1].view[0].content.endswith("Your partner said: pass")
    shown = [{task.start(p, None).shown for p in task.problems(split)} for split in ("train", "dev", "test")]
    assert len(set.union(*shown)) == sum(map(len, shown)) == 100  # no page twice, in whatever splits


def test_new_writes_a_task_of_the_files_name_that_plays_and_is_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mine/plan_code.py"]) == 0
    shown = capsys.readouterr().out
    assert "llm-sra check mine/plan_code.py:PlanCode" in shown
    path = tmp_path / "mine" / "plan_code.py"
    assert len(path.read_text().splitlines()) < 90
    played = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert played.stdout.splitlines()[-1] == "-> second: winxdow {'first': 1.0, 'second': 0.8}"
    assert main(["check", "mine/plan_code.py:PlanCode", "--model_name_or_path", "worksheet/pupil"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == "nothing found against the protocol"
    assert "idle" in shown and "0 of 8" in shown
    assert "Name the misspelt word, or pass." in shown
    assert "tokens of worksheet/pupil" in shown


def test_check_says_that_the_limit_of_a_reply_is_too_small_for_what_scripts_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "short.py"
    text = Path(STARTER).read_text().replace("max_reply_tokens = 8", "max_reply_tokens = 1")
    path.write_text(text.replace('return "pass"', 'return "1+2=3"'))
    assert main(["check", f"{path}:Proofread", "--model_name_or_path", "worksheet/pupil"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("doubtful: max_reply_tokens is 1, but a scripted partner says 5 tokens of worksheet/pupil")
    assert last.endswith("raise the limit")


def test_new_overwrites_nothing_and_wants_a_name_that_python_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text("precious")
    assert main(["new", str(path)]) == 2
    assert path.read_text() == "precious"
    assert main(["new", str(tmp_path / "mine.txt")]) == 2
    assert main(["new", str(tmp_path / "7.py")]) == 2
    message = capsys.readouterr().err
    assert "exists, and is left as it is" in message
    assert "must end in .py" in message
    assert "no class can be called '7': choose one with --name" in message
    assert not (tmp_path / "7.py").exists()


def test_check_says_what_is_wrong_where_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    assert main(["check", f"{path}:Base"]) == 2
    out, err = capsys.readouterr()
    assert "broken.py:21, in step makes seat 'ann' pay cost=-1" in out
    assert "wrong: " in out
    assert "breaks the protocol in one thing, listed above" in err


@pytest.mark.parametrize("task", ["worksheet", "kitchen", "effort", "hanabi"])
def test_the_shipped_tasks_are_in_order(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", task]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing found against the protocol"


def test_a_file_without_its_class_gets_the_tasks_in_it_and_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pc.py"
    path.write_text(f"{BROKEN}\nraise SystemExit('it ran')\n")
    assert main(["check", str(path)]) == 2
    assert f"did you mean {path}:Base or {path}:Other?" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "no.py")]) == 2
    assert "a task is named as" in capsys.readouterr().err


def test_a_wrong_class_gets_the_tasks_of_its_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pc.py"
    path.write_text(BROKEN)
    assert main(["check", f"{path}:Otter"]) == 2
    assert "did you mean 'Other'? There are: Base, Other\n" in capsys.readouterr().err


def trial(*turns: tuple[str, list[Message], str]) -> Trial:
    return Trial(
        Problem("p", None), tuple(TrialTurn(seat, tuple(view), said) for seat, view, said in turns), (), Outcome(True)
    )


ASKED = Message("user", "go")


def test_a_view_grows_if_it_only_appends_the_own_reply_as_an_engine_cuts_it() -> None:
    one = ("ann", [ASKED], "yes\nno")
    kept = ("ann", [ASKED, Message("assistant", "yes"), ASKED], "no")
    assert grows([trial(one, ("bob", [ASKED], "no"), kept)], "ann", stop=("\n",))
    assert not grows([trial(one, kept)], "ann")  # without a stop string the reply is "yes\nno"
    assert not grows([trial(one, ("ann", [ASKED], "no"))], "ann", stop=("\n",))
    turns = trial(one, kept).turns
    assert added(turns[0], turns[1], ("\n",)) == (ASKED,)
    white = ("ann", [ASKED], "\nyes\nno")
    assert grows([trial(white, ("ann", [ASKED, Message("assistant", "\nyes"), ASKED], "no"))], "ann", stop=("\n",))


def test_the_longest_text_is_found_with_who_said_it() -> None:
    played = trial(("ann", [ASKED], "yes"), ("bob", [ASKED], "maybe"))
    assert longest([played], lambda turn: len(turn.reply)) == Longest(5, "bob", "p")
    assert longest([], lambda turn: 1) is None


def test_a_recipe_lends_another_task_nothing_that_is_about_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(BROKEN)
    _, config = parse("worksheet/srpo", ["--task", f"{path}:Base", "--output_dir", str(tmp_path / "run")])
    assert config.dev_roster is None
    assert config.eval_strategy == "no"
    assert config.max_completion_length is None
    assert "its max_completion_length, dev_roster, eval_strategy are left out" in caplog.text
    _, config = parse("hanabi/srpo", overrides={"task": f"{path}:Base", "dev_roster": "worksheet_dev"})
    assert config.task_args is None
    assert (config.dev_roster, config.eval_strategy) == ("worksheet_dev", "steps")


def test_a_recipe_keeps_all_for_its_own_task(caplog: pytest.LogCaptureFixture) -> None:
    _, config = parse("worksheet/srpo", ["--task", "worksheet"])
    assert config.dev_roster == "worksheet_dev"
    assert "left out" not in caplog.text
