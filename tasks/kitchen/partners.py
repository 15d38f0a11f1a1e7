"""Scripted partners for the kitchen. Each reads the text of its view alone and keeps no memory.

The view shows no clock, so none of them knows how much of the episode is over. Where several moves are equally good,
`rng` draws one: two partners that want past each other would else step aside in the same direction for ever.
"""

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.kitchen.grid import MOVES, OFFSETS, PLACES, POT, STAY, Cell, Move, neighbour, on_grid
from tasks.kitchen.sight import Sight, read

RING: tuple[Cell, ...] = ((1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2))  # clockwise round the pot


class Courier(ScriptedPartner):
    """Does all alone: fetches the nearest onion, brings it to the pot, and so on.

    It takes a shortest path around the pot and the cell on which the other stands. While no onion can be fetched it
    walks to the nearest place and waits on it.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = read(messages)
        return deliver(sight, rng) if sight.own_holds else fetch(sight, PLACES, rng)


class Waiter(ScriptedPartner):
    """Stays where it is: the free-rider."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return STAY


class Blocker(ScriptedPartner):
    """Means no harm, but paces clockwise round the pot, on the cells beside it and the four between them.

    It never carries an onion, and stops for a step when the other stands on its next cell.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = read(messages)
        if sight.own not in RING:
            return towards(sight, RING, rng)
        following = RING[(RING.index(sight.own) + 1) % len(RING)]
        return STAY if following == sight.other else towards(sight, (following,), rng)


class HalfTimer(ScriptedPartner):
    """At each step, with probability 0.5, the courier's move; else it stays."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return Courier().reply(messages, rng) if rng.random() < 0.5 else STAY


class OneOnion(ScriptedPartner):
    """A courier that fetches only the onion at (3,4), and waits there while it is away.

    With an empty hand it walks around the other place, on which it would pick up what is not its own.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = read(messages)
        own, foreign = PLACES
        return deliver(sight, rng) if sight.own_holds else fetch(sight, (own,), rng, shun=(foreign,))


class RandomWalker(ScriptedPartner):
    """Any of the five words, each with probability 0.2, whatever it sees."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return rng.choice(MOVES)


def deliver(sight: Sight, rng: random.Random) -> Move:
    """The next move on a shortest path into the pot."""
    return towards(sight, (POT,), rng)


def fetch(sight: Sight, places: Collection[Cell], rng: random.Random, shun: Collection[Cell] = ()) -> Move:
    """The next move to the nearest of these places at which an onion lies, or to the nearest if none does.

    Places on which the other stands do not count.
    """
    free = [place for place in places if place != sight.other]
    return towards(sight, [place for place in free if place in sight.onions] or free, rng, shun)


def towards(sight: Sight, goals: Iterable[Cell], rng: random.Random, shun: Collection[Cell] = ()) -> Move:
    """The next move on a shortest path to the nearest goal; `stay` on a goal, and where no path leads to one.

    Args:
        sight: What the seat sees; the cell of the other is no way.
        goals: Cells to stand on, or the pot to walk into.
        rng: Draws one of the moves that are equally good.
        shun: Further cells that are no way, but for leaving one.
    """
    left = distances(goals, {sight.other, *shun} - {sight.own})
    if not left.get(sight.own):
        return STAY
    good = [move for move in OFFSETS if left.get(neighbour(sight.own, move)) == left[sight.own] - 1]
    return rng.choice(good)


def distances(goals: Iterable[Cell], blocked: Collection[Cell]) -> Mapping[Cell, int]:
    """How many moves each cell is away from the nearest goal, by breadth-first search around the pot.

    Args:
        goals: Where the moves end; the pot may be one of them, and is then entered by the last move only.
        blocked: Cells, beside the pot, that no path crosses and no path ends on.

    Returns:
        By cell, 0 for the goals; cells from which no path leads to a goal are missing.
    """
    left = {goal: 0 for goal in goals if goal not in blocked}
    queue = deque(left)
    while queue:
        cell = queue.popleft()
        for move in OFFSETS:
            beside = neighbour(cell, move)
            if on_grid(beside) and beside != POT and beside not in blocked and beside not in left:
                left[beside] = left[cell] + 1
                queue.append(beside)
    return left


PARTNERS: Mapping[str, Callable[[], ScriptedPartner]] = {
    "courier": Courier,
    "waiter": Waiter,
    "blocker": Blocker,
    "half_timer": HalfTimer,
    "one_onion": OneOnion,
    "random_walker": RandomWalker,
}
