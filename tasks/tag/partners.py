"""Scripted partners for a chaser's seat. Each reads the text of its view alone and keeps no memory.

The view shows no clock, so none of them knows how much of the episode is over. None steers around rocks: they are
round, and a chaser that pushes against one slides along it. All but the interceptor ignore that bodies keep moving.
"""

import random
from collections.abc import Callable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.tag.sight import Pair, read
from tasks.tag.world import MOVES, STAY, Move

AHEAD = 0.3  # how far ahead the interceptor looks, in units of time: three steps


class Hunter(ScriptedPartner):
    """Goes straight at the runner, as if it were alone."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return towards(read(messages).runner, rng)


class Interceptor(ScriptedPartner):
    """Goes where the runner will be in three steps, relative to itself, if both keep their speeds."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = read(messages)
        drift = zip(sight.runner, sight.runner_speed, sight.own_speed, strict=True)
        x, y = (place + AHEAD * (runs - own) for place, runs, own in drift)
        return towards((x, y), rng)


class Shadow(ScriptedPartner):
    """Follows the other chaser and ignores the runner."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return towards(read(messages).other, rng)


class Waiter(ScriptedPartner):
    """Stays: the free-rider."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return STAY


class HalfTimer(ScriptedPartner):
    """Makes the hunter's move with probability 0.5 at each step; else it stays."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return Hunter().reply(messages, rng) if rng.random() < 0.5 else STAY


class RandomWalker(ScriptedPartner):
    """Says any of the five words, each with probability 0.2."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return rng.choice(MOVES)


def towards(goal: Pair | tuple[float, float], rng: random.Random) -> Move:
    """The move along the axis on which the goal is farther away; `stay` on the goal.

    Args:
        goal: The goal relative to the chaser.
        rng: Draws an axis if the goal is equally far on both.
    """
    x, y = goal
    if x == y == 0:
        return STAY
    along_x = abs(x) > abs(y) or (abs(x) == abs(y) and rng.random() < 0.5)
    if along_x:
        return "right" if x > 0 else "left"
    return "up" if y > 0 else "down"


PARTNERS: Mapping[str, Callable[[], ScriptedPartner]] = {
    "hunter": Hunter,
    "interceptor": Interceptor,
    "shadow": Shadow,
    "waiter": Waiter,
    "half_timer": HalfTimer,
    "random_walker": RandomWalker,
}
