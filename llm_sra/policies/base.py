"""The kinds of policy as `play` knows them, and the match that seats them."""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from llm_sra.errors import UserError
from llm_sra.task import Message, Sampling


class PolicyError(UserError):
    """A policy could not be loaded, or failed to answer. Says which policy, at which turn, and why."""


class UnavailableError(PolicyError):
    """A partner is not available, or no longer: its server, its file or its budget."""


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """A model, by name: `play` sends its prompts to an engine.

    Attributes:
        name: Shown in transcripts and results.
        engine: Name under which `play` is given the engine.
        adapter: LoRA adapter of that engine; None is the base model.
        sampling: How tokens are drawn.
        fixed_seed: With a number, its replies are drawn from this seed and no longer from the episode's: after the same
            words it says the same in every episode of a problem. None: every episode has its own seed.
    """

    name: str
    engine: str = "main"
    adapter: str | None = None
    sampling: Sampling = Sampling()
    fixed_seed: int | None = None

    def decoded(self, sampling: Sampling) -> "EnginePolicy":
        """The same policy, with its tokens drawn this way."""
        return replace(self, sampling=sampling)

    def at_temperature(self, temperature: float) -> "EnginePolicy":
        """The same policy at another temperature."""
        return replace(self, sampling=replace(self.sampling, temperature=float(temperature)))


@runtime_checkable
class TextPolicy(Protocol):
    """A policy that is a pure function of text."""

    @property
    def name(self) -> str:
        """Shown in transcripts and results."""

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What to say next, given what the seat sees; `rng` is the only source of chance."""


@runtime_checkable
class BatchPolicy(TextPolicy, Protocol):
    """A policy that speaks text and answers while others are asked. Hashable: equal ones are asked together."""

    def submit(self, turns: Sequence[tuple[Sequence[Message], random.Random]]) -> list[Future[str]]:
        """Begin to answer each of these turns, as `reply` would; a reply that is not wanted any more is cancelled."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an episode a turn stands.

    Attributes:
        problem: Id of what is played.
        seat: Who speaks.
        turn: How often the seat has spoken before.
    """

    problem: str
    seat: str
    turn: int


@runtime_checkable
class PlacedPolicy(TextPolicy, Protocol):
    """A policy that speaks text and is told where it is asked, too, as a view need not show it."""

    def reply_at(self, place: Place, messages: Sequence[Message], rng: random.Random) -> str:
        """What to say next; see `reply`."""


@runtime_checkable
class Decoded(Protocol):
    """A policy whose tokens are drawn, by an engine or by a server."""

    def decoded(self, sampling: Sampling) -> "Policy":
        """The same policy, with its tokens drawn this way."""

    def at_temperature(self, temperature: float) -> "Policy":
        """The same policy at exactly this temperature."""


@runtime_checkable
class Wrapper(Protocol):
    """A policy that answers through another one, and may change what it said. Hashable."""

    @property
    def name(self) -> str:
        """Shown in transcripts and results."""

    @property
    def inner(self) -> "Policy":
        """Who answers; may itself be a wrapper."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that its replies depend on apart from the inner policy."""

    @property
    def keeps_tokens(self) -> bool:
        """Whether every reply stays as the inner policy drew it."""

    def speaker(self, turn: int) -> "EnginePolicy | TextPolicy":
        """Who answers at a turn, given the turn's seed."""

    def perturb(self, text: str, view: Sequence[Message], turn: int) -> str:
        """What becomes of the reply `text` to `view`, given the turn's seed."""


Policy = EnginePolicy | TextPolicy | Wrapper


def innermost(policy: Policy) -> EnginePolicy | TextPolicy:
    """Who answers: the policy inside all wrappers."""
    return innermost(policy.inner) if isinstance(policy, Wrapper) else policy


def speaker(policy: Policy, turn: int) -> EnginePolicy | TextPolicy:
    """Who answers at a turn, given the turn's seed: the policy itself, or the one that it wraps."""
    return policy.speaker(turn) if isinstance(policy, Wrapper) else policy


def decoded(policy: Policy, sampling: Sampling) -> Policy:
    """A policy with its tokens drawn this way; one that draws none as it is."""
    return policy.decoded(sampling) if isinstance(policy, Decoded) else policy


@dataclass(frozen=True)
class Match:
    """Which policy sits where.

    Attributes:
        name: Identifies the match; part of every reply's seed.
        seats: Policy by seat, for every seat of the task.
    """

    name: str
    seats: Mapping[str, Policy]
