"""What tag's tests share: fields, single replies and whole episodes."""

import random

from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies.base import Match
from llm_sra.policies.scripted import Scripted
from llm_sra.task import Episode
from tasks.tag import Tag
from tasks.tag.sight import Sight, write
from tasks.tag.task import TagState
from tasks.tag.world import Body, Field, Point

SIGHT = Sight((4, -3), (0, 10), (2, 9), (-5, 1), (10, -3), ((2, -7), (11, 3)))
VIEW = "you 4 -3 0 10\nother 2 9\nrunner -5 1 10 -3\nrock 2 -7\nrock 11 3\nstay left right down up?"


def field(first: Point, second: Point, runner: Point, *rocks: Point) -> Field:
    """All at rest."""
    return Field((Body(first), Body(second)), Body(runner), rocks)


def sight(runner: tuple[int, int], **parts: tuple[int, int]) -> Sight:
    """A sight of a chaser at rest with a runner at rest, but for what is named."""
    still = {"own": (0, 0), "own_speed": (0, 0), "other": (5, 5), "runner_speed": (0, 0)}
    return Sight(runner=runner, **{**still, **parts})  # type: ignore[arg-type]


def say(partner: str, seen: Sight, rng: random.Random | None = None) -> str:
    """What a scripted partner replies to a sight."""
    return Tag.partners[partner]().reply([{"role": "user", "content": write(seen)}], rng or random.Random(0))


def opening(task: Tag, number: int = 0) -> TagState:
    """The start of one of the training problems."""
    return task.start(task.problems("train", number + 1)[number], random.Random(0))


def episodes(first: str, second: str, count: int = 1, *, split: str = "dev", **options: object) -> list[Episode]:
    """Episodes of two scripted partners, one a problem, played as training and evaluation play them."""
    task = Tag(**options)  # type: ignore[arg-type]
    seats = {"first": Scripted(first, task.partners[first]()), "second": Scripted(second, task.partners[second]())}
    return play(
        task, [EpisodeSpec(problem, Match("pair", seats)) for problem in task.problems(split, count)], {}, seed=0
    )


def mean(played: list[Episode], name: str) -> float:
    """The mean of a metric."""
    return sum(episode.outcome.metrics[name] for episode in played) / len(played)
