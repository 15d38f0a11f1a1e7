"""Which modules of a model may get adapters: looked up on the model's skeleton, before any weights are loaded."""

import re
from collections.abc import Sequence

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM, PretrainedConfig

from llm_sra.models.adapter_files import AdapterError

HEADS = ("lm_head", "embed_out")
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
_WHY = {
    HEADS: "log-probabilities are computed from the head's own weights, without adapter",
    EMBEDDINGS: "vLLM cannot serve it, and where embeddings are tied to the head, a merged model would differ",
}


def check_head(targets: str | Sequence[str] | None) -> None:
    """Check that neither the head nor the embeddings would get adapters.

    Args:
        targets: As in PEFT's `target_modules`: `all-linear`, a regular expression, or names.

    Raises:
        AdapterError: If one would; names it.
    """
    for names, why in _WHY.items():
        for name in names:
            if _hits(targets, name):
                raise AdapterError(_refusal(name, why))


def check_targets(config: PretrainedConfig, lora: LoraConfig, served: bool, trust_remote_code: bool = False) -> None:
    """Check that adapters of a shape fit a model.

    Args:
        config: The model's.
        lora: The adapters' shape.
        served: Whether vLLM serves the adapters.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        AdapterError: If no module of the model is among the targets, if its head or embeddings are, or, with vLLM, if
            stacked experts are.
    """
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    ends = {"head": skeleton.get_output_embeddings(), "embeddings": skeleton.get_input_embeddings()}
    names = {part: name for name, module in skeleton.named_modules() for part in ends if module is ends[part]}
    try:
        tuned = get_peft_model(skeleton, LoraConfig(**lora.to_dict()), low_cpu_mem_usage=True)
    except ValueError as error:
        raise AdapterError(
            f"lora_target_modules {_shown(lora.target_modules)} do not fit a {config.model_type} model: {error}. Set "
            "lora_target_modules to all-linear, or to names of the model's linear layers"
        ) from error
    for part, why in (("head", _WHY[HEADS]), ("embeddings", _WHY[EMBEDDINGS])):
        if part in names and isinstance(tuned.get_base_model().get_submodule(names[part]), BaseTunerLayer):
            raise AdapterError(_refusal(names[part], why))
    experts = tuned.peft_config["default"].target_parameters
    if served and experts:
        raise AdapterError(
            f"the adapters would change {', '.join(sorted(experts))}: experts whose weights are stacked, which vLLM "
            "cannot serve adapters of. Set engine to transformers, or lora_target_modules to the attention alone: "
            "q_proj k_proj v_proj o_proj"
        )


def _hits(targets: str | Sequence[str] | None, name: str) -> bool:
    if targets is None or targets in ("all-linear", ["all-linear"]):
        return False
    if isinstance(targets, str):
        try:
            return any(re.fullmatch(targets, path) for path in (name, f"model.{name}", f"transformer.{name}"))
        except re.error as error:
            raise AdapterError(f"lora_target_modules {targets!r} is not a regular expression: {error}") from error
    return any(target == name or target.endswith(f".{name}") for target in targets)


def _refusal(name: str, why: str) -> str:
    return (
        f"lora_target_modules names {name}, which cannot be trained: {why}. Leave it out: all-linear means every "
        "linear layer but the head"
    )


def _shown(targets: object) -> str:
    return ", ".join(sorted(targets)) if isinstance(targets, (set, list, tuple)) else str(targets)
