"""The world of tag as values: mpe2's `simple_tag_v3` with two chasers and one runner, stepped by mpe2's own physics.

This module knows neither text nor rewards, nor who chooses the moves. mpe2 keeps its world in mutable objects; here
each step makes new ones, so a step is a pure function.

Lengths are mpe2's: the field reaches from -1 to 1 in x (to the right) and y (upwards), and has no walls. A step takes
0.1 of the unit of time; chasers go up to 1.0 a unit of time, the runner up to 1.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

Move = Literal["stay", "left", "right", "down", "up"]
Point = tuple[float, float]

# The order is that of mpe2's discrete actions 0 to 4; each has the direction of its force.
DIRECTIONS: dict[Move, Point] = {
    "stay": (0.0, 0.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "down": (0.0, -1.0),
    "up": (0.0, 1.0),
}
MOVES: tuple[Move, ...] = tuple(DIRECTIONS)
STAY: Move = "stay"


@dataclass(frozen=True, slots=True)
class Body:
    """One player.

    Attributes:
        place: Its centre.
        speed: Its speed along x and y, per unit of time.
    """

    place: Point
    speed: Point = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Field:
    """Places and speeds of all bodies.

    Attributes:
        chasers: mpe2's `adversary_0` and `adversary_1`.
        runner: mpe2's `agent_0`.
        rocks: Centres of mpe2's landmarks, which are round, solid and fixed.
    """

    chasers: tuple[Body, Body]
    runner: Body
    rocks: tuple[Point, ...]


@cache
def scenario() -> Any:
    """mpe2's rules of the game, without any state of an episode.

    Raises:
        ValueError: If mpe2 is not installed; says how to install it.
    """
    try:
        from mpe2.simple_tag.simple_tag import Scenario
    except ImportError as error:
        raise ValueError(
            f"the task `tag` needs the package mpe2, which cannot be imported ({error}): pip install 'mpe2==1.1.*'"
        ) from error
    return Scenario()


def scatter(seed: int, rocks: int) -> Field:
    """The start of an episode: that of mpe2's environment after `reset(seed=seed)`, with all bodies at rest.

    Args:
        seed: The seed, 0 or more.
        rocks: Number of rocks.
    """
    world = scenario().make_world(1, 2, rocks)
    scenario().reset_world(world, np.random.default_rng(seed))
    return _read(world)


def step(field: Field, chases: Sequence[Move], flight: Move) -> tuple[Field, tuple[bool, bool]]:
    """One step of mpe2's world.

    Args:
        field: The field before the step, without two bodies at one point.
        chases: The moves of the two chasers.
        flight: The move of the runner.

    Returns:
        The field after the step, and for each chaser whether it then touches the runner.
    """
    world = _set_up(field)
    for agent, move in zip(world.agents, (*chases, flight), strict=True):
        agent.action.u = np.array(DIRECTIONS[move]) * agent.accel
        agent.action.c = np.zeros(world.dim_c)
    world.step()
    first, second, runner = world.agents
    touch = scenario().is_collision
    return _read(world), (bool(touch(first, runner)), bool(touch(second, runner)))


def _set_up(field: Field) -> Any:
    world = scenario().make_world(1, 2, len(field.rocks))
    bodies = (*field.chasers, field.runner, *map(Body, field.rocks))
    for entity, body in zip(world.entities, bodies, strict=True):
        entity.state.p_pos, entity.state.p_vel = np.array(body.place), np.array(body.speed)
    return world


def _read(world: Any) -> Field:
    first, second, runner = (Body(_point(a.state.p_pos), _point(a.state.p_vel)) for a in world.agents)
    return Field((first, second), runner, tuple(_point(rock.state.p_pos) for rock in world.landmarks))


def _point(pair: np.ndarray) -> Point:
    return float(pair[0]), float(pair[1])
