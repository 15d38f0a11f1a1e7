"""The interface of every engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llm_sra.errors import UserError
from llm_sra.models.renderer import Renderer
from llm_sra.task import Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """One reply to generate.

    Attributes:
        prompt_ids: The prompt.
        adapter: Name of a LoRA adapter; None is the base model.
        sampling: How tokens are drawn.
        max_tokens: The reply is cut after this many.
        stop: Strings that end the reply, once it has said something (see `llm_sra.task.stop_at`).
        seed: The reply is a function of the prompt, the weights and this seed; not of the batch around it.
        choices: Token ids that are drawn from, and no others; empty: all.
        repeats: Whether the reply must be the same whenever it is asked for again, also from an engine that draws
            without seeds.
    """

    prompt_ids: tuple[int, ...]
    adapter: str | None
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    seed: int
    choices: tuple[int, ...] = ()
    repeats: bool = False


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


class EngineError(UserError):
    """An engine cannot be started or does not answer. Says what was tried and what to do."""


class Engine(Protocol):
    """Generates a batch of replies, each with its own adapter.

    All engines give the same log-probabilities, up to float error: those of `Sampling`.

    Attributes:
        renderer: How messages become its prompts.
        context_length: Tokens that a prompt and its reply may have together.
        shares_weights: Whether it runs on the very weights that are trained; if not, its log-probabilities are close.
    """

    renderer: Renderer
    context_length: int
    shares_weights: bool

    def sync(self) -> None:
        """Load the current weights of all adapters; `generate` does so by itself for those that it is asked for.

        Raises:
            EngineError: If they cannot be loaded.
        """

    def rest(self) -> None:
        """Give up memory that is not needed until the next `generate`."""

    def close(self) -> None:
        """Stop, and free all memory."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            AdapterError: If an adapter is unknown; names those that are there.
            EngineError: If it does not answer.
        """
