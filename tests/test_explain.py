"""Models that were not made for a task: what they are told, how their replies are read, and where that is recorded."""

import random
import re
from typing import Any

import pytest
from support import SPLITS, qwen2_folder

from llm_sra import train
from llm_sra.registry import load_task
from llm_sra.runs import Run
from llm_sra.task import Task
from llm_sra.trainer.explain import is_made_for, options_for
from tasks.hanabi.rules import Move
from tasks.hanabi.words import read_move as read_hanabi
from tasks.kitchen.grid import MOVES
from tasks.moves import named_move
from tasks.worksheet.sheet import Sheet, read_line

TOLD = {"explain": True, "strict": False}
FORMS: dict[str, tuple[str, ...]] = {  # every legal form of a reply
    "effort": ("rest", "work"),
    "hanabi": ("play 1", "discard", "hint 1 red", "rank"),
    "kitchen": ("up", "down", "left", "right", "stay"),
    "tag": ("up", "down", "left", "right", "stay"),
    "wordlist": ("one word that is not on the list yet", "pass"),
    "worksheet": ("4+3=7", "pass"),
}


def first_view(task: Task, seat: str = "first") -> str:
    """All that a seat sees before anything was said."""
    [problem] = task.problems("train", 1)
    state = task.start(problem, random.Random(0))
    return "\n".join(message.content for message in task.view(state, seat))


@pytest.mark.parametrize("name", FORMS)
def test_the_text_alone_names_every_legal_form(name: str) -> None:
    text = first_view(load_task(name, {"explain": True}))
    for form in FORMS[name]:
        assert re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text), form


@pytest.mark.parametrize("name", FORMS)
def test_the_text_is_the_same_for_every_seat_and_split_and_is_plain_characters(name: str) -> None:
    task = load_task(name, {"explain": True})
    bare = load_task(name, {"explain": False})
    for split in SPLITS:
        [problem] = task.problems(split, 1)
        states = [each.start(problem, random.Random(0)) for each in (task, bare)]
        added = []
        for seat in task.seats[:1]:
            long, short = (
                "\n".join(m.content for m in each.view(state, seat))
                for each, state in zip((task, bare), states, strict=True)
            )
            assert len(long) > len(short) + 50 and long.isprintable() is False  # it has line ends, and nothing else
            assert long.replace("\n", "").isprintable()
            added.append(long)


# -- readers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("3+2=5", "3+2=5"),
        ("3 + 2 = 5", "3+2=5"),
        ("**3+2=5**", "3+2=5"),
        ("5+4=9.", "5+4=9"),
        ("`5 + 4 = 9`", "5+4=9"),
        ("$5+4=9$", "5+4=9"),
        ("\n3+2=5\nthen 5", "3+2=5"),
        ("(5+4)=9", "5+4=9"),
        ("Pass", "pass"),
        ("**PASS.**", "pass"),
        ("I pass", "pass"),
        ("", ""),
        ("The sum is 3+2=5", "The sum is 3+2=5"),
        ("3+2+5=10", "3+2+5=10"),
        ("3+2=", "3+2="),
        ("I pass on", "I pass on"),
    ],
)
def test_a_line_of_the_worksheet_however_it_is_written(reply: str, line: str) -> None:
    assert read_line(reply) == line


def test_the_worksheet_reads_leniently_only_if_it_is_asked_to() -> None:
    sheet = Sheet((3, 2, 5))
    for strict, lines, cost in ((True, ("3 + 2 = 5", "Pass"), 0.1), (False, ("3+2=5", "pass"), 0.0)):
        task = load_task("worksheet", {"strict": strict})
        after, _ = task.step(sheet, {"first": "3 + 2 = 5"}, random.Random(0))
        after, paid = task.step(after, {"second": "Pass"}, random.Random(0))
        assert after.lines == lines and paid["second"].cost == cost


@pytest.mark.parametrize(
    ("reply", "strict", "lenient"),
    [
        ("Up.", "up", "up"),
        ("**up**", "up", "up"),
        ("I go up", "up", "up"),
        ("Up. I go up", None, "up"),
        ("up or down", None, None),
        ("upwards", None, None),
        ("", None, None),
    ],
)
def test_a_move_however_it_is_written(reply: str, strict: str | None, lenient: str | None) -> None:
    assert (named_move(reply, MOVES), named_move(reply, MOVES, strict=False)) == (strict, lenient)


