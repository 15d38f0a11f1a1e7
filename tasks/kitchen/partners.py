"""Scripted partners for the kitchen. Each reads the text of its view alone and keeps no memory.

The view shows no clock, so none of them knows how much of the episode is over. If several moves are equally good, `rng`
draws one: otherwise two partners that block each other could step aside in the same direction forever.
"""

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.kitchen.grid import MOVES, OFFSETS, PLACES, POT, STAY, Cell, Move, neighbour, on_grid
from tasks.kitchen.sight import Sight, read

RING: tuple[Cell, ...] = ((1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2))  # clockwise around the pot


class Courier(ScriptedPartner):
    """Works alone: fetches the nearest onion, brings it to the pot, and repeats this.

    It takes a shortest path around the pot and the other player. While there is no onion to fetch, it walks to the
    nearest place and waits on it.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = read(messages)
        return deliver(sight, rng) if sight.own_holds else fetch(sight, PLACES, rng)


class Waiter(ScriptedPartner):
    """Stays where it is: the free-rider."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return STAY


class Blocker(ScriptedPartner):
    """Gets in the way without collisions: paces clockwise around the pot, on the eight cells around it.

    It never carries an onion, and waits a step if the other player stands on its next cell.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = read(messages)
        if sight.own not in RING:
            return towards(sight, RING, rng)
        following = RING[(RING.index(sight.own) + 1) % len(RING)]
        return STAY if following == sight.other else towards(sight, (following,), rng)


class HalfTimer(ScriptedPartner):
    """Makes the courier's move with probability 0.5 at each step; else it stays."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return Courier().reply(messages, rng) if rng.random() < 0.5 else STAY


class OneOnion(ScriptedPartner):
    """A courier that fetches only the onion at (3,4), and waits there if there is none.

    With an empty hand it avoids the other place, where it would pick up the other onion.
    """

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = read(messages)
        own, foreign = PLACES
        return deliver(sight, rng) if sight.own_holds else fetch(sight, (own,), rng, avoid=(foreign,))


class RandomWalker(ScriptedPartner):
    """Says any of the five words, each with probability 0.2."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return rng.choice(MOVES)


def deliver(sight: Sight, rng: random.Random) -> Move:
    """The next move on a shortest path into the pot."""
    return towards(sight, (POT,), rng)


def fetch(sight: Sight, places: Collection[Cell], rng: random.Random, avoid: Collection[Cell] = ()) -> Move:
    """The next move to the nearest of these places with an onion, or to the nearest place if none has one.

    Places on which the other player stands are left out.
    """
    free = [place for place in places if place != sight.other]
    return towards(sight, [place for place in free if place in sight.onions] or free, rng, avoid)


def towards(sight: Sight, goals: Iterable[Cell], rng: random.Random, avoid: Collection[Cell] = ()) -> Move:
    """The next move on a shortest path to the nearest goal; `stay` on a goal, and where no path leads to one.

    Args:
        sight: What the seat sees; the other player's cell is blocked.
        goals: Cells to stand on, or the pot to walk into.
        rng: Draws one of the moves that are equally good.
        avoid: Further cells that are blocked, except that the player may leave one.
    """
    left = distances(goals, {sight.other, *avoid} - {sight.own})
    if not left.get(sight.own):
        return STAY
    good = [move for move in OFFSETS if left.get(neighbour(sight.own, move)) == left[sight.own] - 1]
    return rng.choice(good)


def distances(goals: Iterable[Cell], blocked: Collection[Cell]) -> Mapping[Cell, int]:
    """The number of moves from each cell to the nearest goal, by breadth-first search around the pot.

    Args:
        goals: Where paths end. The pot may be one of them; only the last move can enter it.
        blocked: Cells, in addition to the pot, on which no path may pass or end.

    Returns:
        The moves of each cell, 0 for the goals; cells without a path to a goal are missing.
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
