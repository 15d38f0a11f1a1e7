"""The runners. A runner is part of the environment, sees all of it, and chooses one of the five moves at each step.

`world` defines what a move does; `fit_runner` finds the weights of the trained runner.
"""

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tasks.tag.world import DIRECTIONS, MOVES, STAY, Body, Field, Move, Point

Runner = Callable[[Field, random.Random], Move]

AHEAD = 0.3  # the distance of a move that the fleeing runner assumes
EDGE = 0.9  # the distance from the centre at which mpe2's penalty begins
STORED = Path(__file__).parent / "runner.json"
WEIGHTS = 11  # of the trained runner


def flee(field: Field, rng: random.Random) -> Move:
    """The move that takes it farthest from the nearer chaser; the way beyond the edge counts twice against a move.

    It predicts where it would be a little later without the move, and takes the move as a step from there. It ignores
    rocks and the farther chaser, so it can be cornered, and caught between the two.
    """
    runner, chaser = field.runner, _by_distance(field)[0]
    drift = tuple(place + AHEAD * speed for place, speed in zip(runner.place, runner.speed, strict=True))

    def worth(move: Move) -> float:
        x, y = (place + AHEAD * push for place, push in zip(drift, DIRECTIONS[move], strict=True))
        over = max(0.0, abs(x) - EDGE) + max(0.0, abs(y) - EDGE)
        return math.dist((x, y), chaser.place) - 2 * over

    return max(MOVES, key=worth)


def walk_at_random(field: Field, rng: random.Random) -> Move:
    """Any of the five moves, each with probability 0.2."""
    return rng.choice(MOVES)


@dataclass(frozen=True, slots=True)
class Steered:
    """A linear policy: it adds up weighted vectors (`pulls`), and takes the move in the direction of the sum.

    Attributes:
        weights: One for each row of `pulls`; the last is the threshold that the sum must exceed on an axis for a move.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != WEIGHTS:
            raise ValueError(f"a trained runner has {WEIGHTS} weights, got {len(self.weights)}")

    def __call__(self, field: Field, rng: random.Random) -> Move:
        """The move; it does not depend on `rng`."""
        *weights, rest = self.weights
        x, y = np.array(weights) @ pulls(field)

        def worth(move: Move) -> float:
            along_x, along_y = DIRECTIONS[move]
            return rest if move == STAY else along_x * x + along_y * y

        return max(MOVES, key=worth)


def pulls(field: Field) -> np.ndarray:
    """The vectors that the trained runner weighs, of shape (WEIGHTS - 1, 2).

    The rows are: its place, its place cubed (which grows at the edge), its speed; for the nearer and then for the
    farther chaser the direction to it, that direction divided by its distance, and its speed; the direction to the
    nearest rock divided by its distance (0 if there is no rock).
    """
    runner = field.runner
    rows = [np.array(runner.place), np.array(runner.place) ** 3, np.array(runner.speed)]
    for chaser in _by_distance(field):
        way, distance = _way(runner, chaser.place)
        rows += [way, way / distance, np.array(chaser.speed)]
    rocks = [_way(runner, rock) for rock in field.rocks]
    way, distance = min(rocks, key=lambda rock: rock[1], default=(np.zeros(2), 1.0))
    return np.stack([*rows, way / distance])


@cache
def _trained() -> Steered:
    return Steered(tuple(json.loads(STORED.read_text(encoding="utf-8"))["weights"]))


def run_as_trained(field: Field, rng: random.Random) -> Move:
    """The move of the policy whose weights ship with the task."""
    return _trained()(field, rng)


def _by_distance(field: Field) -> list[Body]:
    return sorted(field.chasers, key=lambda chaser: math.dist(chaser.place, field.runner.place))


def _way(runner: Body, point: Point) -> tuple[np.ndarray, float]:
    """The direction from the runner to a point, as a vector of length 1, and the distance."""
    way = np.array(point) - np.array(runner.place)
    distance = float(np.hypot(*way))
    return way / distance, distance


RUNNERS: Mapping[str, Runner] = {"flee": flee, "random": walk_at_random, "trained": run_as_trained}