@pytest.mark.parametrize(
    ("reply", "move"),
    [
        ("Hint player 1 red", Move("hint", 1, "red")),
        ("I play 1.", Move("play", 1)),
        ("1. play 1", Move("play", 1)),
        ("**My move:** play card 2", Move("play", 2)),
        ("I will hint player 2 rank 3", Move("hint", 2, 3)),
        ("I'll discard 1", Move("discard", 1)),
        ("I play", None),
        ("Player 1", None),
        ("play 1 or discard 2", None),
        ("I play 1\nI discard 2", None),
    ],
)
def test_a_move_of_hanabi_however_it_is_written(reply: str, move: Move | None) -> None:
    assert read_hanabi(reply, strict=False) == move
    assert read_hanabi(reply) is None


@pytest.mark.parametrize(
    ("reply", "illegal"), [("I work", 0), ("**Work!**", 0), ("I rest, I rest.", 0), ("rest or work", 1), ("working", 1)]
)
def test_a_word_of_a_matrix_game_however_it_is_written(reply: str, illegal: int) -> None:
    task = load_task("effort", {"strict": False})
    after, _ = task.step((), {"first": reply, "second": "rest"}, random.Random(0))
    assert task.outcome(after).metrics["illegal/first"] == illegal


def test_without_these_options_replies_are_read_as_in_earlier_versions() -> None:
    for name in ("effort", "hanabi", "kitchen", "tag", "worksheet"):
        assert load_task(name).strict is True  # type: ignore[attr-defined]


@pytest.mark.parametrize("lines", [(), ("6+1=7",), ("pass", "Q: 1+1+1")])
def test_partners_of_the_worksheet_read_past_rules_and_examples(lines: tuple[str, ...]) -> None:
    task = load_task("worksheet", {"explain": True})
    sheet = Sheet((3, 2, 5), lines)
    messages = [message.as_dict() for message in task.view(sheet, "second")]
    assert task.partners["diligent"]().reply(messages, random.Random(0)) == sheet.next_line


# -- who is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "task", "made"),
    [
        ("worksheet/pupil", "worksheet", True),
        ("worksheet/pupil", "tasks.worksheet:Worksheet", True),
        ("worksheet/pupil", "kitchen", False),
        ("Qwen/Qwen2.5-0.5B-Instruct", "worksheet", False),
    ],
)
def test_a_model_is_made_for_the_task_that_it_ships_with(model: str, task: str, made: bool) -> None:
    assert is_made_for(model, task) is made


@pytest.mark.parametrize("task", ["effort", "hanabi", "kitchen", "tag", "worksheet"])
def test_other_models_are_told_the_rules_and_read_leniently(task: str) -> None:
    assert options_for(task, None, ["some/model"]) == TOLD


def test_embedded_models_keep_their_options_as_they_are() -> None:
    assert options_for("worksheet", None, ["worksheet/pupil"]) is None
    assert options_for("worksheet", {"turns": 8}, ["worksheet/pupil"]) == {"turns": 8}
    assert options_for("worksheet", None, ["worksheet/pupil", "worksheet/stranger"]) is None
    assert options_for("worksheet", None, ["worksheet/pupil", "some/model"]) == TOLD  # one was not made for it


def test_options_that_are_given_stay() -> None:
    assert options_for("worksheet", {"explain": False, "turns": 8}, ["m"]) == {**TOLD, "explain": False, "turns": 8}
    assert options_for("gsm8k", {"strict": True}, ["m"]) == {"strict": True, "explain": True}


def test_what_was_begun_without_the_rules_goes_on_without() -> None:
    assert options_for("kitchen", None, ["m"], before={"task_args": None}) is None
    assert options_for("kitchen", None, ["m"], before={"task_args": {"explain": True}}) == {"explain": True}


def test_a_task_of_ones_own_keeps_its_options() -> None:
    assert options_for("mine.py:Mine", {"explain": "?"}, ["m"]) == {"explain": "?"}


def test_the_run_records_what_its_model_was_told(tmp_path: Any) -> None:
    train(
        None,
        task="worksheet",
        model_name_or_path=str(qwen2_folder()),
        output_dir=tmp_path / "run",
        max_steps=1,
        problems_per_step=2,
        num_generations=2,
        max_completion_length=8,
        arm="untrained",
        use_cpu=True,
        bf16=False,
        lora_r=4,
        report_to="none",
        disable_tqdm=True,
    )
    assert Run.open(tmp_path / "run").config["task_args"] == TOLD
