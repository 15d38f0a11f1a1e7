"""A task whose replies all run to their token limit, so that everything compared on it does the same work.

Its models (see `models`) have an end token that is never drawn. Prompts are worksheets of equal length; the reward is a
hash of what was said: it varies, costs nothing, and teaches nothing.
"""

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, Task, merge_roles

SEATS = ("left", "right")


def question(number: int) -> str:
    """The text of a problem: three numbers of two digits."""
    return "Q: " + "+".join(str(10 + number * factor % 89) for factor in (1, 7, 31))


def score(texts: Sequence[str]) -> float:
    """In [0, 1), by what was said."""
    return zlib.crc32("\n".join(texts).encode("utf-8", "replace")) % 1000 / 1000


@dataclass(frozen=True)
class Said:
    """What was asked, and each step's replies by seat."""

    question: str
    steps: tuple[Mapping[str, str], ...] = ()


class Fixed(Task[Said]):
    """Both seats speak at once, for so many turns, and see all that was said before.

    Args:
        turns: Number of turns of each seat.
        count: Problems of a split.
    """

    seats: ClassVar[tuple[str, ...]] = SEATS

    def __init__(self, *, turns: int = 1, count: int = 64) -> None:
        self.turns, self.count = turns, count

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        return [Problem(str(number), {"number": number}) for number in range(self.count)][:count]

    def start(self, problem: Problem, rng: random.Random) -> Said:
        return Said(question(problem.data["number"]))

    def actors(self, state: Said) -> tuple[str, ...]:
        return self.seats if len(state.steps) < self.turns else ()

    def view(self, state: Said, seat: str) -> Sequence[Message]:
        messages = [Message("user", state.question)]
        for replies in state.steps:
            messages.append(Message("assistant", replies[seat]))
            messages += [Message("user", text) for who, text in replies.items() if who != seat]
        return merge_roles(messages)

    def step(self, state: Said, replies: Mapping[str, str], rng: random.Random) -> tuple[Said, Mapping[str, Reward]]:
        reward = Reward(team=score(list(replies.values())))
        return replace(state, steps=(*state.steps, dict(replies))), dict.fromkeys(self.seats, reward)

    def outcome(self, state: Said) -> Outcome:
        return Outcome(solved=False)
