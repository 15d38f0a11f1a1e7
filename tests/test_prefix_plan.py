"""A plan reads every common beginning once: the examples are small enough to follow by hand."""

import random
from typing import Any

import numpy as np
import pytest

from llm_sra.trainer.prefix_plan import Costs, Plan, plan


class Deep(Costs):
    """Passes are free and attention is dear: so plans have several levels, with lines of 2 sqrt(known) columns."""

    attention, copy, one_pass = 1.0, 4.0, 0.0


class Pass(Costs):
    """As `Deep`, and a pass costs as much as a thousand tokens."""

    attention, copy, one_pass = 1e-3, 1e-5, 1000.0


DEEP = Deep(hidden=1)
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
    """The slots that a slot's token sees: what its line follows, and what it sees of that."""
    at = 0
    for level in found.levels:
        lines, columns = level.ids.shape
        if slot < at + lines * columns:
            line, column = divmod(slot - at, columns)
            within = {at + line * columns + int(i) for i in np.flatnonzero(level.within()[line, column])}
            return within | set(level.known[line][level.known[line] >= 0].tolist())
        at += lines * columns
    raise AssertionError(slot)


def test_what_all_rows_share_is_read_once_and_each_rest_by_itself() -> None:
    rows = rows_of("x" * 40 + "ab", "x" * 40 + "cde", "x" * 40 + "f")
    found = plan(rows, DEEP)
    assert [level.ids.shape for level in found.levels] == [(1, 40), (1, 6)]  # 6 = ab, cde, f side by side
    assert found.levels[1].segments.tolist() == [[0, 0, 1, 1, 1, 2]]
    assert found.levels[1].positions.tolist() == [[40, 41, 40, 41, 42, 40]]
    assert found.levels[1].known.tolist() == [list(range(40))]


def test_groups_share_what_they_have_in_common_beyond_what_all_have() -> None:
    one, other = "x" * 40 + "y" * 30, "x" * 40 + "z" * 20
    found = plan(rows_of(one + "a", one + "b", other + "a", other + "b"), DEEP)
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
    found = plan(rows, DEEP)
    assert [level.ids.shape for level in found.levels] == [(2, 30), (2, 8)]


def test_a_beginning_that_is_too_short_to_pay_for_a_pass_gets_none_of_its_own() -> None:
    for beginning, columns in ((4, [34]), (400, [400, 30])):
        found = plan(rows_of(*("x" * beginning + letter * 30 for letter in "abcd")), Pass(hidden=1))
        assert [level.ids.shape[1] for level in found.levels] == columns


@pytest.mark.parametrize("single_pass", [False, True])
@pytest.mark.parametrize("costs", [LARGE, SMALL, DEEP])
def test_every_token_sees_exactly_the_tokens_before_it_in_its_row(costs: Costs, single_pass: bool) -> None:
    rng = random.Random(1)
    for _ in range(60):
        beginnings = ["".join(rng.choices("ab", k=rng.randint(1, 12))) for _ in range(3)]
        texts = [rng.choice(beginnings) + "".join(rng.choices("abc", k=rng.randint(0, 6))) for _ in range(9)]
        found = plan(rows_of(*texts), costs, single_pass)
        assert read(found) == texts and (len(found.levels) == 1 or not single_pass)
        for text, slots in zip(texts, found.slots, strict=True):
            for place, slot in enumerate(slots.tolist()):
                assert seen(found, slot) == set(slots[: place + 1].tolist()), (texts, text, place)


def test_a_single_pass_reads_every_segment_once_and_nothing_to_fill_up() -> None:
    rows = rows_of("x" * 40 + "ab", "x" * 40 + "cde", "x" * 40 + "f", "y" * 9)
    [line] = plan(rows, LARGE, single_pass=True).levels
    assert line.ids.shape == (1, 40 + 2 + 3 + 1 + 9) and line.known.shape == (1, 0)
    assert sorted(line.positions[0].tolist()) == sorted([*range(40), 40, 41, 40, 41, 42, 40, *range(9)])


def test_the_order_of_rows_does_not_change_how_much_is_read() -> None:
    rows = rows_of("aaaab", "aaaac", "zz", "aaaab")
    assert plan(rows, LARGE).cost == plan(rows[::-1], LARGE).cost
