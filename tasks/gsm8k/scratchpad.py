"""A relayed solution: its opening, the steps written so far, and its answer.

Rules, metrics and partners all read it here. This module knows neither seats nor rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from tasks.gsm8k.answers import final_answer

PROBLEM, SOLUTION = "\n\nProblem: ", "\n\nSolution:"


@dataclass(frozen=True)
class Scratchpad:
    """A problem and the steps of its solution so far.

    Attributes:
        question: The problem.
        reference: Its right answer.
        steps: All replies, unchanged, oldest first, with empty ones.
    """

    question: str
    reference: Fraction
    steps: tuple[str, ...] = ()

    def with_step(self, text: str) -> "Scratchpad":
        """The scratchpad with one more step."""
        return replace(self, steps=(*self.steps, text))

    @property
    def answer(self) -> Fraction | None:
        """The last `#### number` of the last step; it ends the episode, so no earlier step has one."""
        return final_answer(self.steps[-1], strict=True) if self.steps else None

    @property
    def solved(self) -> bool:
        """Whether the answer is the reference."""
        return self.answer == self.reference


def opening(instructions: str, question: str) -> str:
    """The first message of every seat."""
    return f"{instructions.strip()}{PROBLEM}{question}{SOLUTION}"


def last_step(messages: Sequence[dict[str, str]]) -> str:
    """The last step, read from what a seat sees; empty if there is none yet."""
    last = messages[-1]["content"]
    if len(messages) > 1:
        return last
    # Before its first turn a seat sees one message: the opening, and below it the other seat's step.
    return last.partition(SOLUTION)[2].removeprefix("\n")
