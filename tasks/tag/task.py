"""Tag as a task: problems and splits, what a chaser sees, pay, and how an episode ended.

`world` says what moves do, `runners` has the runners, `sight` writes views and reads replies, `briefing` has the rules
in words, `partners` the scripts.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.moves import named_move
from tasks.options import check_asked, check_numbers, check_switches, check_whole
from tasks.tag.briefing import rules
from tasks.tag.partners import PARTNERS
from tasks.tag.runners import RUNNERS
from tasks.tag.sight import look, write
from tasks.tag.world import MOVES, STAY, Field, scatter, scenario, step

TOUCH = 10.0  # team reward for each chaser that touches the runner after a step, as in mpe2
SPLITS: Mapping[str, range] = {"train": range(0, 2000), "dev": range(2000, 2300), "test": range(2300, 2600)}
MOST_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class Tally:
    """What one chaser did, counted.

    Attributes:
        tags: Number of steps after which it touched the runner.
        moves: Number of steps at which it did not stay.
        illegal: Number of its replies that named no move or several.
        distance: Its distance from the runner, summed over the steps.
    """

    tags: int = 0
    moves: int = 0
    illegal: int = 0
    distance: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.tags + other.tags,
            self.moves + other.moves,
            self.illegal + other.illegal,
            self.distance + other.distance,
        )


@dataclass(frozen=True, slots=True)
class TagState:
    """An episode so far.

    Attributes:
        field: Places and speeds of all bodies.
        step: Number of steps played.
        tallies: What each seat did in all steps.
    """

    field: Field
    step: int
    tallies: Mapping[str, Tally]


class Tag(Task[TagState]):
    """Two chasers and a faster runner in mpe2's `simple_tag_v3` with discrete actions.

    Both seats are chasers and move at once; the runner is part of the environment. After each step both seats get 10
    for each chaser that touches the runner, as in mpe2. Staying is free, any other move costs its seat `move_cost`. A
    reply that names no move, or more than one, is `stay` and counts as illegal.

    A seat sees the last state and no clock: its view does not depend on what was said before.

    Source: MPE's predator and prey (Lowe et al., arXiv 1706.02275), as packaged by mpe2.

    Args:
        steps: Steps of an episode.
        move_cost: What a move costs, in units of the reward.
        runner: `flee` (from the nearer chaser), `random`, or `trained` (whose weights ship with the task).
        rocks: Number of round obstacles in the field.
        decimals: Number of decimals of places and speeds that are shown.
        goal: Number of tags of the team from which an episode counts as solved. No reward depends on it.
        explain: Whether every view begins with the rules in words, for models that were not taught them.
        strict: Whether a reply that names one move twice is illegal.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range, or mpe2 is not installed.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    stop: tuple[str, ...] = ("\n",)
    max_reply_tokens: int = 4
    max_reply_chars: int = 64
    choices: tuple[str, ...] = MOVES
    partners: Mapping[str, Callable[[], ScriptedPartner]] = PARTNERS
    idle = "waiter"

    def __init__(
        self,
        *,
        steps: int = 25,
        move_cost: float = 0.0,
        runner: str = "flee",
        rocks: int = 2,
        decimals: int = 1,
        goal: int = 1,
        explain: bool = False,
        strict: bool = True,
    ) -> None:
        check_whole("tag", 1, steps=steps)
        check_numbers("tag", move_cost=move_cost)
        if not isinstance(runner, str) or runner not in RUNNERS:
            raise ValueError(f"tag option `runner` must be one of {', '.join(RUNNERS)}, got {runner!r}")
        check_whole("tag", 0, 8, rocks=rocks)
        check_whole("tag", 0, MOST_DECIMALS, decimals=decimals)
        check_whole("tag", 1, 2 * steps, goal=goal)  # each chaser tags at most once a step
        check_switches("tag", explain=explain, strict=strict)
        scenario()  # so that a missing package is reported before anything is played
        self.steps, self.move_cost, self.goal = steps, float(move_cost), goal
        self.runner, self.rocks, self.decimals = runner, rocks, decimals
        told = rules(steps=steps, touch=TOUCH, move_cost=self.move_cost, decimals=decimals)
        self.strict = strict
        self._before = f"{told}\n\n" if explain else ""

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """2000 problems are `train`, 300 `dev`, 300 `test`, whatever the seed.

        A problem is the seed of mpe2's `reset`: all bodies begin where mpe2's environment would put them.
        """
        check_asked(split, SPLITS, count)
        chosen = [Problem(f"{i:04}", {"seed": i}) for i in SPLITS[split]]
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> TagState:
        """All bodies rest where mpe2's seed puts them; every episode of a problem begins in the same state."""
        return TagState(scatter(problem.data["seed"], self.rocks), 0, dict.fromkeys(self.seats, Tally()))

    def actors(self, state: TagState) -> tuple[str, ...]:
        """Both seats at once, until the steps are over; a tag does not end the episode."""
        return self.seats if state.step < self.steps else ()

    def view(self, state: TagState, seat: str) -> Sequence[Message]:
        """One message: own place and speed, other chaser, runner, its speed, rocks; with `explain`, the rules first."""
        return (Message("user", self._before + write(look(state.field, self.seats.index(seat), self.decimals))),)

    def step(
        self, state: TagState, replies: Mapping[str, str], rng: random.Random
    ) -> tuple[TagState, Mapping[str, Reward]]:
        """All three move. Both seats are paid for each touch; each pays for its own move."""
        named = {seat: named_move(replies[seat], MOVES, self.strict) for seat in self.seats}
        moves = [named[seat] or STAY for seat in self.seats]
        field, touches = step(state.field, moves, RUNNERS[self.runner](state.field, rng))
        tallies, rewards = {}, {}
        for seat, move, touch, chaser in zip(self.seats, moves, touches, field.chasers, strict=True):
            moved = move != STAY
            away = math.dist(chaser.place, field.runner.place)
            tallies[seat] = state.tallies[seat] + Tally(int(touch), int(moved), int(named[seat] is None), away)
            rewards[seat] = Reward(team=TOUCH * sum(touches), cost=self.move_cost * moved)
        return TagState(field, state.step + 1, tallies), rewards

    def outcome(self, state: TagState) -> Outcome:
        """Whether the team made at least `goal` tags; a seat's effort is the share of steps at which it moved.

        `tags` are the team's. By seat: `tags/SEAT`, `moves/SEAT`, `illegal/SEAT` (replies that named no move or
        several), `distance/SEAT` (from the runner, mean over the steps, in mpe2's units), and, only if the team tagged,
        `moves_per_tag/SEAT` (its moves divided by the team's tags).
        """
        tags = sum(tally.tags for tally in state.tallies.values())
        metrics: dict[str, float] = {"tags": float(tags)}
        for seat, tally in state.tallies.items():
            metrics[f"tags/{seat}"] = float(tally.tags)
            metrics[f"moves/{seat}"] = float(tally.moves)
            metrics[f"illegal/{seat}"] = float(tally.illegal)
            metrics[f"distance/{seat}"] = tally.distance / state.step
            if tags:
                metrics[f"moves_per_tag/{seat}"] = tally.moves / tags
        effort = {seat: tally.moves / state.step for seat, tally in state.tallies.items()}
        return Outcome(tags >= self.goal, effort, metrics)
