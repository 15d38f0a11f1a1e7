"""Simulated worksheets to learn from: conversations of one seat whose lines are drawn from mixed habits.

The learner's habit is drawn anew at every turn, and depends only on whether the chain is complete. So these lessons do
not fix how the model will later respond to its partner. The partner's habit is drawn once per sheet, so the learner
meets resting, working and spoiling partners equally often.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from llm_sra.task import Message, Problem
from tasks.worksheet.sheet import PASS, SLIPS, Sheet, Slip
from tasks.worksheet.task import Worksheet


@dataclass(frozen=True, slots=True)
class Habit:
    """How a seat chooses what to write at one turn.

    Attributes:
        right: Probability of the next right line.
        rest: Probability of `pass`. The remaining probability is that of a wrong line.
        rest_when_done: Probability of `pass` once the chain is complete. The remaining probability is that of a wrong
            line.
        slips: The kinds of wrong lines.
    """

    right: float
    rest: float
    rest_when_done: float = 0.9
    slips: tuple[Slip, ...] = SLIPS

    def line(self, sheet: Sheet, rng: random.Random) -> str:
        """Draw a line."""
        draw = rng.random()
        if sheet.complete:
            return PASS if draw < self.rest_when_done else sheet.wrong_line(rng, self.slips)
        if draw < self.right:
            return sheet.next_line
        return PASS if draw < self.right + self.rest else sheet.wrong_line(rng, self.slips)


def any_habit(rng: random.Random) -> Habit:
    """A random habit, drawn uniformly from all mixtures of right lines, passes and wrong lines."""
    low, high = sorted((rng.random(), rng.random()))
    return Habit(right=low, rest=high - low, rest_when_done=rng.random())


@dataclass(frozen=True, slots=True)
class Lesson:
    """Everything that one seat saw and said in one episode.

    Attributes:
        conversation: The messages from the problem to the seat's last line.
        exemplary: For each of its own lines, whether a diligent seat would have written it.
    """

    conversation: tuple[Message, ...]
    exemplary: tuple[bool, ...]


def lesson(task: Worksheet, problem: Problem, habit: Habit, seat: str, rng: random.Random) -> Lesson:
    """Play one episode with `habit` in the seat and any habit in the other."""
    partner = any_habit(rng)
    sheet = task.start(problem, rng)
    conversation: tuple[Message, ...] = ()
    exemplary: list[bool] = []
    while actors := task.actors(sheet):
        line = (habit if actors[0] == seat else partner).line(sheet, rng)
        if actors[0] == seat:
            conversation = (*task.view(sheet, seat), Message("assistant", line))
            exemplary.append(line == sheet.next_line)
        sheet, _ = task.step(sheet, {actors[0]: line}, rng)
    return Lesson(conversation, tuple(exemplary))


def lessons(task: Worksheet, problems: Sequence[Problem], habit: Habit, count: int, rng: random.Random) -> list[Lesson]:
    """Lessons on random problems, in random seats."""
    return [lesson(task, rng.choice(problems), habit, rng.choice(task.seats), rng) for _ in range(count)]
