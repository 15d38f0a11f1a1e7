"""The rules of the kitchen's grid: pure functions from a floor and moves to a floor and deeds.

Source: the kitchen grid world of arXiv 2602.21515. This module does not know text, rewards, problems or policies.

A cell is (x, y): x counts from the left, y from the top, both from 0 to 4. `up` takes 1 from y, `down` adds 1 to it,
`left` takes 1 from x, `right` adds 1 to it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Cell = tuple[int, int]
Move = Literal["up", "down", "left", "right", "stay"]

SIZE = 5
POT: Cell = (2, 2)
PLACES: tuple[Cell, Cell] = ((3, 4), (4, 3))
STARTS: tuple[Cell, Cell] = ((1, 0), (0, 1))
STAY: Move = "stay"
OFFSETS: Mapping[Move, Cell] = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}
MOVES: tuple[Move, ...] = (*OFFSETS, STAY)


@dataclass(frozen=True, slots=True)
class Cook:
    """One player.

    Attributes:
        cell: Where it stands.
        holds: Whether it has an onion in its hand; a hand holds one.
    """

    cell: Cell
    holds: bool = False


@dataclass(frozen=True, slots=True)
class Floor:
    """What lies and stands where.

    Attributes:
        cooks: The players by name, no two on one cell, none on the pot.
        onions: Those of `PLACES` at which an onion lies.
    """

    cooks: Mapping[str, Cook]
    onions: frozenset[Cell] = frozenset(PLACES)


@dataclass(frozen=True, slots=True)
class Deeds:
    """What one player did, counted.

    Attributes:
        moves: Directions taken, blocked ones and deliveries included; staying is none.
        pickups: Onions taken from their places.
        deliveries: Onions brought to the pot.
        collisions: Moves into another player.
    """

    moves: int = 0
    pickups: int = 0
    deliveries: int = 0
    collisions: int = 0

    def __add__(self, other: "Deeds") -> "Deeds":
        return Deeds(
            self.moves + other.moves,
            self.pickups + other.pickups,
            self.deliveries + other.deliveries,
            self.collisions + other.collisions,
        )


def neighbour(cell: Cell, move: Move) -> Cell:
    """The cell that a direction leads to, be it on the grid or not."""
    dx, dy = OFFSETS[move]
    return cell[0] + dx, cell[1] + dy


def on_grid(cell: Cell) -> bool:
    """Whether a cell is one of the 25."""
    return all(0 <= place < SIZE for place in cell)


def act(floor: Floor, name: str, move: Move) -> tuple[Floor, Deeds]:
    """One player's move.

    A move off the grid, into the pot or into another player is blocked: the player keeps its cell, and has moved all
    the same. Into the pot with an onion delivers it; into another player is a collision of the one that moves. After
    its action, `stay` included, a player with an empty hand takes the onion of the place that it stands on.

    Returns:
        The new floor, and what the player did.
    """
    cook = floor.cooks[name]
    others = {other.cell for key, other in floor.cooks.items() if key != name}
    deeds = Deeds()
    if move != STAY:
        target = neighbour(cook.cell, move)
        deeds = Deeds(moves=1, deliveries=int(target == POT and cook.holds), collisions=int(target in others))
        if target == POT:
            cook = replace(cook, holds=False)
        elif on_grid(target) and target not in others:
            cook = replace(cook, cell=target)
    onions = floor.onions
    if cook.cell in onions and not cook.holds:
        cook, onions = replace(cook, holds=True), onions - {cook.cell}
        deeds += Deeds(pickups=1)
    return Floor({**floor.cooks, name: cook}, onions), deeds


def resolve(floor: Floor, moves: Mapping[str, Move], order: Sequence[str]) -> tuple[Floor, Mapping[str, Deeds]]:
    """The players' moves one after another, each on the floor that the ones before it left.

    Args:
        floor: Before the first of them.
        moves: By player.
        order: Every player once.

    Returns:
        The floor after the last, and what each player did.
    """
    deeds: dict[str, Deeds] = {}
    for name in order:
        floor, deeds[name] = act(floor, name, moves[name])
    return floor, deeds


def step(
    floor: Floor, moves: Mapping[str, Move], onion_returns: float, rng: random.Random
) -> tuple[Floor, Mapping[str, Deeds]]:
    """All players move, in an order drawn from `rng`; then each empty place gets an onion back.

    Args:
        floor: Before the step.
        moves: By player.
        onion_returns: Probability, in [0, 1], that a place that is empty after the moves has an onion again at the
            next step, whatever is in the hands.
        rng: Draws the order first, then one number for each empty place, in the order of `PLACES`.

    Returns:
        The floor after the step, and what each player did.
    """
    floor, deeds = resolve(floor, moves, rng.sample(tuple(floor.cooks), len(floor.cooks)))
    back = {place for place in PLACES if place not in floor.onions and rng.random() < onion_returns}
    return replace(floor, onions=floor.onions | back), deeds
