"""Loading base models and tokenizers: the one place that opens weights."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from llm_sra.models.damage import why_unreadable
from llm_sra.models.usable import why_no_words, why_not_causal
from llm_sra.registry import find_model, model_hint

QUANTIZED = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")

_ADAPTER = (
    "is an adapter, not a model: name its base as the model, and the folder as initial_adapter or as a partner of kind "
    "`adapter`"
)


class ModelError(ValueError):
    """A model cannot be loaded; says what was expected."""


def load_model(
    name: str,
    *,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    quantization: BitsAndBytesConfig | None = None,
    device: str | torch.device = "cpu",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, from safetensors only.

    Args:
        name: A folder in the Hugging Face format, a shipped model (`worksheet/pupil`), or a name on the hub.
        dtype: `float32`, `bfloat16`, ...; None: as saved.
        revision: Revision of the hub's repository.
        trust_remote_code: Whether to run code that comes with the model.
        attn_implementation: `eager`, `sdpa`, `flash_attention_2`.
        quantization: How the weights are quantised; see `quantization_of`.
        device: Where the weights go.

    Raises:
        ModelError: If it cannot be loaded, is not causal, lacks weights, or has a tokenizer that is not its own.
    """
    name = _located(name)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    _whole_config(name, revision, trust_remote_code)
    how = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": device}}
    try:
        tokenizer = _tokenizer(name, **options)
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=dtype or "auto",
            use_safetensors=True,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **options,
            **how,
        )
    except Exception as error:  # each library has its own for a damaged file
        reason = why_unreadable(Path(name), error)
        raise _cannot_load(name, reason) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(f"{name!r} {_ADAPTER}")
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"cannot load the model {name!r}: its files lack {missing[0]} ({len(missing)} missing), which would be "
            f"random. Its config.json names {_classes(model.config)}, expected the weights of a whole "
            f"{type(model).__name__}"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if (why := why_no_words(tokenizer, rows)) is not None:
        raise _cannot_load(name, why)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token
    if quantization is not None:
        _keep_differentiable(model)
    return (model if quantization else model.to(device)), tokenizer


def _keep_differentiable(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from a fast path on CPUs: generating repacks weights, and no gradient passes them then."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  # an attribute of theirs alone


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A model's tokenizer alone.

    Raises:
        ModelError: If it cannot be loaded.
    """
    name = _located(name)
    try:
        return _tokenizer(name, trust_remote_code=False)
    except Exception as error:  # each library has its own for a damaged file
        reason = why_unreadable(Path(name), error)
        raise ModelError(f"cannot load the tokenizer of {name!r}{model_hint(name)}: {reason}") from error


def _tokenizer(name: str, **options: Any) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, padding_side="left", **options)
    return tokenizer


def quantization_of(config: Mapping[str, Any]) -> BitsAndBytesConfig | None:
    """How a run's configuration asks its base model to be quantised; None: not at all.

    Raises:
        ModelError: If that needs bitsandbytes, and it is not installed.
    """
    four, eight = bool(config.get("load_in_4bit")), bool(config.get("load_in_8bit"))
    if not (four or eight):
        return None
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"load_in_{4 if four else 8}bit needs bitsandbytes, which is not installed: pip install bitsandbytes"
        )
    if eight:
        return BitsAndBytesConfig(load_in_8bit=True)
    dtype = config.get("dtype")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=None if dtype == "auto" else dtype,
        bnb_4bit_quant_type=config.get("bnb_4bit_quant_type") or "nf4",
        bnb_4bit_use_double_quant=bool(config.get("use_bnb_nested_quant")),
        bnb_4bit_quant_storage=config.get("bnb_4bit_quant_storage"),
    )


def _located(name: str) -> str:
    """Where a model is; a path at which there is no folder is refused here, as a hub would not know it either."""
    name = find_model(name)
    folder = Path(name)
    if name.startswith(("/", "./", "../")) and not folder.is_dir():
        raise ModelError(
            f"no model folder {name} (looked for {folder.absolute()}): name its place, or put it back; those of a run "
            "are named in its config.yaml"
        )
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(f"{name!r} {_ADAPTER}")
        if (folder / "config.yaml").is_file():
            raise ModelError(
                f"{name!r} is a run folder, not a model: name the model that it trained, or one that `llm-sra export "
                "--merge` makes of it"
            )
    return name


def read_config(name: str, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model's text part.

    Raises:
        ModelError: If it cannot be read, or is of a model that is not causal.
    """
    return _whole_config(_located(name), revision, trust_remote_code).get_text_config()


def check_files(
    name: str, config: PretrainedConfig, revision: str | None = None, trust_remote_code: bool = False
) -> None:
    """See that a model can be loaded elsewhere: its tokenizer is read, of the weights in its folder the lists of names.

    Args:
        name: As for `load_model`.
        config: Of the model's text part.
        revision: As for `load_model`.
        trust_remote_code: As for `load_model`.

    Raises:
        ModelError: If a file is missing or damaged, or the tokenizer is not the model's.
    """
    folder = Path(name := _located(name))
    try:
        tokenizer = _tokenizer(name, revision=revision, trust_remote_code=trust_remote_code)
        why = why_no_words(tokenizer, config.vocab_size)
        if folder.is_dir() and why is None:
            why = _why_no_weights(folder)
    except Exception as error:  # each library has its own for a damaged file
        why = why_unreadable(folder, error)
        raise _cannot_load(name, why) from error
    if why is not None:
        raise _cannot_load(name, why)


def _cannot_load(name: str, why: str) -> ModelError:
    return ModelError(f"cannot load the model {name!r}{model_hint(name)}: {why}")


def _why_no_weights(folder: Path) -> str | None:
    """Why a model's folder lacks weights."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = [path.name for path in sorted(folder.glob("*.safetensors"))] or [SAFE_WEIGHTS_NAME]
    for name in names:
        if not (folder / name).is_file():
            return f"there is no {name} in its folder: expected its weights as safetensors. Copy or download it again"
        with safe_open(folder / name, framework="pt"):  # raises if its end is missing
            pass
    return None


def _whole_config(name: str, revision: str | None, trust_remote_code: bool) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # as for a model
        reason = why_unreadable(Path(name), error)
        raise _cannot_load(name, f"{reason} (config.json)") from error
    if (why := why_not_causal(config)) is not None:
        raise _cannot_load(name, why)
    return config


def _classes(config: PretrainedConfig) -> str:
    return ", ".join(config.architectures or ()) or "no class"
