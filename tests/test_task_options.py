"""What shipped tasks refuse alike: options of another kind or out of range, splits and counts that cannot be."""

from typing import Any

import pytest

from llm_sra.task import Task
from tasks.effort import Effort
from tasks.gsm8k import GSM8K
from tasks.hanabi import Hanabi
from tasks.kitchen import Kitchen
from tasks.options import check_numbers, check_switches, check_whole
from tasks.tag import Tag
from tasks.wordlist import WordList
from tasks.worksheet import Worksheet

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("task", [Effort, GSM8K, Hanabi, Kitchen, Tag, WordList, Worksheet])
def test_an_unknown_split_and_a_count_below_0_are_refused(task: type[Task]) -> None:
    with pytest.raises(ValueError, match="split must be one of train, dev, test, got 'validation'"):
        task().problems("validation")
    with pytest.raises(ValueError, match=r"count must be 0 or more .*, got -1"):
        task().problems("dev", -1)


@pytest.mark.parametrize(
    ("value", "least", "most", "told"),
    [
        (1, 1, None, None),
        (0, 1, None, "must be 1 or more, got 0"),
        (5, 2, 5, None),
        (6, 2, 5, "must be from 2 to 5, got 6"),
        (1, 2, 5, "must be from 2 to 5, got 1"),
        (-3, None, None, None),
        (1.0, 1, None, "must be a whole number, got 1.0"),
        (True, 1, None, "must be a whole number, got True"),
        ("1", 1, None, "must be a whole number, got '1'"),
    ],
)
def test_whole_numbers(value: Any, least: int | None, most: int | None, told: str | None) -> None:
    check(lambda: check_whole("game", least, most, lives=value), told)


@pytest.mark.parametrize(
    ("value", "most", "told"),
    [
        (0, INFINITE, None),
        (2.5, INFINITE, None),
        (-0.1, INFINITE, "must be finite and 0 or more, got -0.1"),
        (NAN, INFINITE, "must be finite and 0 or more, got nan"),
        (INFINITE, INFINITE, "must be finite and 0 or more, got inf"),
        (1, 1.0, None),
        (1.5, 1.0, "must be in [0, 1], got 1.5"),
        (NAN, 1.0, "must be in [0, 1], got nan"),
        ("x", INFINITE, "must be a number, got 'x'"),
        (True, INFINITE, "must be a number, got True"),
    ],
)
def test_numbers(value: Any, most: float, told: str | None) -> None:
    check(lambda: check_numbers("game", most, lives=value), told)


def test_switches() -> None:
    check(lambda: check_switches("game", lives=False), None)
    check(lambda: check_switches("game", strict=True, lives=1), "must be true or false, got 1")


def check(checked: Any, told: str | None) -> None:
    """Whether a check of the option `lives` passes, or says this."""
    if told is None:
        checked()
        return
    with pytest.raises((TypeError, ValueError)) as error:
        checked()
    assert str(error.value) == f"game option `lives` {told}"
