"""The observation of a seat in the kitchen: written as text, read from text; and which move a reply names.

Task and partners share it. It knows neither rules nor rewards.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.kitchen.grid import MOVES, PLACES, POT, Cell, Floor

_HAND = {False: "empty", True: "onion"}
_PLACE = {False: "away", True: "there"}


@dataclass(frozen=True, slots=True)
class Sight:
    """The floor as one of the two players observes it.

    Attributes:
        own: The player's own cell.
        other: The other player's cell.
        own_holds: Whether the player has an onion in its hand.
        other_holds: Whether the other player has one.
        onions: The places with an onion.
    """

    own: Cell
    other: Cell
    own_holds: bool
    other_holds: bool
    onions: frozenset[Cell]


def look(floor: Floor, name: str) -> Sight:
    """The observation of a player: everything on the floor."""
    own = floor.cooks[name]
    (other,) = (cook for key, cook in floor.cooks.items() if key != name)
    return Sight(own.cell, other.cell, own.holds, other.holds, floor.onions)


def write(sight: Sight) -> str:
    """An observation as eight short lines: cells as `x,y`, the last line names the moves."""
    lines = [
        f"you {_cell(sight.own)}",
        f"other {_cell(sight.other)}",
        f"your hand {_HAND[sight.own_holds]}",
        f"other hand {_HAND[sight.other_holds]}",
        *(f"onion {_cell(place)} {_PLACE[place in sight.onions]}" for place in PLACES),
        f"pot {_cell(POT)}",
        f"{', '.join(MOVES[:-1])} or {MOVES[-1]}?",
    ]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    return f"{cell[0]},{cell[1]}"


def _pattern() -> re.Pattern[str]:
    """A pattern of the text of `write`, made from an example."""
    text = re.escape(write(Sight((0, 0), (0, 0), False, False, frozenset())))
    for shown, form in (("0,0", "([0-4]),([0-4])"), ("empty", "(empty|onion)"), ("away", "(there|away)")):
        text = text.replace(shown, form)
    return re.compile(text)


_SIGHT = _pattern()


def read(messages: Sequence[Mapping[str, str]]) -> Sight:
    """The observation in a seat's last message; text above a blank line, such as the rules, is skipped.

    Raises:
        ValueError: If the message is not one of this task.
    """
    shown = messages[-1]["content"] if messages else ""
    match = _SIGHT.fullmatch(shown.rpartition("\n\n")[2])
    if match is None:
        raise ValueError(
            f"the kitchen shows eight lines, the first like 'you 1,0', got {shown[:80]!r}: "
            "the kitchen's partners play in the kitchen only"
        )
    x, y, other_x, other_y, own_hand, other_hand, *places = match.groups()
    return Sight(
        own=(int(x), int(y)),
        other=(int(other_x), int(other_y)),
        own_holds=own_hand == _HAND[True],
        other_holds=other_hand == _HAND[True],
        onions=frozenset(place for place, shown in zip(PLACES, places, strict=True) if shown == _PLACE[True]),
    )
