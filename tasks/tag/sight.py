"""The observation of a chaser: written as text, read from text; and which move a reply names.

Task and partners share it. It knows neither rules nor rewards.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.tag.world import MOVES, Field, Point

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sight:
    """mpe2's observation of a chaser, in whole numbers: multiples of the last decimal that is shown.

    Attributes:
        own: The chaser's place.
        own_speed: The chaser's speed along x and y.
        other: The other chaser relative to this one: x to the right, y upwards.
        runner: The runner relative to this chaser.
        runner_speed: The runner's speed along x and y.
        rocks: The rocks relative to this chaser.
    """

    own: Pair
    own_speed: Pair
    other: Pair
    runner: Pair
    runner_speed: Pair
    rocks: tuple[Pair, ...] = ()


def look(field: Field, seat: int, decimals: int) -> Sight:
    """The observation of a chaser.

    Args:
        field: Places and speeds of all bodies.
        seat: Number of the chaser that observes, 0 or 1.
        decimals: Number of decimals that are kept; the rest is rounded.
    """
    me, other = field.chasers[seat], field.chasers[1 - seat]

    def shown(point: Point, origin: Point = (0.0, 0.0)) -> Pair:
        x, y = (round((a - b) * 10**decimals) for a, b in zip(point, origin, strict=True))
        return x, y

    return Sight(
        own=shown(me.place),
        own_speed=shown(me.speed),
        other=shown(other.place, me.place),
        runner=shown(field.runner.place, me.place),
        runner_speed=shown(field.runner.speed),
        rocks=tuple(shown(rock, me.place) for rock in field.rocks),
    )


def write(sight: Sight) -> str:
    """An observation as short lines: a name, a place and, for itself and the runner, a speed. The last line asks.

    Decimals have no point: with one decimal, `4 -3` is 0.4, -0.3.
    """
    lines = [
        _line("you", sight.own, sight.own_speed),
        _line("other", sight.other),
        _line("runner", sight.runner, sight.runner_speed),
        *(_line("rock", rock) for rock in sight.rocks),
        f"{' '.join(MOVES)}?",
    ]
    return "\n".join(lines)


def _line(name: str, *pairs: Pair) -> str:
    return " ".join([name, *(f"{x} {y}" for x, y in pairs)])


_NUMBER = "(-?[0-9]+)"
_PAIR = f" {_NUMBER} {_NUMBER}"
_SIGHT = re.compile(
    f"you{_PAIR}{_PAIR}\nother{_PAIR}\nrunner{_PAIR}{_PAIR}\n((?:rock{_PAIR}\n)*){re.escape(' '.join(MOVES))}\\?"
)
_ROCK = re.compile(f"rock{_PAIR}")


def read(messages: Sequence[Mapping[str, str]]) -> Sight:
    """The observation in a seat's last message; text above a blank line, such as the rules, is skipped.

    Raises:
        ValueError: If the message is not one of this task.
    """
    shown = messages[-1]["content"] if messages else ""
    match = _SIGHT.fullmatch(shown.rpartition("\n\n")[2])
    if match is None:
        raise ValueError(
            f"tag shows a line like 'you 4 -3 0 10', then others, got {shown[:80]!r}: tag's partners play tag only"
        )
    numbers = [int(number) for number in match.groups()[:10]]
    own, own_speed, other, runner, runner_speed = zip(numbers[::2], numbers[1::2], strict=True)
    rocks = tuple((int(x), int(y)) for x, y in _ROCK.findall(match.group(11)))
    return Sight(own, own_speed, other, runner, runner_speed, rocks)
