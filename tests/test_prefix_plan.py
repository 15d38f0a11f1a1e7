"""A plan reads every common beginning once: the examples are small enough to follow by hand."""

import random
from typing import Any

import numpy as np
import pytest

from llm_sra.trainer.prefix_plan import Costs, Plan, plan

LARGE = Costs(hidden=4096)  # a pass, attention and copies cost next to nothing
SMALL = Costs(hidden=16)  # a pass costs as much as 3,906 tokens


def rows_of(*rows: str) -> list[Any]:
    """A token for each letter."""
    return [np.array([ord(letter) for letter in row], dtype=np.int64) for row in rows]


def read(found: Plan) -> list[str]:
    """What each row's slots hold."""
    letters = [chr(token) for level in found.levels for token in level.ids.flatten()]
    return ["".join(letters[slot] for slot in slots) for slots in found.slots]


def seen(found: Plan, slot: int) -> set[int]:
    """The slots that a slot's token sees: what its line follows, and what stands before it in its segment."""
    at = 0
    for level in found.levels:
        lines, columns = level.ids.shape
        if slot < at + lines * columns:
            line, column = divmod(slot - at, columns)
            mine = level.segments[line] == level.segments[line, column]
            within = {at + line * columns + i for i in range(column + 1) if mine[i]}
            return within | set(level.known[line][level.known[line] >= 0].tolist())
        at += lines * columns
    raise AssertionError(slot)


def test_what_all_rows_share_is_read_once_and_each_rest_by_itself() -> None:
    rows = rows_of("x" * 40 + "ab", "x" * 40 + "cde", "x" * 40 + "f")
    found = plan(rows, LARGE)
    assert [level.ids.shape for level in found.levels] == [(1, 40), (1, 6)]  # 6 = ab, cde, f side by side
    assert found.levels[1].segments.tolist() == [[0, 0, 1, 1, 1, 2]]
    assert found.levels[1].positions.tolist() == [[40, 41, 40, 41, 42, 40]]
    assert found.levels[1].known.tolist() == [list(range(40))]


def test_groups_share_what_they_have_in_common_beyond_what_all_have() -> None:
    one, other = "x" * 40 + "y" * 30, "x" * 40 + "z" * 20
    found = plan(rows_of(one + "a", one + "b", other + "a", other + "b"), LARGE)
    # y and z follow the same 40 tokens, but do not fit into a line of 30; the rests follow different groups.
    assert [level.ids.shape for level in found.levels] == [(1, 40), (2, 30), (2, 2)]
    assert (found.levels[2].known >= 0).sum(axis=1).tolist() == [70, 60]


def test_a_row_that_is_there_twice_and_one_that_begins_another_are_not_read_again() -> None:
    row = "abcdefgh" * 10
    found = plan(rows_of(row, row, row[:40]), LARGE)
    assert sum((level.segments >= 0).sum() for level in found.levels) == 80
    assert found.slots[0].tolist() == found.slots[1].tolist()
    assert found.slots[2].tolist() == found.slots[0].tolist()[:40]


def test_a_row_without_a_group_does_not_make_the_rests_long() -> None:
    # The single row goes as far as the group of 30 reaches; what is left of it is as short as the others' rests.
    rows = rows_of(*("x" * 30 + letter for letter in "abcdefgh"), "y" * 31)
    found = plan(rows, LARGE)
    assert [level.ids.shape for level in found.levels] == [(2, 30), (2, 8)]


def test_a_beginning_that_is_too_short_to_pay_for_a_pass_is_not_shared() -> None:
    rows = rows_of(*("xxxx" + letter * 30 for letter in "abcd"))
    assert len(plan(rows, SMALL).levels) == 1
    assert len(plan(rows_of(*("x" * 4000 + letter for letter in "abcd")), SMALL).levels) == 2


@pytest.mark.parametrize("costs", [LARGE, SMALL])
def test_every_token_sees_exactly_the_tokens_before_it_in_its_row(costs: Costs) -> None:
    rng = random.Random(1)
    for _ in range(60):
        beginnings = ["".join(rng.choices("ab", k=rng.randint(1, 12))) for _ in range(3)]
        texts = [rng.choice(beginnings) + "".join(rng.choices("abc", k=rng.randint(0, 6))) for _ in range(9)]
        found = plan(rows_of(*texts), costs)
        assert read(found) == texts
        for text, slots in zip(texts, found.slots, strict=True):
            for place, slot in enumerate(slots.tolist()):
                assert seen(found, slot) == set(slots[: place + 1].tolist()), (texts, text, place)


def test_the_order_of_rows_does_not_change_how_much_is_read() -> None:
    rows = rows_of("aaaab", "aaaac", "zz", "aaaab")
    assert plan(rows, LARGE).cost == plan(rows[::-1], LARGE).cost
