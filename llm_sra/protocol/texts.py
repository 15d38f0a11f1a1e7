"""How long a task's texts are, and whether what a seat sees only grows: read off episodes of the check."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from llm_sra.protocol.check import Trial, TrialTurn
from llm_sra.task import Message, stop_at


@dataclass(frozen=True)
class Longest:
    """The longest text of a kind.

    Attributes:
        size: Its length, in what the caller counts.
        seat: Who saw or said it.
        problem: Id of the problem.
    """

    size: int
    seat: str
    problem: str


def grows(trials: Iterable[Trial], seat: str, stop: Sequence[str] = ()) -> bool:
    """Whether a seat's view is always its last one, its own reply, and what was added.

    Then the seat's whole episode is one training sequence; else each turn is one. The trainer compares tokens and so
    decides finally.

    Args:
        trials: Episodes.
        seat: Whose views.
        stop: Strings that end a reply: an engine cuts it there, and so does the view.
    """
    return all(
        added(one, other, stop) is not None
        for trial in trials
        for one, other in pairwise(turn for turn in trial.turns if turn.seat == seat)
    )


def added(one: TrialTurn, other: TrialTurn, stop: Sequence[str] = ()) -> tuple[Message, ...] | None:
    """What a seat sees that it had not seen at its last turn, besides its own reply; None if the view is made anew."""
    reply = one.reply[: stop_at(one.reply, stop)]
    begun = (*one.view, Message("assistant", reply))
    return other.view[len(begun) :] if other.view[: len(begun)] == begun else None


def longest(
    trials: Iterable[Trial], of: Callable[[TrialTurn], int], seats: Sequence[str] | None = None
) -> Longest | None:
    """The turn with the largest number; None without turns.

    Args:
        trials: Episodes.
        of: The number of a turn, such as the tokens of its view.
        seats: Whose turns count; all if None.
    """
    turns = ((trial, turn) for trial in trials for turn in trial.turns if seats is None or turn.seat in seats)
    sizes = [Longest(of(turn), turn.seat, trial.problem.id) for trial, turn in turns]
    return max(sizes, key=lambda each: each.size, default=None)
