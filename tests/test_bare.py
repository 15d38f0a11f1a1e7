"""Signs that models put around a reply: each task reads it by its own rule, and no sign changes what is said."""

from collections.abc import Callable, Sequence

import pytest

from tasks.bare import bare
from tasks.effort import Effort
from tasks.hanabi.words import move_text
from tasks.hanabi.words import read_move as hanabi_move
from tasks.moves import read_move
from tasks.wordlist.words import category
from tasks.worksheet.sheet import read_line

AROUND = (
    "“{}”", "«{}»", "‘{}’", "({})", "{{{}}}", "• {}", "- {}", "> {}", "### {}", "~~{}~~", "**{}**", "`{}`", "{}…",
    "{}。", "\ufeff{}", "{}\u200b", "{}\r", "\u00a0{}",
)  # fmt: skip
EMOJI = ("{} \U0001f600", "\u2714\ufe0f {}")


def hanabi(reply: str) -> str | None:
    move = hanabi_move(reply)
    return None if move is None else move_text(move)


def effort(reply: str) -> str | None:
    game = Effort()
    return {0.0: "rest", 1.0: "work"}[game.outcome((reply, "rest")).effort["first"]]


def moves(reply: str) -> str | None:
    place = read_move(reply, ["Fold", "Bet 2"], strict=True)
    return None if place is None else ("fold", "bet 2")[place]


READERS: dict[str, tuple[Callable[[str], str | None], str]] = {
    "effort": (effort, "work"),
    "hanabi": (hanabi, "hint 1 red"),
    "moves": (moves, "bet 2"),
    "wordlist": (category("animals").find, "fox"),
    "worksheet": (read_line, "3+2=5"),
}


@pytest.mark.parametrize("task", READERS)
def test_signs_around_a_reply_do_not_matter(task: str) -> None:
    read, said = READERS[task]
    for form in AROUND + (() if task == "worksheet" else EMOJI):
        assert read(form.format(said)) == said, form
    assert read("".join(chr(ord(c) + 0xFEE0) if c > " " else "\u3000" for c in said)) == said  # full width
    for more in ("not {}", "{} or not", "{} {}"):
        assert read(more.format(said, said)) != said, more


@pytest.mark.parametrize(
    "line", ["-3+2=5", "3+2=5-", "+3+2=5", "3+2>=5", "3-+2=5", "1. 3+2=5", "Answer: 3+2=5", "3+2=5 \U0001f600"]
)
def test_signs_that_mean_something_on_a_worksheet_stay(line: str) -> None:
    assert read_line(line) == line


@pytest.mark.parametrize(
    ("reply", "names", "read"),
    [
        ("8h3c+", ("8h3c", "8h3c+"), "8h3c+"),  # shogi: + promotes
        ("8h3c+.", ("8h3c", "8h3c+"), "8h3c+"),
        ("“8h3c”", ("8h3c+", "8h3c"), "8h3c"),
        ("bG2 wS1-", ("bG2 wS1\\", "bG2 wS1-", "bG2 -wS1"), "bG2 wS1-"),  # hive: signs are sides
        ("bG2 wS1.", ("bG2 wS1\\", "bG2 wS1-"), None),
        ("1", ("-1", "0", "1"), "1"),
        ("-1!", ("-1", "0", "1"), "-1"),
        ("**↑**", ("↑", "↓"), "↑"),
        ("...", ("↑",), None),
        ("", ("↑", "a"), None),
        ("1", ("[1]", "[2]"), "[1]"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_signs_that_tell_moves_apart_are_part_of_them(
    reply: str, names: Sequence[str], read: str | None, strict: bool
) -> None:
    place = read_move(reply, names, strict)
    assert (None if place is None else names[place]) == read


@pytest.mark.parametrize(
    ("reply", "read"),
    [("I promote: 8h3c+", "8h3c+"), ("I go 8h3c now", "8h3c"), ("8h3c+ or 2b5e", None), ("I say 12", None)],
)
def test_in_a_sentence_a_move_is_the_longest_that_stands_there(reply: str, read: str | None) -> None:
    names = ["8h3c", "8h3c+", "2b5e", "1"]
    place = read_move(reply, names, strict=False)
    assert (None if place is None else names[place]) == read


def test_a_text_without_letters_is_bare_of_all() -> None:
    assert (bare(" \u201c...\u201d "), bare("\u00e9!"), bare("(e\u0301)"), bare("a - b")) == (
        "",
        "\u00e9",
        "\u00e9",
        "a - b",
    )
