"""A saved adapter: its folder in PEFT format, the card beside it, and the fingerprint of the base it belongs to."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import PreTrainedModel

from llm_sra.files import readable_as_others
from llm_sra.models.damage import not_finite, why_unreadable
from llm_sra.untrusted import UntrustedError, matching, read_json, shown

KEEPS_BASE = (True, False, "gaussian", "eva", "orthogonal")  # kinds of `init_lora_weights`
_OWN = re.compile(r"lora_|token_adapter|trainable_tokens")  # in the names of what is an adapter's own
WEIGHTS = "adapter_model.safetensors"
LARGEST_ALPHA = 1e6
CARD = "llm_sra.json"  # facts that PEFT's own config has no field for
# Kinds of LoRA that are not played, by PEFT's field: all that PEFT calls variants, except DoRA, and three that it does
# not call so.
_NOT_PLAYED = (
    *(one.name for one in fields(LoraConfig) if one.metadata.get("is_lora_variant") and one.name != "use_dora"),
    "use_qalora", "layer_replication", "megatron_config",
)  # fmt: skip
_WHY = {
    "alora_invocation_tokens": "aLoRA acts only from certain tokens of a prompt on, which nothing here looks for",
    "arrow_config": "Arrow chooses among several adapters at every token",
    "kasa_config": "KaSA changes the base model that all adapters share",
    "monteclora_config": "MonteCLoRA draws weights at random",
    "use_bdlora": "the matrices of BD-LoRA are in blocks",
    "use_qalora": "QALoRA belongs to a base quantised by GPTQ",
    "layer_replication": "it repeats layers of the base model that all adapters share",
    "megatron_config": "it has PEFT import a module",
}
_MODULE = re.compile(r"(?:\.\*\\\.)?[\w.-]{1,500}")  # `.*\.` is how PEFT itself names stacked experts


class AdapterError(ValueError):
    """An adapter cannot be used: missing, of another base, or not in the safetensors format."""


def save_adapters(model: PeftModel, folder: Path, names: Sequence[str] | None = None) -> None:
    """Write adapters in PEFT format, as readable as other files, and without the empty model card that PEFT adds.

    Args:
        model: That has them.
        folder: Made if missing. Each has a folder in it by its name; one that is called `default` is the folder itself.
        names: Which; all if None.
    """
    model.save_pretrained(str(folder), selected_adapters=names, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    readable_as_others(folder)


def read_adapter_config(folder: Path) -> LoraConfig:
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
    path = folder / "adapter_config.json"
    try:
        written = read_json(path)
        if not isinstance(written, dict):
            raise UntrustedError(f"expected an object, got {shown(written)}")
        if other := next((key for key in _NOT_PLAYED if written.get(key)), None):
            raise AdapterError(
                f"the adapter at {folder} has {other}, which is not supported: "
                f"{_WHY.get(other, 'it is applied in another way than plain LoRA')}. Take one of plain LoRA, rsLoRA or "
                "DoRA"
            )
        start = written.get("init_lora_weights", True)
        if start not in KEEPS_BASE:
            raise AdapterError(
                f"the adapter at {folder} has init_lora_weights {shown(start)}, which changes the base model that all "
                "adapters share: save it as plain LoRA with `save_pretrained(folder, "
                "path_initial_model_for_weight_conversion=...)`"
            )
        config = PeftConfig.from_pretrained(str(folder))
        if not isinstance(config, LoraConfig):
            raise AdapterError(f"{folder} is a {config.peft_type} adapter; only LoRA adapters are supported")
        _check(config, folder / WEIGHTS)
    except AdapterError:
        raise
    except SafetensorError as error:
        raise AdapterError(f"the weights of {folder} cannot be read: {why_unreadable(folder, error)}") from error
    except Exception as error:  # PEFT checks little: whatever its classes raise
        raise AdapterError(
            f"{folder} holds no adapter that can be read: {why_unreadable(folder, error)} (adapter_config.json)"
        ) from error
    return config


def without_patterns(config: LoraConfig, modules: Sequence[str]) -> LoraConfig:
    """The configuration with names of modules in place of regular expressions, so that PEFT need not match any.

    Args:
        config: Configuration of a saved adapter. PEFT would try its expressions on every module, without a time limit.
        modules: Names of the base's modules.

    Raises:
        AdapterError: If it is no regular expression, takes too long, or matches none.
    """
    changes = {}
    for key in ("target_modules", "exclude_modules"):
        pattern = getattr(config, key)
        if isinstance(pattern, str) and pattern != "all-linear":
            try:
                changes[key] = set(matching(pattern, modules))
            except UntrustedError as error:
                raise AdapterError(f"{key} of an adapter: {error}") from error
    if "target_modules" in changes and not changes["target_modules"]:
        raise AdapterError(f"{shown(config.target_modules)} in target_modules of an adapter is no module of the base")
    return replace(config, **changes) if changes else config


def _check(config: LoraConfig, weights: Path) -> None:
    """Check that a configuration fits its weights, and asks PEFT for nothing that takes forever.

    Raises:
        UntrustedError: If it is not.
    """
    scale = [config.lora_alpha, *(config.alpha_pattern or {}).values()]
    for alpha in scale:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < LARGEST_ALPHA:
            raise UntrustedError(f"it names alpha {shown(alpha)}, expected a number below {LARGEST_ALPHA:g}")
    _check_ranks(config, weights)
    for key in ("rank_pattern", "alpha_pattern", "modules_to_save", "layers_pattern", "target_parameters"):
        _check_names(key, getattr(config, key, None) or ())
    for key in ("target_modules", "exclude_modules"):
        if not isinstance(getattr(config, key), str):
            _check_names(key, getattr(config, key) or ())


def _check_ranks(config: LoraConfig, weights: Path) -> None:
    """Refuse a rank that is not a number, or not that of the weights: PEFT would allocate it before it reads them."""
    named = [config.r, *(config.rank_pattern or {}).values()]
    for rank in named:
        if type(rank) is not int or rank < 1:
            raise UntrustedError(f"it names rank {shown(rank)}, expected a whole number of 1 or more. Save it again")
    with safe_open(weights, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in list(file.keys())}
    ranks = {shape[0] for key, shape in shapes.items() if "lora_A" in key or "lora_embedding_A" in key}
    ranks = ranks or {size for shape in shapes.values() for size in shape}
    if ranks and max(named) > max(ranks):
        have = ", ".join(map(str, sorted(ranks)))
        raise UntrustedError(f"it names rank {max(named)}, its weights have {have}. Save it again")


def _check_names(key: str, names: str | Iterable[object]) -> None:
    for name in [names] if isinstance(names, str) else names:
        if not isinstance(name, str) or not _MODULE.fullmatch(name):
            raise UntrustedError(f"{key} may hold names of modules alone, got {shown(name)}")


def needs_own_base(folder: Path, config: LoraConfig) -> bool:
    """Whether a saved adapter replaces weights of its base, such as biases or embeddings.

    On a base that it shares, it would change what others say.

    Args:
        folder: The adapter's.
        config: Its configuration.
    """
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
    """What was kept beside a saved adapter; empty for one that was made elsewhere.

    Raises:
        AdapterError: If it is no JSON object.
    """
    path = folder / CARD
    if not path.is_file():
        return {}
    try:
        card = read_json(path)
        if not isinstance(card, dict):
            raise UntrustedError(f"expected an object, got {shown(card)}")
    except UntrustedError as error:
        raise AdapterError(f"{path} cannot be read: {error}") from error
    return card


def check_base(folder: Path, mine: str, name: str) -> None:
    """See that a saved adapter belongs to a base model; one that was made elsewhere does not say.

    Args:
        folder: The adapter's.
        mine: Fingerprint of the base.
        name: Of the base.

    Raises:
        AdapterError: If it was trained on other weights, or cannot be read.
    """
    if read_card(folder).get("base_fingerprint", mine) != mine:
        raise AdapterError(
            f"the adapter at {folder} was trained on {read_adapter_config(folder).base_model_name_or_path!r}, whose "
            f"weights then differ from those of {name!r} now: load the adapter on the base that it was trained on"
        )


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
    if (name := not_finite(state.items())) is not None:
        raise AdapterError(
            f"the weights of {folder} hold NaN or infinity, first in {name}: take an earlier checkpoint, or train again"
        )
    return state
