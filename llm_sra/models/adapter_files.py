"""A saved adapter: its folder in PEFT format, the card beside it, and the fingerprint of the base it belongs to."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
CARD = "llm_sra.json"  # facts that PEFT's own config has no field for


class AdapterError(ValueError):
    """An adapter cannot be used: missing, of another base, or not in the safetensors format."""


def read_config(folder: Path) -> LoraConfig:
    """The configuration of a saved adapter.

    Raises:
        AdapterError: If the folder is not a LoRA adapter with safetensors weights.
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
    config = PeftConfig.from_pretrained(str(folder))
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
    """What was kept beside a saved adapter; empty for one that was made elsewhere."""
    path = folder / CARD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
