"""Whether a model can be played at all: it is causal, its tokenizer is its own, and it has the tokens it is asked with.

Each check gives a reason, in words, or None; whoever loads the model makes an error of it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from llm_sra.models.renderer import Renderer
from llm_sra.task import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LIMIT = 2**31 - 1  # tokens of a context that has no limit
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")
# Models that see later tokens, too, unless their configuration says otherwise.
_SEES_ALL = frozenset(MODEL_FOR_MASKED_LM_MAPPING_NAMES) | {"bert-generation", "xlnet"}
# Causal ones that transformers cannot play in a batch, whose rows begin with padding.
_NO_BATCH = {
    "rwkv": "which reads padding as text",
    "recurrent_gemma": "which reads padding as text",
    "openai-gpt": "which keeps no keys and values from token to token",
}
_TALK = tuple(Message(role, "word") for role in ("system", "user", "assistant", "user"))


def why_not_causal(config: PretrainedConfig) -> str | None:
    """Why a model of this configuration cannot continue texts.

    Args:
        config: The whole model's.
    """
    kind = f"it is a {config.model_type!r} model ({', '.join(config.architectures or ()) or 'no class named'})"
    expected = "expected a causal language model, whose class ends with ForCausalLM"
    if config.is_encoder_decoder:
        return f"{kind}, which reads with an encoder and writes with a decoder: {expected}"
    theirs = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if not theirs and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return f"{kind}, which transformers does not have as a causal language model: {expected}"
    causal = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    if config.model_type in _SEES_ALL and not causal:
        return f"{kind}, each of whose tokens sees later ones, too: {expected}"
    if config.model_type in _NO_BATCH:
        return f"{kind}, {_NO_BATCH[config.model_type]}: it cannot be played in batches. Take a model of another family"
    return None


def why_no_words(tokenizer: "PreTrainedTokenizerBase", rows: int) -> str | None:
    """Why a tokenizer cannot be a model's.

    Args:
        tokenizer: Its added tokens do not count: text never becomes one.
        rows: Tokens that the model has embeddings of.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    words = {text: index for text, index in tokenizer.get_vocab().items() if text not in added}
    if not words:
        return (
            "its tokenizer has no vocabulary: expected tokenizer.json, tokenizer.model, or vocab.json and merges.txt "
            "beside config.json. Save the tokenizer into the model's folder, or copy it from the base model"
        )
    return _beyond(words.items(), rows)


def why_not_asked(renderer: Renderer, rows: int, ends: Iterable[int]) -> str | None:
    """Why a model cannot be asked by a template, or never ends a reply.

    Args:
        renderer: Asks it.
        rows: Tokens that the model has embeddings of.
        ends: Tokens that end a reply.
    """
    ids = dict.fromkeys(renderer.render(_TALK))
    name = renderer.tokenizer.convert_ids_to_tokens
    if reason := _beyond(((str(name(index)), index) for index in ids), rows):
        return f"its chat template writes tokens that the model does not have. {reason}"
    ends = tuple(ends)
    if min(ends) >= rows:
        return f"no token that ends a reply is one of the model's. {_beyond(((str(name(i)), i) for i in ends), rows)}"
    return None


def context_of(config: PretrainedConfig) -> int:
    """Tokens that a model reads at most; `NO_LIMIT` for one that names none, as ALiBi and recurrent models do not."""
    config = config.get_text_config()
    named = (getattr(config, key, None) for key in _CONTEXT)
    return next((size for size in named if type(size) is int and size > 0), NO_LIMIT)


def _beyond(tokens: Iterable[tuple[str, int]], rows: int) -> str | None:
    outside = sorted((index, text) for text, index in tokens if index >= rows)
    if not outside:
        return None
    index, text = outside[0]
    return (
        f"The model has embeddings of {rows} tokens, its tokenizer gives number {index} to {text!r}"
        + (f", and {len(outside) - 1} more beyond" if len(outside) > 1 else "")
        + ": take the tokenizer that belongs to it, or resize its embeddings (resize_token_embeddings) and train them"
    )
