"""What the kitchen's tests share: floors, single replies and whole episodes."""

import random

from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies.base import Match
from llm_sra.policies.scripted import Scripted
from llm_sra.task import Episode
from tasks.kitchen import Kitchen
from tasks.kitchen.grid import PLACES, POT, Cell, Cook, Floor, Move, Tally, act
from tasks.kitchen.task import KitchenState

LEFT_ONION, RIGHT_ONION = PLACES  # (3, 4) and (4, 3)
CELLS = [(x, y) for x in range(5) for y in range(5) if (x, y) != POT]


def floor(first: Cell, second: Cell, *, holding: str = "", onions: tuple[Cell, ...] = PLACES) -> Floor:
    """A floor; `holding` names the seats that have an onion."""
    cooks = {"first": Cook(first, "first" in holding), "second": Cook(second, "second" in holding)}
    return Floor(cooks, frozenset(onions))


def walk(start: Floor, *moves: Move) -> tuple[Floor, list[Tally]]:
    """The first seat walks while the second does nothing and no onion comes back."""
    done = []
    for move in moves:
        start, tallies = act(start, "first", move)
        done.append(tallies)
    return start, done


def say(partner: str, here: Floor, seat: str = "first", rng: random.Random | None = None) -> str:
    """What a scripted partner replies to a floor."""
    task = Kitchen()
    shift = KitchenState(here, 0, {}, {})
    messages = [message.as_dict() for message in task.view(shift, seat)]
    return task.partners[partner]().reply(messages, rng or random.Random(0))


def episode(first: str, second: str, seed: int = 0, **options: float) -> Episode:
    """One episode of two scripted partners, played as training and evaluation play it."""
    task = Kitchen(**options)  # type: ignore[arg-type]
    seats = {"first": Scripted(first, task.partners[first]()), "second": Scripted(second, task.partners[second]())}
    return play(task, [EpisodeSpec(task.problems("dev", 1)[0], Match("pair", seats))], {}, seed=seed)[0]


def delivered_at(played: Episode) -> list[int]:
    """The steps, from 1, at which the team delivered: a delivery pays 10, two pick-ups pay 2."""
    return [number for number, reward in enumerate(played.rewards["first"], 1) if reward.team >= 10]


def opening(task: Kitchen, seed: int = 0) -> KitchenState:
    return task.start(task.problems("train", 1)[0], random.Random(seed))
