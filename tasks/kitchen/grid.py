"""The rules of the kitchen's grid: pure functions from a floor and moves to a new floor and what each player did.

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
        holds: Whether it has an onion in its hand, which holds at most one.
    """

    cell: Cell
    holds: bool = False


@dataclass(frozen=True, slots=True)
class Floor:
    """The players and onions on the grid.

    Attributes:
        cooks: The players by name; no two on one cell, none on the pot.
        onions: The cells of `PLACES` with an onion.
    """

    cooks: Mapping[str, Cook]
    onions: frozenset[Cell] = frozenset(PLACES)


@dataclass(frozen=True, slots=True)
class Tally:
    """What one player did, counted.

    Attributes:
        moves: Moves in a direction, with blocked ones and deliveries; staying is not a move.
        pickups: Onions taken from their places.
        deliveries: Onions brought to the pot.
        collisions: Moves into another player.
    """

    moves: int = 0
    pickups: int = 0
    deliveries: int = 0
    collisions: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.moves + other.moves,
            self.pickups + other.pickups,
            self.deliveries + other.deliveries,
            self.collisions + other.collisions,
        )


def neighbour(cell: Cell, move: Move) -> Cell:
    """The cell in a direction, on the grid or off it."""
    dx, dy = OFFSETS[move]
    return cell[0] + dx, cell[1] + dy


def on_grid(cell: Cell) -> bool:
    """Whether a cell is one of the 25."""
    return all(0 <= place < SIZE for place in cell)


def act(floor: Floor, name: str, move: Move) -> tuple[Floor, Tally]:
    """One player's move.

    A move off the grid, into the pot or into another player is blocked: the player keeps its cell, but the move counts.
    Moving into the pot with an onion delivers the onion. Moving into another player is a collision of the player that
    moves. After any action, also `stay`, a player with an empty hand takes the onion of the place on which it stands.

    Returns:
        The new floor, and what the player did.
    """
    cook = floor.cooks[name]
    others = {other.cell for key, other in floor.cooks.items() if key != name}
    tally = Tally()
    if move != STAY:
        target = neighbour(cook.cell, move)
        tally = Tally(moves=1, deliveries=int(target == POT and cook.holds), collisions=int(target in others))
        if target == POT:
            cook = replace(cook, holds=False)
        elif on_grid(target) and target not in others:
            cook = replace(cook, cell=target)
    onions = floor.onions
    if cook.cell in onions and not cook.holds:
        cook, onions = replace(cook, holds=True), onions - {cook.cell}
        tally += Tally(pickups=1)
    return Floor({**floor.cooks, name: cook}, onions), tally


def resolve(floor: Floor, moves: Mapping[str, Move], order: Sequence[str]) -> tuple[Floor, Mapping[str, Tally]]:
    """Make the players' moves one after another.

    Args:
        floor: The floor before the first move.
        moves: The move of each player.
        order: The order of the players.

    Returns:
        The floor after the last move, and what each player did.
    """
    tallies: dict[str, Tally] = {}
    for name in order:
        floor, tallies[name] = act(floor, name, moves[name])
    return floor, tallies


def step(
    floor: Floor, moves: Mapping[str, Move], onion_returns: float, rng: random.Random
) -> tuple[Floor, Mapping[str, Tally]]:
    """All players move, in an order drawn from `rng`; then each empty place gets an onion back.

    Args:
        floor: The floor before the step.
        moves: The move of each player.
        onion_returns: Probability, in [0, 1], that a place that is empty after the moves has an onion at the next step.
            It does not depend on the players' hands.
        rng: Draws the order first, then one number for each empty place, in the order of `PLACES`.

    Returns:
        The floor after the step, and what each player did.
    """
    floor, tallies = resolve(floor, moves, rng.sample(tuple(floor.cooks), len(floor.cooks)))
    back = {place for place in PLACES if place not in floor.onions and rng.random() < onion_returns}
    return replace(floor, onions=floor.onions | back), tallies
