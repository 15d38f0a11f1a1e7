"""Perturbed partners: another policy's reply is dropped, replaced, cut, falsified, repeated or shuffled.

`play` gets the inner policy's reply, from an engine or as text, and `Perturbed` changes its text. It does not read the
reply as an answer to anything: a task's own notation is not known here.
"""

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from llm_sra.policies.base import (
    Decoded,
    EnginePolicy,
    Policy,
    PolicyError,
    TextPolicy,
    Wrapper,
    innermost,
    speaker,
)
from llm_sra.task import Message, Sampling

TEMPERATURE, SAY = "temperature", "say"
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_BETWEEN = re.compile(r"(\n+|(?<=[.!?]) +)")

Change = Callable[[str, Sequence[Message], random.Random], str]


def drop(text: str, view: Sequence[Message], rng: random.Random) -> str:
    """Nothing is left."""
    return ""


def cut(text: str, view: Sequence[Message], rng: random.Random) -> str:
    """A beginning of it, shorter than the whole and perhaps empty."""
    return text[: rng.randrange(len(text))] if text else text


def number(text: str, view: Sequence[Message], rng: random.Random) -> str:
    """One digit of the last number is another: its form stays, its value never does. Unchanged without a number."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    start, end = found[-1].span()
    at = rng.choice([place for place in range(start, end) if text[place].isdigit()])
    leads = at == start and end - start > 1  # 42 does not become 02
    digit = rng.choice([d for d in "0123456789" if d != text[at] and not (leads and d == "0")])
    return text[:at] + digit + text[at + 1 :]


def repeat(text: str, view: Sequence[Message], rng: random.Random) -> str:
    """The seat's own reply before this one, as its view shows it. Unchanged if there is none."""
    own = [message.content for message in view if message.role == "assistant"]
    return own[-1] if own else text


def shuffle(text: str, view: Sequence[Message], rng: random.Random) -> str:
    """Its sentences and lines in another order. Unchanged if they are all alike."""
    pieces = _BETWEEN.split(text)
    places = [place for place in range(0, len(pieces), 2) if pieces[place]]
    before = [pieces[place] for place in places]
    if len(set(before)) < 2:
        return text
    after = list(before)
    while after == before:
        rng.shuffle(after)
    for place, sentence in zip(places, after, strict=True):
        pieces[place] = sentence
    return "".join(pieces)


CHANGES: Mapping[str, Change] = {"drop": drop, "cut": cut, "number": number, "repeat": repeat, "shuffle": shuffle}
HOWS = (*CHANGES, SAY, TEMPERATURE)


@dataclass(frozen=True)
class Perturbed:
    """Another policy, some of whose replies are changed.

    Attributes:
        name: Shown in transcripts and results.
        inner: Who answers; may itself be perturbed.
        how: A key of `CHANGES`; `say`: it says `text`; or `temperature`: the reply is drawn at `temperature`.
        probability: That a reply is changed, in [0, 1]; each turn has a coin of its own.
        seed: Seed of these coins and of what they decide. Two perturbations of one kind on one partner need two seeds.
        temperature: For `temperature` alone, above 1.
        text: For `say` alone.

    Raises:
        PolicyError: If `how` is unknown or lacks what goes with it, or `temperature` is asked of a policy that draws no
            tokens.
    """

    name: str
    inner: Policy
    how: str
    probability: float = 1.0
    seed: int = 0
    temperature: float | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise PolicyError(f"partner {self.name!r}: how must be one of {', '.join(HOWS)}, got {self.how!r}")
        if not 0 <= self.probability <= 1:
            raise PolicyError(f"partner {self.name!r}: probability must lie in [0, 1], got {self.probability}")
        if (self.how == TEMPERATURE) != (self.temperature is not None):
            raise PolicyError(f"partner {self.name!r}: `temperature` goes with how: {TEMPERATURE}, and with no other")
        if (self.how == SAY) != (self.text is not None):
            raise PolicyError(f"partner {self.name!r}: `text` goes with how: {SAY}, and with no other")
        if self.temperature is not None and not isinstance(innermost(self.inner), Decoded):
            raise PolicyError(
                f"partner {self.name!r}: {self.inner.name!r} ({type(self.inner).__name__}) draws no tokens: it has "
                "no temperature to raise. Perturb a model, an adapter or an endpoint, or choose another `how`"
            )

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that its replies depend on apart from the inner policy."""
        return {key: getattr(self, key) for key in ("how", "probability", "seed", "temperature", "text")}

    @property
    def keeps_tokens(self) -> bool:
        """Whether every reply stays as the inner policy drew it: true for `temperature` alone."""
        return self.how == TEMPERATURE

    def decoded(self, sampling: Sampling) -> "Perturbed":
        """The same, with the inner policy's tokens drawn this way; not those at the raised temperature."""
        return replace(self, inner=self.inner.decoded(sampling)) if isinstance(self.inner, Decoded) else self

    def at_temperature(self, temperature: float) -> "Perturbed":
        """The same with an inner policy at this temperature."""
        return replace(self, inner=self.inner.at_temperature(temperature)) if isinstance(self.inner, Decoded) else self

    def speaker(self, turn: int) -> EnginePolicy | TextPolicy:
        """Who answers at a turn.

        Args:
            turn: The turn's seed.
        """
        return speaker(self._hot if self.how == TEMPERATURE and self._hit(turn) else self.inner, turn)

    def perturb(self, text: str, view: Sequence[Message], turn: int) -> str:
        """What becomes of a reply.

        Args:
            text: As the speaker said it.
            view: What the seat saw.
            turn: The turn's seed.
        """
        if isinstance(self.inner, Wrapper):
            text = self.inner.perturb(text, view, turn)
        if self.how == TEMPERATURE or not self._hit(turn):
            return text
        if self.text is not None:
            return self.text
        return CHANGES[self.how](text, view, self._rng(turn, "change"))

    @cached_property
    def _hot(self) -> Policy:
        assert self.temperature is not None and isinstance(self.inner, Decoded)
        return self.inner.at_temperature(self.temperature)

    def _hit(self, turn: int) -> bool:
        return self._rng(turn, "coin").random() < self.probability

    def _rng(self, turn: int, what: str) -> random.Random:
        key = f"{self.how}\x1f{self.seed}\x1f{turn}\x1f{what}"
        return random.Random(hashlib.blake2b(key.encode(), digest_size=8).digest())
