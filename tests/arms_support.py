"""Arms of two seats, and the episodes that their processes play."""

from collections.abc import Sequence

from llm_sra.playing import EpisodeSpec
from llm_sra.task import Problem, Sampling
from llm_sra.trainer.arms import Arm, build_arm
from llm_sra.trainer.rollout import episode_specs

SEATS = ("first", "second")
SAMPLING = Sampling(temperature=0.7)
PROBLEMS = [Problem(f"p{i}", None) for i in range(8)]


def arm_of(name: str, *, seats: Sequence[str] = SEATS, sharing: str = "seat", tau: float = 2.0) -> Arm:
    return build_arm(name, seats, sharing, tau, SAMPLING)


def specs_of(arm: Arm, problems: Sequence[Problem], processes: int = 1, group: int = 3) -> list[list[EpisodeSpec]]:
    """The specs of each process."""
    return [[spec for spec, _ in episode_specs(arm, problems, group, r, processes)] for r in range(processes)]
