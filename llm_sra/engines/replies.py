"""Sampled tokens to a reply: where it ends and what its text is, the same for every engine."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from transformers import PreTrainedModel

from llm_sra.engines.base import Completion, Request
from llm_sra.models.renderer import Renderer


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
    text = renderer.decode(tokens[:ended])
    stops = [at for at in (text.find(string) for string in request.stop) if at >= 0]
    if stops:
        text, length = text[: min(stops)], _stopped_at(renderer, tokens, request.stop)
    finish: Literal["stop", "length"] = "length" if ended is None and not stops else "stop"
    text = renderer.opening(request.prompt_ids) + text
    return Completion(tuple(tokens[:length]), tuple(logprobs[:length]), text, finish)


def _stopped_at(renderer: Renderer, tokens: Sequence[int], stop: Sequence[str]) -> int:
    """Number of tokens up to the one that completed a stop string."""
    for length in range(1, len(tokens) + 1):
        text = renderer.decode(tokens[:length])
        if any(string in text for string in stop):
            return length
    return len(tokens)
