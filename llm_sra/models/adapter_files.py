"""A saved adapter: its folder in PEFT format, the card beside it, and the fingerprint of the base it belongs to."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from safetensors import safe_open
from transformers import PreTrainedModel

KEEPS_BASE = (True, False, "gaussian", "eva", "orthogonal")  # kinds of `init_lora_weights`
_OWN = re.compile(r"lora_|token_adapter|trainable_tokens")  # in the names of what is an adapter's own
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
    start = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("init_lora_weights", True)
    if start not in KEEPS_BASE:
        raise AdapterError(
            f"the adapter at {folder} has init_lora_weights {start!r}, which changes the base model that all adapters "
            "share: save it as plain LoRA with `save_pretrained(folder, path_initial_model_for_weight_conversion=...)`"
        )
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise AdapterError(f"{folder} is a {config.peft_type} adapter; only LoRA adapters are supported")
    return config


def needs_own_base(folder: Path) -> bool:
    """Whether a saved adapter replaces weights of its base, such as biases or embeddings.

    On a base that it shares, it would change what others say.

    Raises:
        AdapterError: As `read_config`.
    """
    config = read_config(folder)
    if config.bias != "none":
        return True
    whole = tuple(config.modules_to_save or ())  # PEFT keeps a copy of these for each adapter
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        keys = [key for key in weights.keys() if not _OWN.search(key)]  # noqa: SIM118
    return any(not any(f".{name}." in key for name in whole) for key in keys)


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
