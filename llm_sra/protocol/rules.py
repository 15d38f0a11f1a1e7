"""Calls a task, and holds what it returns against the protocol of `llm_sra.task`.

What a user's class raises or returns wrongly becomes one `TaskError`: the user's file and line, what came, what was
expected. Nothing is played here, and nothing is said about promises that one call cannot show (see `check`).
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, NoReturn, get_args

from llm_sra.errors import TaskError, UserError, defined_at, raised_at
from llm_sra.task import Message, Outcome, Problem, Reward, Role, Task

WANTED = {
    "problems": "`problems(split, count, seed)` must return a list of Problem(id, data), each with an id of its own",
    "start": "`start(problem, rng)` must return the state before the first turn, for every problem",
    "actors": "`actors(state)` must return a tuple of the seats to speak next, as ('{seat}',), or () at the end",
    "view": "`view(state, seat)` must return a list of Message(role, text), the last one of role 'user'",
    "step": "`step(state, replies, rng)` must return (new state, {{seat: Reward(...)}}), whatever the replies",
    "outcome": "`outcome(state)` must return Outcome(solved, effort={{seat: number}}, metrics={{name: number}})",
}
LONGEST = 120  # characters of a value that are shown


class Rules:
    """A task whose every answer is checked.

    Args:
        task: The rules.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._ours = type(task).__module__.partition(".")[0] in ("llm_sra", "tasks")

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> list[Problem]:
        """See `Task.problems`.

        Raises:
            TaskError: As every method here, if the task raises, or returns something else than the protocol says.
        """
        where = f"for split {split!r}, count {count}, seed {seed}"
        found = self._call("problems", where, split, count, seed)
        if isinstance(found, str | Mapping) or not isinstance(found, Iterable):
            self._wrong("problems", where, f"returned {_shown(found)}")
        problems = self._listed("problems", where, found)
        for item in problems:
            if not isinstance(item, Problem):
                self._wrong("problems", where, f"returned a list that holds {_shown(item)}")
            if not isinstance(item.id, str):
                self._wrong("problems", where, f"returned a problem whose id is {_shown(item.id)}")
        most = Counter(problem.id for problem in problems).most_common(1)
        if most and most[0][1] > 1:
            self._wrong("problems", where, f"returned {most[0][1]} problems with the id {most[0][0]!r}")
        return problems

    def start(self, problem: Problem, rng: random.Random) -> Any:
        """See `Task.start`."""
        return self._call("start", f"at problem {problem.id!r}", problem, rng)

    def actors(self, state: Any, where: str) -> tuple[str, ...]:
        """See `Task.actors`.

        Args:
            state: Where the episode stands.
            where: Problem and step, for an error: `at step 2 of problem 'p1'`.
        """
        found = self._call("actors", where, state)
        seats = self.task.seats
        if not isinstance(found, tuple | list):
            hint = f". Did you forget the comma in ({found!r},)?" if isinstance(found, str) and found in seats else ""
            self._wrong("actors", where, f"returned {_shown(found)}{hint}")
        if unknown := [seat for seat in found if seat not in seats]:
            self._wrong("actors", where, f"named {_shown(unknown[0])}, but the seats are {', '.join(seats)}")
        if len(set(found)) < len(found):
            self._wrong("actors", where, f"named a seat twice: {_shown(found)}")
        return tuple(found)

    def view(self, state: Any, seat: str, where: str) -> tuple[Message, ...]:
        """See `Task.view`."""
        where = f"for seat {seat!r} {where}"
        found = self._call("view", where, state, seat)
        if isinstance(found, str | Mapping) or not isinstance(found, Iterable):
            self._wrong("view", where, f"returned {_shown(found)}")
        messages = self._listed("view", where, found)
        for message in messages:
            if not isinstance(message, Message):
                self._wrong("view", where, f"returned a list that holds {_shown(message)}")
            if message.role not in get_args(Role) or not isinstance(message.content, str):
                self._wrong("view", where, f"returned {_shown(message)}; roles are {', '.join(get_args(Role))}")
        if not messages or messages[-1].role != "user":
            last = f"ends with a message of role {messages[-1].role!r}" if messages else "is empty"
            self._wrong("view", where, f"returned a list that {last}")
        return tuple(messages)

    def step(
        self, state: Any, replies: Mapping[str, str], rng: random.Random, where: str
    ) -> tuple[Any, dict[str, Reward]]:
        """See `Task.step`; numbers of numpy and torch become Python's."""
        found = self._call("step", where, state, replies, rng)
        if not isinstance(found, tuple) or len(found) != 2:
            self._wrong("step", where, f"returned {_shown(found)}")
        state, paid = found
        if not isinstance(paid, Mapping):
            self._wrong("step", where, f"returned {_shown(paid)} as the rewards")
        return state, {seat: self._reward(seat, reward, where) for seat, reward in paid.items()}

    def outcome(self, state: Any, where: str) -> Outcome:
        """See `Task.outcome`; numbers of numpy and torch become Python's."""
        found = self._call("outcome", where, state)
        if not isinstance(found, Outcome):
            self._wrong("outcome", where, f"returned {_shown(found)}")
        solved = _plain(found.solved)
        if solved not in (0, 1):
            self._wrong("outcome", where, f"says solved={_shown(found.solved)}: expected True or False")
        for name, numbers in (("effort", found.effort), ("metrics", found.metrics)):
            if not isinstance(numbers, Mapping):
                self._wrong("outcome", where, f"says {name}={_shown(numbers)}")
        effort = {seat: self._number("outcome", where, f"effort of {seat!r}", n) for seat, n in found.effort.items()}
        if wrong := [seat for seat, n in effort.items() if seat not in self.task.seats or n < 0]:
            self._wrong(
                "outcome", where, f"says effort={_shown(effort)}: expected seats, with 0 or more; see {wrong[0]!r}"
            )
        metrics = {name: self._number("outcome", where, f"metric {name!r}", n) for name, n in found.metrics.items()}
        headline = self.task.headline
        if headline and not 0 <= metrics.get(headline, -1) <= 1:
            came = f"is {metrics[headline]}" if headline in metrics else "is missing"
            self._wrong(
                "outcome", where, f"metric {headline!r}, the task's headline, {came}: expected a share in [0, 1]"
            )
        return Outcome(bool(solved), effort, metrics)

    def end(self, seat: str, turns: int, where: str) -> None:
        """Raise TaskError if a seat that is to speak has had all the turns that it may have."""
        most = self.task.max_turns
        if turns >= most:
            raise TaskError(
                f"{defined_at(type(self.task), 'actors')}: the episode does not end: seat {seat!r} has spoken {most} "
                f"times and `actors` names it again, {where}. Return () once the episode is over (count the turns in "
                f"the state), or raise the task's `max_turns`"
            )

    def _reward(self, seat: object, reward: Any, where: str) -> Reward:
        if seat not in self.task.seats:
            self._wrong("step", where, f"pays {_shown(seat)}, but the seats are {', '.join(self.task.seats)}")
        if not isinstance(reward, Reward):
            self._wrong(
                "step", where, f"pays seat {seat!r} {_shown(reward)}; expected Reward(team=..., own=..., cost=...)"
            )
        team, own, cost = (
            self._number("step", where, f"{name} of seat {seat!r}", number)
            for name, number in (("team", reward.team), ("own", reward.own), ("cost", reward.cost))
        )
        if cost < 0:
            self._wrong("step", where, f"makes seat {seat!r} pay cost={cost:g}: a cost is 0 or more, and is subtracted")
        return Reward(team, own, cost)

    def _number(self, method: str, where: str, name: str, value: Any) -> float:
        number = _plain(value)
        if not isinstance(number, Real):
            self._wrong(method, where, f"says {name} is {_shown(value)}: expected a number")
        if not math.isfinite(number):
            missing = ". Leave out what has no value" if method == "outcome" else ""
            self._wrong(method, where, f"says {name} is {number}: expected a finite number{missing}")
        return number if isinstance(number, int | float) else float(number)

    def _listed(self, method: str, where: str, found: Iterable[Any]) -> list[Any]:
        try:
            return list(found)
        except Exception as error:  # of a generator
            self._failed(method, where, error)

    def _call(self, method: str, where: str, *args: Any) -> Any:
        try:
            return getattr(self.task, method)(*args)
        except Exception as error:
            self._failed(method, where, error)

    def _failed(self, method: str, where: str, error: Exception) -> NoReturn:
        if self._ours or isinstance(error, UserError):
            raise error
        raise TaskError(
            f"{raised_at(error, type(self.task), method)}: {type(error).__name__}: {error}, {where}. "
            f"{self._wanted(method)}"
        ) from error

    def _wrong(self, method: str, where: str, came: str) -> NoReturn:
        raise TaskError(f"{defined_at(type(self.task), method)} {came}, {where}. {self._wanted(method)}")

    def _wanted(self, method: str) -> str:
        return WANTED[method].format(seat=self.task.seats[0])


def at(problem: Problem, step: int) -> str:
    """Where in an episode, for an error."""
    return f"at step {step} of problem {problem.id!r}"


def _plain(value: Any) -> Any:
    """A Python number for a number of numpy or torch."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a repr of the user's
        text = "something"
    return f"{text if len(text) <= LONGEST else text[:LONGEST] + '...'} (a {type(value).__name__})"
