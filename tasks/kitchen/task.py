"""The kitchen as a task: problems and splits, what a seat sees, pay, and how an episode ended.

`grid` says what moves do, `sight` writes views and reads replies, `briefing` has the rules in words, `partners` the
scripts.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.kitchen.briefing import rules
from tasks.kitchen.grid import MOVES, PLACES, STARTS, STAY, Cook, Floor, Tally, step
from tasks.kitchen.partners import PARTNERS
from tasks.kitchen.sight import look, write
from tasks.moves import named_move
from tasks.options import check_asked, check_numbers, check_switches, check_whole

HEADLINE = "share of the most deliveries"
PICKUP, DELIVERY = 1.0, 10.0  # team reward of each
FIRST_DELIVERY, NEXT_DELIVERY = 9, 5  # fewest moves of a player: 6 to an onion, 3 into the pot; then 2 and 3
SPLITS: Mapping[str, range] = {"train": range(0, 700), "dev": range(700, 850), "test": range(850, 1000)}


@dataclass(frozen=True, slots=True)
class KitchenState:
    """An episode so far.

    Attributes:
        floor: The players and onions on the grid.
        step: Number of steps played.
        tallies: What each seat did in all steps.
        illegal: For each seat, the number of replies that named no move or several.
    """

    floor: Floor
    step: int
    tallies: Mapping[str, Tally]
    illegal: Mapping[str, int]


class Kitchen(Task[KitchenState]):
    """Two seats carry onions to one pot on a grid of 5 x 5, and every move costs the seat that makes it.

    Both seats move at once; their moves are resolved one after the other, in an order drawn anew at each step. A seat
    with an empty hand takes the onion of the place that it stands on, and delivers it by walking into the pot, which is
    solid. Both seats get 1 for each pick-up and 10 for each delivery, whoever made it. Staying is free. A move costs
    its seat `move_cost`, also if a wall, the pot (as in a delivery) or the other player blocks it. A move into the
    other player costs its seat `collision_cost` in addition. A reply that names no move, or more than one, is `stay`
    and counts as illegal.

    A seat sees the last state and no clock: its view does not depend on what was said before.

    Source: the kitchen of arXiv 2602.21515, with its costs and rewards.

    Args:
        steps: Steps of an episode.
        move_cost: What a move costs, in units of the reward.
        collision_cost: What a collision costs on top of its move, in units of the reward.
        onion_returns: Probability that an empty place has an onion again after a step.
        goal: Number of deliveries of the team from which an episode counts as solved. No reward depends on it.
        explain: Whether every view begins with the rules in words, for models that were not taught them.
        strict: Whether a reply that names one move twice is illegal.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range, or two players cannot reach the goal.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    stop: tuple[str, ...] = ("\n",)
    max_reply_tokens: int = 4
    max_reply_chars: int = 64
    choices: tuple[str, ...] = MOVES
    headline: str = HEADLINE
    partners: Mapping[str, Callable[[], ScriptedPartner]] = PARTNERS
    idle = "waiter"

    def __init__(
        self,
        *,
        steps: int = 50,
        move_cost: float = 0.2,
        collision_cost: float = 2.0,
        onion_returns: float = 0.2,
        goal: int = 1,
        explain: bool = False,
        strict: bool = True,
    ) -> None:
        check_whole("kitchen", 1, steps=steps, goal=goal)
        check_numbers("kitchen", move_cost=move_cost, collision_cost=collision_cost)
        check_numbers("kitchen", 1.0, onion_returns=onion_returns)
        check_switches("kitchen", explain=explain, strict=strict)
        _check_goal(goal, steps, onion_returns)
        self.steps, self.goal, self.onion_returns = steps, goal, float(onion_returns)
        self.move_cost, self.collision_cost = float(move_cost), float(collision_cost)
        told = rules(
            steps=steps,
            pickup=PICKUP,
            delivery=DELIVERY,
            move_cost=self.move_cost,
            collision_cost=self.collision_cost,
            onion_returns=self.onion_returns,
        )
        self.strict = strict
        self._before = f"{told}\n\n" if explain else ""

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """700 problems are `train`, 150 `dev`, 150 `test`, whatever the seed.

        All are the same kitchen. A problem is the two start cells and a number, which seeds its random events.
        """
        check_asked(split, SPLITS, count)
        layout = "+".join(f"{x},{y}" for x, y in STARTS)
        starts = [list(cell) for cell in STARTS]
        chosen = [Problem(f"{layout}/{i:03}", {"starts": starts, "index": i}) for i in SPLITS[split]]
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> KitchenState:
        """Hands are empty and both places have an onion; the seats swap their start cells half of the time."""
        cells = [(x, y) for x, y in problem.data["starts"]]
        if rng.random() < 0.5:
            cells.reverse()
        cooks = {seat: Cook(cell) for seat, cell in zip(self.seats, cells, strict=True)}
        return KitchenState(Floor(cooks), 0, dict.fromkeys(self.seats, Tally()), dict.fromkeys(self.seats, 0))

    def actors(self, state: KitchenState) -> tuple[str, ...]:
        """Both seats at once, until the steps are over."""
        return self.seats if state.step < self.steps else ()

    def view(self, state: KitchenState, seat: str) -> Sequence[Message]:
        """One message: own cell, other's cell, hands, onions, pot; with `explain`, the rules before them."""
        return (Message("user", self._before + write(look(state.floor, seat))),)

    def step(
        self, state: KitchenState, replies: Mapping[str, str], rng: random.Random
    ) -> tuple[KitchenState, Mapping[str, Reward]]:
        """Both seats move. Both are paid what the team earned; each pays for its own moves and collisions."""
        named = {seat: named_move(replies[seat], MOVES, self.strict) for seat in self.seats}
        floor, tallies = step(state.floor, {seat: named[seat] or STAY for seat in self.seats}, self.onion_returns, rng)
        team = sum(PICKUP * done.pickups + DELIVERY * done.deliveries for done in tallies.values())
        rewards = {seat: Reward(team=team, cost=self._cost(tallies[seat])) for seat in self.seats}
        after = KitchenState(
            floor,
            state.step + 1,
            {seat: state.tallies[seat] + tallies[seat] for seat in self.seats},
            {seat: state.illegal[seat] + (named[seat] is None) for seat in self.seats},
        )
        return after, rewards

    def outcome(self, state: KitchenState) -> Outcome:
        """Whether the team made at least `goal` deliveries; a seat's effort is its moves.

        `deliveries` are the team's. Agents are compared by their share of `most_deliveries`. For each seat:
        `pickups/SEAT`, `deliveries/SEAT`, `moves/SEAT`, `collisions/SEAT` (it walked into the other player),
        `illegal/SEAT` (replies that named no move or several) and, only if the team delivered,
        `moves_per_delivery/SEAT` (its moves divided by the team's deliveries).
        """
        deliveries = sum(done.deliveries for done in state.tallies.values())
        most = most_deliveries(self.steps, self.onion_returns)
        metrics: dict[str, float] = {"deliveries": float(deliveries), HEADLINE: deliveries / most}
        for seat, done in state.tallies.items():
            metrics[f"pickups/{seat}"] = float(done.pickups)
            metrics[f"deliveries/{seat}"] = float(done.deliveries)
            metrics[f"moves/{seat}"] = float(done.moves)
            metrics[f"collisions/{seat}"] = float(done.collisions)
            metrics[f"illegal/{seat}"] = float(state.illegal[seat])
            if deliveries:
                metrics[f"moves_per_delivery/{seat}"] = done.moves / deliveries
        effort = {seat: float(done.moves) for seat, done in state.tallies.items()}
        return Outcome(deliveries >= self.goal, effort, metrics)

    def _cost(self, done: Tally) -> float:
        return self.move_cost * done.moves + self.collision_cost * done.collisions


def most_deliveries(steps: int, onion_returns: float) -> int:
    """An upper bound of the team's deliveries: the players never block each other and never wait for an onion."""
    each = 0 if steps < FIRST_DELIVERY else 1 + (steps - FIRST_DELIVERY) // NEXT_DELIVERY
    return 2 * each if onion_returns else min(2 * each, len(PLACES))


def _check_goal(goal: int, steps: int, onion_returns: float) -> None:
    most = most_deliveries(steps, onion_returns)
    if goal > most:
        raise ValueError(
            f"kitchen option `goal`={goal} is out of reach: in `steps`={steps} two players with "
            f"`onion_returns`={onion_returns:g} make at most {most} deliveries (the first takes each of them "
            f"{FIRST_DELIVERY} steps, a further one {NEXT_DELIVERY}); use a lower `goal` or more `steps`"
        )
