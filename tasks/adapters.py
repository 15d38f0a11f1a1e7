"""What tasks share whose games another package plays: their problems, the record of a game, and how it ended."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_sra.task import Outcome, Problem
from tasks.options import check_asked

PROBLEMS = {"train": 4096, "dev": 512, "test": 512}
HEADLINE = "share of the largest payoff"


@dataclass(frozen=True)
class Table:
    """Where a game stands.

    Attributes:
        problem: Its id.
        moves: What was played so far, as far as it makes this state another one.
        illegal: By player, how many replies were no move.
        made: By player, how many replies.
        returns: By player, what it got so far, in the game's own units.
        at: The package's own state; never changed in place.
    """

    problem: str
    moves: tuple[Any, ...]
    illegal: tuple[int, ...]
    made: tuple[int, ...]
    returns: tuple[float, ...]
    at: Any = field(compare=False)


def deals(game: str, split: str, count: int | None, seed: int) -> list[Problem]:
    """Problems of a game, told apart by the seed of what chance deals: 4,096 of `train`, 512 of `dev` and of `test`.

    Args:
        game: Its name; `deal_of` expects the same.
        split: `train`, `dev` or `test`.
        count: How many, or all.
        seed: Orders them.

    Raises:
        ValueError: If there is no such split, or the count is below 0.
    """
    check_asked(split, PROBLEMS, count)
    numbers = random.Random(f"{split} {seed}").sample(range(PROBLEMS[split]), PROBLEMS[split])
    names = [f"{split}/{number:04d}" for number in numbers[:count]]
    return [Problem(name, {"game": game, "deal": name}) for name in names]


def deal_of(problem: Problem, game: str) -> random.Random:
    """The generator that deals a problem.

    Raises:
        ValueError: If the problem is one of another game.
    """
    if problem.data["game"] != game:
        raise ValueError(f"problem {problem.id} is one of {problem.data['game']}, this task plays {game}")
    return random.Random(f"{game} {problem.data['deal']}")


def ended(state: Table, seats: Sequence[str], low: float, high: float) -> Outcome:
    """How a game ended: solved if every seat got the largest payoff. A seat's effort is its number of replies.

    Args:
        state: The end.
        seats: Their names.
        low: The least payoff of a seat.
        high: The largest.
    """
    share = sum((each - low) / (high - low) for each in state.returns) / len(seats)
    return Outcome(
        solved=min(state.returns) >= high - 1e-9 * (high - low),
        effort=dict(zip(seats, map(float, state.made), strict=True)),
        metrics={HEADLINE: min(max(share, 0.0), 1.0), **illegal(state, seats)},
    )


def illegal(state: Table, seats: Sequence[str]) -> dict[str, float]:
    """How many replies of each seat were no move, as metrics."""
    return {f"illegal/{seat}": float(count) for seat, count in zip(seats, state.illegal, strict=True)}
