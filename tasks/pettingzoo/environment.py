"""An environment of PettingZoo as a task: whose turn it is, what seats see, what they are paid, and how it ended.

A subclass says which environment it is, how its observations read, and what replies mean.
"""

import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.adapters import Table, deal_of, deals, illegal
from tasks.forward import Forward, Path, chance
from tasks.movers import MOVERS
from tasks.moves import LETTERS, read_move, view_text
from tasks.options import check_switches
from tasks.pettingzoo.stage import Stage, moves_of


@dataclass(frozen=True)
class World:
    """An environment between two steps.

    Attributes:
        seen: By agent that acts next, what it observes.
        moves: By agent that acts next, its legal actions; none, if they are no list.
        cut: Whether an agent was truncated.
        path: What was done so far.
        line: Goes on from there.
    """

    seen: Mapping[str, Any]
    moves: Mapping[str, Sequence[int]]
    cut: bool
    path: Path
    line: Forward[Stage]


class Environment(Task[Table]):
    """An environment of PettingZoo, AEC or parallel. The seats are its agents, by their names.

    Args:
        shared: Whether the mean of the agents' rewards is a `team` reward, and only the rest of each its `own`.
        strict: Whether a reply must be a move and nothing else; of the default `read`.
        letters: Whether moves are shown with letters, and a model chooses among these alone.
        max_replies: Replies of a seat after which an episode is cut.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range, PettingZoo is not installed, or the environment cannot be played.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    max_reply_tokens: int = 32
    max_reply_chars: int = 500
    partners: Mapping[str, Callable[[], ScriptedPartner]] = MOVERS
    about: str = ""  # what views begin with

    def __init__(
        self, *, shared: bool = False, strict: bool = True, letters: bool = False, max_replies: int = 1000
    ) -> None:
        check_switches(type(self).__name__, shared=shared, strict=strict, letters=letters)
        if isinstance(max_replies, bool) or not isinstance(max_replies, int) or max_replies < 1:
            raise ValueError(f"`max_replies` must be a whole number, 1 or more, got {max_replies!r}")
        self.shared, self.strict, self.letters, self.max_turns = shared, strict, letters, max_replies
        self.game = getattr(self, "game", type(self).__name__)
        self._env = self.make()
        self.seats = tuple(self._env.possible_agents)  # type: ignore[misc]  # who plays is the environment's
        if len(self.seats) < 2:
            raise ValueError(f"{self.game} has {len(self.seats)} agents: two or more can play here")
        spaces = {seat: self._env.action_space(seat) for seat in self.seats}
        sizes = {seat: len(moves_of(space)) for seat, space in spaces.items()}
        if not all(sizes.values()):
            self.partners = {}  # they choose among moves
            if type(self).instead is Environment.instead:
                raise ValueError(f"{self.game} has actions that are no list of moves: give `read`, and `instead` too")
        if letters:
            if not all(sizes.values()) or max(sizes.values()) > len(LETTERS) or type(self).read is not Environment.read:
                raise ValueError(f"`letters` is for at most {len(LETTERS)} moves and the default `read`: leave it out")
            self.choices = {seat: tuple(LETTERS[:size]) for seat, size in sizes.items()}

    @abstractmethod
    def make(self) -> Any:
        """A new environment, as `parallel_env(...)` or `env(...)` of its module; each episode has its own."""

    def show(self, agent: str, observation: Any) -> str:
        """What an observation reads like; by default its numbers, two decimals of each, row by row."""
        numbers = observation["observation"] if isinstance(observation, Mapping) else observation
        rows = np.atleast_2d(np.asarray(numbers, dtype=float).round(2) + 0.0)  # without -0
        return "\n".join(" ".join(f"{number:g}" for number in np.ravel(row)) for row in rows)

    def read(self, agent: str, reply: str, moves: Sequence[int]) -> Any:
        """The action that a reply means, or None if it means none; by default the move that it names.

        Args:
            agent: Who replied.
            reply: Untrusted. This may not fail, whatever the text.
            moves: Legal actions; none, if they are no list.
        """
        place = read_move(reply, [self.name(agent, move) for move in moves], self.strict, self.letters)
        return None if place is None else moves[place]

    def name(self, agent: str, action: int) -> str:
        """What a move is called; by default its number."""
        return str(action)

    def instead(self, agent: str, moves: Sequence[int]) -> Any:
        """The action of a reply that means none; by default the first legal move."""
        return moves[0]

    def solved(self, returns: Mapping[str, float]) -> bool:
        """Whether the team solved it, by what each seat got in all; by default whether all got more than 0."""
        return min(returns.values()) > 0

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Seeds of the environment's `reset`: 4,096 of `train`, 512 of `dev` and of `test`."""
        return deals(self.game, split, count, seed)

    def start(self, problem: Problem, rng: random.Random) -> Table:
        """The environment after `reset` with the problem's seed."""
        seed = deal_of(problem, self.game).randrange(2**31)

        def begin() -> Stage:
            with chance(seed):
                return Stage(self.make(), seed)

        line = Forward(begin, Stage.act)
        none, nothing = (0,) * len(self.seats), (0.0,) * len(self.seats)
        return Table(problem.id, (), none, none, nothing, World(line.game.seen, line.game.moves, False, (), line))

    def actors(self, state: Table) -> tuple[str, ...]:
        """The agent whose turn it is, or all that are alive if they act at once."""
        return tuple(
            seat for seat in self.seats if seat in state.at.seen and state.made[self._of(seat)] < self.max_turns
        )

    def view(self, state: Table, seat: str) -> Sequence[Message]:
        """What the seat observes, and its moves where they are a list."""
        seen, moves = self.show(seat, state.at.seen[seat]), state.at.moves[seat]
        names = [self.name(seat, move) for move in moves]
        told = view_text(self.about, seen, names, self.letters) if names else f"{self.about}\n{seen}".strip("\n")
        return [Message("user", told)]

    def step(self, state: Table, replies: Mapping[str, str], rng: random.Random) -> tuple[Table, Mapping[str, Reward]]:
        """The actions; a reply that means none is the first legal move, and counts in `illegal/SEAT`."""
        wrong, made = list(state.illegal), list(state.made)
        actions = {}
        for seat in self.actors(state):
            moves = state.at.moves[seat]
            action = self.read(seat, replies[seat], moves)
            space = self._env.action_space(seat)
            fits = action is not None and bool(action in moves if moves else space.contains(action))
            actions[seat] = action if fits else self.instead(seat, moves)
            wrong[self._of(seat)] += not fits
            made[self._of(seat)] += 1
        line = state.at.line
        path, (paid, cut) = line.go(state.at.path, actions, rng.getrandbits(32))
        gains = [float(paid.get(seat, 0.0)) for seat in self.seats]
        team = sum(gains) / len(gains) if self.shared else 0.0
        table = Table(
            state.problem, (*state.moves, *replies.values()), tuple(wrong), tuple(made),
            tuple(before + gain for before, gain in zip(state.returns, gains, strict=True)),
            World(line.game.seen, line.game.moves, state.at.cut or cut, path, line),
        )  # fmt: skip
        return table, {seat: Reward(team=team, own=gain - team) for seat, gain in zip(self.seats, gains, strict=True)}

    def outcome(self, state: Table) -> Outcome:
        """Solved as `solved` says, no effort; what each seat got, its replies without a move, whether it was cut."""
        returns = dict(zip(self.seats, state.returns, strict=True))
        got = {f"return/{seat}": value for seat, value in returns.items()}
        metrics = {**got, **illegal(state, self.seats), "truncated": float(state.at.cut or bool(state.at.seen))}
        return Outcome(bool(self.solved(returns)), dict.fromkeys(self.seats, 0.0), metrics)

    def _of(self, seat: str) -> int:
        return self.seats.index(seat)
