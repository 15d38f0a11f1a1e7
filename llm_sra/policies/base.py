"""The two kinds of policy, and the match that seats them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from llm_sra.task import Message, Sampling


class PolicyError(RuntimeError):
    """A policy could not be loaded, or failed to answer. Says which policy, at which turn, and why."""


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """A policy that is a name: `play` sends its prompts to an engine.

    Attributes:
        name: Shown in transcripts and results.
        engine: Name under which `play` is given the engine.
        adapter: LoRA adapter of that engine; None is the base model.
        sampling: How tokens are drawn.
    """

    name: str
    engine: str = "main"
    adapter: str | None = None
    sampling: Sampling = Sampling()


@runtime_checkable
class TextPolicy(Protocol):
    """A policy that is a pure function of text."""

    @property
    def name(self) -> str:
        """Shown in transcripts and results."""

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What to say next, given what the seat sees; `rng` is the only source of chance."""


Policy = EnginePolicy | TextPolicy


@dataclass(frozen=True)
class Match:
    """Which policy sits where.

    Attributes:
        name: Identifies the match; part of every reply's seed.
        seats: Policy by seat, for every seat of the task.
    """

    name: str
    seats: Mapping[str, Policy]
