"""The interface that every engine fills."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llm_sra.render import Renderer
from llm_sra.task import Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """One reply to generate.

    Attributes:
        prompt_ids: The prompt.
        adapter: Name of a LoRA adapter; None is the base model.
        sampling: How tokens are drawn.
        max_tokens: The reply is cut after this many.
        stop: Strings that end the reply.
        seed: The reply is a function of the prompt, the weights and this seed; not of the batch around it.
    """

    prompt_ids: tuple[int, ...]
    adapter: str | None
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated reply.

    Attributes:
        token_ids: Sampled ids, the end-of-turn token or the tokens of the stop string included.
        logprobs: Natural logs under the distribution that was sampled from (see `Sampling`), one per token.
        text: Decoded without end-of-turn tokens, cut before the stop string.
        finish: `length` if it was cut at `max_tokens`.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Literal["stop", "length"]


class Engine(Protocol):
    """Generates a batch of replies, each with its own adapter."""

    renderer: Renderer
    context_length: int

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            AdapterError: If an adapter is unknown; names those that are there.
        """
