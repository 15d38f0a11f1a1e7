"""What happens at a table of people: who is asked what, what was said, how episodes ended. Nothing of HTTP or HTML.

`Game.run` plays, in one thread; the people's pages ask and answer from others. A page can come late, twice or from an
earlier turn: an answer counts once, to the question that it names.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition
from typing import Literal

from llm_sra.engines import Engine
from llm_sra.episodes.people import chosen_name
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Policy
from llm_sra.task import Episode, Message, Problem, Task, merge_roles

NOBODY = "human"  # name of a person who chose none
Phase = Literal["consent", "asked", "waiting", "ended", "over"]
Keep = Callable[[Episode, Mapping[str, str]], None]


@dataclass(frozen=True)
class Scene:
    """What one person is shown.

    Attributes:
        phase: `consent`: may what is said be kept? `asked`: for a reply. `waiting`: for others. `ended`: the problem;
            the next one comes when all people want it. `over`: all problems.
        seat: The person's.
        number: Of the problem, from 1.
        question: Number of what is asked; a reply names it.
        view: What the seat saw last of this problem.
        said: What the person answered to it; None: nothing yet.
        choices: If given, a reply is one of these.
        played: The episodes that have ended.
        kept: Whether what is said is kept; None: that is not decided, or was not asked.
    """

    phase: Phase
    seat: str
    number: int
    question: int
    view: tuple[Message, ...]
    said: str | None
    choices: tuple[str, ...]
    played: tuple[Episode, ...]
    kept: bool | None


@dataclass
class _Person:
    """One person's part: the question that waits for an answer, what was said last, and what was agreed to."""

    name: str = NOBODY
    agreed: bool | None = None
    question: int = 0
    future: Future[str] | None = None
    view: tuple[Message, ...] = ()
    said: str | None = None
    ready: bool = True
    saw_end: bool = False


@dataclass(eq=False)
class _Seated:
    """A person as a policy: `submit` puts the question on the person's page."""

    game: "Game"
    seat: str

    @property
    def name(self) -> str:
        """As the person chose it."""
        return self.game.people[self.seat].name

    def submit(self, turns: Sequence[tuple[Sequence[Message], random.Random]]) -> list[Future[str]]:
        """Ask; an episode asks one thing at a time."""
        return [self.game.ask(self.seat, view) for view, _ in turns]

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """Ask, and wait."""
        return self.game.ask(self.seat, messages).result()


@dataclass
class Game:
    """A table.

    Attributes:
        task: The rules.
        problems: What is played, in this order.
        others: Who sits in the seats that are no person's.
        engines: That these use.
        keep: Takes an episode and the people's names, if all of them agreed; None: nobody is asked.
        seed: Of the others' replies.
        limit: Most tokens of their replies; the task's own if None.
    """

    task: Task
    problems: Sequence[Problem]
    others: Mapping[str, Policy] = field(default_factory=dict)
    engines: Mapping[str, Engine] = field(default_factory=dict)
    keep: Keep | None = None
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        self.people = {seat: _Person() for seat in self.task.seats if seat not in self.others}
        self._changed = Condition()
        self._played: list[Episode] = []
        self._number, self._over = 1, False

    def run(self) -> list[Episode]:
        """Play all problems, as fast as the people do; keep each one that has ended, where all agreed.

        Returns:
            The episodes.

        Raises:
            PolicyError, TaskError, WriteError: As `play` and `keep` do.
        """
        self._wait(lambda: self.keep is None or all(person.agreed is not None for person in self.people.values()))
        seated = {seat: self.others.get(seat) or _Seated(self, seat) for seat in self.task.seats}
        match = Match(f"table/{'/'.join(self.people)}", seated)
        for number, problem in enumerate(self.problems, 1):
            with self._changed:
                self._number = number
                for person in self.people.values():
                    person.view, person.said, person.ready = (), None, False
                self._changed.notify_all()
            spec = EpisodeSpec(problem, match)
            [episode] = play(self.task, [spec], self.engines, seed=self.seed, max_reply_tokens=self.limit)
            if self.keep and self._kept:
                self.keep(episode, {seat: person.name for seat, person in self.people.items()})
            with self._changed:
                self._played.append(episode)
                self._over = number == len(self.problems)
                self._changed.notify_all()
            if not self._over:
                self._wait(lambda: all(person.ready for person in self.people.values()))
        return list(self._played)

    def wait_for_the_last_look(self, seconds: float) -> None:
        """Wait until every person's page has shown the end, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: all(person.saw_end for person in self.people.values()), seconds)

    def ask(self, seat: str, view: Sequence[Message]) -> Future[str]:
        """Put a question on a person's page; the future is the answer."""
        with self._changed:
            person = self.people[seat]
            person.future, person.view, person.said = Future(), merge_roles(view), None
            person.question += 1
            self._changed.notify_all()
            return person.future

    def scene(self, seat: str, patience: float = 0) -> Scene:
        """What a person is shown.

        Args:
            seat: The person's.
            patience: Seconds that are waited for something else than `waiting`.
        """
        with self._changed:
            person = self.people[seat]
            self._changed.wait_for(lambda: self._phase(person) != "waiting", patience)
            phase = self._phase(person)
            if phase == "over" and not person.saw_end:
                person.saw_end = True
                self._changed.notify_all()
            return Scene(
                phase=phase,
                seat=seat,
                number=self._number,
                question=person.question,
                view=person.view,
                said=person.said,
                choices=self.task.choices_of(seat),
                played=tuple(self._played),
                kept=self._kept,
            )

    def say(self, seat: str, question: int, text: str) -> None:
        """Answer what a person was asked; what is empty, no choice, or answers another question is passed over."""
        text, choices = text.replace("\r\n", "\n").strip(), self.task.choices_of(seat)
        with self._changed:
            person = self.people[seat]
            if person.future is None or question != person.question or not text or (choices and text not in choices):
                return
            future, person.future, person.said = person.future, None, text
            self._changed.notify_all()
        if future.set_running_or_notify_cancel():
            future.set_result(text)

    def agree(self, seat: str, name: str | None) -> None:
        """Say whether what is said may be kept; the first answer counts.

        Args:
            seat: Whose.
            name: That the person chose; None: it may not.

        Raises:
            ValueError: If it is no name.
        """
        name = None if name is None else chosen_name(name)
        with self._changed:
            person = self.people[seat]
            if self.keep and person.agreed is None:
                person.agreed, person.name = name is not None, name or NOBODY
                self._changed.notify_all()

    def go_on(self, seat: str, number: int) -> None:
        """Want the problem after this one."""
        with self._changed:
            if number == self._number == len(self._played):
                self.people[seat].ready = True
                self._changed.notify_all()

    @property
    def _kept(self) -> bool | None:
        answers = [person.agreed for person in self.people.values()]
        if self.keep is None:
            return None
        return False if False in answers else (None if None in answers else True)

    def _phase(self, person: _Person) -> Phase:
        if self.keep and person.agreed is None:
            return "consent"
        if self._over:
            return "over"
        if person.future is not None:
            return "asked"
        return "ended" if len(self._played) == self._number and not person.ready else "waiting"

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(condition)
