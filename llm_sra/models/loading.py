"""Loading base models and tokenizers: the one place that opens weights."""

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_sra.models.damage import why_unreadable
from llm_sra.registry import find_model, model_hint


class ModelError(ValueError):
    """A model cannot be loaded; says what was expected."""


def load_model(
    name: str,
    *,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    device: str | torch.device = "cpu",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, from safetensors only.

    Args:
        name: A folder in the Hugging Face format, a shipped model (`worksheet/pupil`), or a name on the hub.
        dtype: `float32`, `bfloat16`, ...; None: as saved.
        revision: Of the hub's repository.
        trust_remote_code: Whether to run code that comes with the model.
        attn_implementation: `eager`, `sdpa`, `flash_attention_2`.
        device: Where the weights go.

    Raises:
        ModelError: If it cannot be loaded.
    """
    name = find_model(name)
    if name.startswith(("/", "./", "../")) and not Path(name).is_dir():
        raise ModelError(f"no model folder {name} (looked for {Path(name).absolute()})")
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left", **options)
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype or "auto", use_safetensors=True, attn_implementation=attn_implementation, **options
        )
    except Exception as error:  # each library has its own for a damaged file
        reason = why_unreadable(Path(name), error)
        raise ModelError(f"cannot load the model {name!r}{model_hint(name)}: {reason}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device), tokenizer


def read_config(name: str, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model's text part.

    Raises:
        ModelError: If it cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(find_model(name), revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"cannot read the configuration of the model {name!r}{model_hint(name)}: {error}") from error
    return config.get_text_config()
