"""Sampled tokens to a reply: where it ends and what its text is, the same for every engine.

Which stop strings end it says `stop_at` of the task protocol.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from transformers import PreTrainedModel

from llm_sra.engines.base import Completion, Request
from llm_sra.models.renderer import Renderer
from llm_sra.task import CLOSE_THOUGHT, stop_at, thinks


def end_of_turn_ids(model: PreTrainedModel, renderer: Renderer) -> tuple[int, ...]:
    """Every token that ends a reply: the tokenizer's, those of the model's generation config, and the template's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = [configured] if isinstance(configured, int) else list(configured or ())
    if not all(type(index) is int for index in ids):
        raise ValueError(
            f"eos_token_id in the generation config of {model.name_or_path!r} must be a token id or a list of them, "
            f"got {configured!r}: correct generation_config.json"
        )
    if renderer.tokenizer.eos_token_id is not None:
        ids.insert(0, renderer.tokenizer.eos_token_id)
    ids = list(dict.fromkeys([*ids, *renderer.ends.ids]))
    if not ids:
        raise ValueError(
            f"neither the tokenizer, the generation config nor the chat template of {model.name_or_path!r} names an "
            "end-of-turn token: replies would never end. Set `eos_token` on the tokenizer and save it"
        )
    return tuple(ids)


def ended_by_template(renderer: Renderer, requests: Sequence[Request]) -> list[Request]:
    """Requests that end where a template without tokens of its own begins the next turn, too."""
    if not renderer.ends.strings:
        return list(requests)
    return [
        request if request.choices else replace(request, stop=(*request.stop, *renderer.ends.strings))
        for request in requests
    ]


def completion(
    renderer: Renderer, ends: Sequence[int], tokens: Sequence[int], logprobs: Sequence[float], request: Request
) -> Completion:
    """Cut what was generated where the reply ended.

    Args:
        renderer: Decodes.
        ends: Token ids that end a turn.
        tokens: As they were generated; what follows the end is dropped.
        logprobs: One per token.
        request: What was asked for.

    Returns:
        The reply. Its text begins with the thought's opening, if the prompt has that.
    """
    ended = next((i for i, token in enumerate(tokens) if token in ends), None)
    length = len(tokens) if ended is None else ended + 1
    opening = renderer.opening(request.prompt_ids)
    text = renderer.decode(tokens[:ended])
    at = stop_at(text, request.stop, opening)
    if at is not None:
        text, length = text[:at], _stopped_at(renderer, tokens, request.stop, opening)
    finish: Literal["stop", "length"] = "length" if ended is None and at is None else "stop"
    return Completion(tuple(tokens[:length]), tuple(logprobs[:length]), opening + text, finish)


def _stopped_at(renderer: Renderer, tokens: Sequence[int], stop: Sequence[str], opening: str) -> int:
    """Number of tokens up to the one that completed a stop string."""
    lengths = range(1, len(tokens))
    return 1 + bisect_left(
        lengths, True, key=lambda length: stop_at(renderer.decode(tokens[:length]), stop, opening) is not None
    )


class Parts:
    """A reply of an engine that ends it at every stop string: it is asked for in parts, until one counts.

    Within a thought the next part ends where the thought does, so that its lines are not parts of their own.

    Args:
        renderer: Decodes.
        ends: Token ids that end a turn.
        request: What is asked for.

    Attributes:
        next: What to ask the engine for now; None: the reply is whole.
    """

    def __init__(self, renderer: Renderer, ends: Sequence[int], request: Request) -> None:
        self._renderer, self._ends, self._request = renderer, ends, request
        self._opening = renderer.opening(request.prompt_ids)
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self.next: Request | None = self._part()

    def add(self, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """Take in the part that was asked for."""
        self._tokens += tokens
        self._logprobs += logprobs
        self.next = self._part() if tokens and self._goes_on() else None

    def completion(self) -> Completion:
        """The reply, as far as it is there."""
        return completion(self._renderer, self._ends, self._tokens, self._logprobs, self._request)

    def _goes_on(self) -> bool:
        """Whether what ended the last part does not end the reply: neither a token nor the limit, so a stop string."""
        if not self._request.stop or len(self._tokens) >= self._request.max_tokens or self._tokens[-1] in self._ends:
            return False
        return stop_at(self._renderer.decode(self._tokens), self._request.stop, self._opening) is None

    def _part(self) -> Request:
        request, said = self._request, self._opening + self._renderer.decode(self._tokens)
        return replace(
            request,
            prompt_ids=(*request.prompt_ids, *self._tokens),
            max_tokens=request.max_tokens - len(self._tokens),
            stop=(CLOSE_THOUGHT,) if request.stop and thinks(said) else request.stop,
            seed=_seed_behind(request.seed, len(self._tokens)),
        )


def _seed_behind(seed: int, tokens: int) -> int:
    """Seed of what follows so many tokens of a reply, in [0, 2**63)."""
    if not tokens:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}\x1f{tokens}".encode(), digest_size=8).digest(), "big") >> 1
