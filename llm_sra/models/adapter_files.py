"""A saved adapter: its folder in PEFT format, the card beside it, and the fingerprint of the base it belongs to."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from safetensors.torch import load_file
from transformers import PreTrainedModel

from llm_sra.models.damage import not_finite, why_unreadable

WEIGHTS = "adapter_model.safetensors"
CARD = "llm_sra.json"  # facts that PEFT's own config has no field for


class AdapterError(ValueError):
    """An adapter cannot be used: missing, of another base, or not in the safetensors format."""


def read_config(folder: Path) -> LoraConfig:
    """The configuration of a saved adapter.

    Raises:
        AdapterError: If the folder is not a LoRA adapter with safetensors weights, or it cannot be read.
    """
    if not folder.is_dir():
        raise AdapterError(
            f"{folder} holds no adapter: there is no such folder. If a training makes it, run that first"
        )
    if not (folder / "adapter_config.json").is_file():
        raise AdapterError(f"{folder} holds no adapter: expected adapter_config.json and {WEIGHTS} (PEFT format)")
    if not (folder / WEIGHTS).is_file():
        raise AdapterError(
            f"{folder} holds no {WEIGHTS}: only safetensors are loaded, as other formats can run code when they are "
            "opened. Save the adapter again with `safe_serialization=True`"
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # PEFT checks little: whatever its classes raise
        raise AdapterError(
            f"{folder} holds no adapter that can be read: {why_unreadable(folder, error)} (adapter_config.json)"
        ) from error
    if not isinstance(config, LoraConfig):
        raise AdapterError(f"{folder} is a {config.peft_type} adapter; only LoRA adapters are supported")
    return config


def fingerprint(base: PreTrainedModel) -> str:
    """A short hash of a base model's weights, as bfloat16: names, shapes and the first values of each tensor."""
    digest = hashlib.sha256()
    for key, parameter in sorted(base.named_parameters()):
        if "lora_" in key:
            continue
        head = parameter.detach().flatten()[:8].to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes()
        digest.update(f"{key.replace('.base_layer', '')}{tuple(parameter.shape)}".encode() + head)
    return digest.hexdigest()[:16]


def read_card(folder: Path) -> dict[str, Any]:
    """What was kept beside a saved adapter; empty for one that was made elsewhere.

    Raises:
        AdapterError: If it is no JSON object.
    """
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is no JSON: {why_unreadable(folder, error)}") from error
    if not isinstance(card, dict):
        raise AdapterError(f"{path} must hold a JSON object, got {type(card).__name__}: save the adapter again")
    return card


def read_weights(folder: Path, config: LoraConfig) -> dict[str, torch.Tensor]:
    """The weights of a saved adapter under PEFT's keys.

    Args:
        folder: The adapter's.
        config: Its configuration.

    Raises:
        AdapterError: If they cannot be read, are not of the rank that the configuration names, or hold NaN or infinity.
    """
    try:
        state = load_file(folder / WEIGHTS)
    except Exception as error:
        raise AdapterError(f"the weights of {folder} cannot be read: {why_unreadable(folder, error)}") from error
    ranks = {len(tensor) for key, tensor in state.items() if "lora_A" in key or "lora_embedding_A" in key}
    named = [config.r, *(config.rank_pattern or {}).values()]
    for rank in named:
        if type(rank) is not int or rank < 1:
            raise AdapterError(
                f"the adapter at {folder} is damaged: its adapter_config.json names rank {rank!r}, expected a whole "
                "number of 1 or more. Save it again"
            )
    # An adapter of the named rank is made before the weights go into it: a wrong one could take all memory.
    if ranks and max(named) > max(ranks):
        raise AdapterError(
            f"the adapter at {folder} is damaged: its adapter_config.json names rank {max(named)}, its weights have "
            f"{', '.join(map(str, sorted(ranks)))}. Save it again"
        )
    if (name := not_finite(state.items())) is not None:
        raise AdapterError(
            f"the weights of {folder} hold NaN or infinity, first in {name}: take an earlier checkpoint, or train again"
        )
    return state
