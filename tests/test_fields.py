"""Every field of TRL's configurations has an effect, is refused unless it keeps its default, or is documented."""

from collections import Counter
from dataclasses import fields
from typing import Any

import pytest
from support import ROOT
from trl import GRPOConfig, ModelConfig

from llm_sra.trainer.config import ModelArguments, SRPOConfig
from llm_sra.trainer.fields import EFFECTIVE, REFUSED, WITHOUT_EFFECT, default_of
from llm_sra.trainer.parse import ConfigError, parse

THEIRS = {field.name for cls in (GRPOConfig, ModelConfig) for field in fields(cls)}
BASE = {"model_name_or_path": "some/model", "bf16": False}
# What recipes and flags write for another value than the default.
OTHER: dict[str, Any] = {
    "lora_task_type": "SEQ_CLS",
    "train_sampling_strategy": "sequential",
    "length_column_name": "size",
    "multi_objective_aggregation": "normalize_then_sum",
    "vllm_mode": "server",
    "vllm_model_impl": "transformers",
    "hub_strategy": "end",
    "hub_token": "none",
    "include_num_input_tokens_seen": True,
    "optim_target_modules": "all-linear",
    "pad_to_multiple_of": 8,
    "parallelism_config": {"tp_size": 1},
}


def other(name: str) -> Any:
    """A value that a field does not have by default."""
    cls = ModelArguments if name in {field.name for field in fields(ModelArguments)} else SRPOConfig
    default = default_of(cls, name)
    if name in OTHER:
        return OTHER[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    hint = str(next(field.type for field in fields(cls) if field.name == name))
    for kind, value in (("list", ["x"]), ("dict", {"x": 1}), ("bool", True), ("int", 7), ("float", 0.5), ("str", "x")):
        if kind in hint:
            return value
    raise AssertionError(f"{name}: {hint}")


def test_every_field_is_in_exactly_one_list() -> None:
    counted = Counter([*EFFECTIVE, *REFUSED, *WITHOUT_EFFECT])
    assert sorted(THEIRS - counted.keys()) == []  # a new version brought these: find out what they do here
    assert sorted(counted.keys() - THEIRS) == []
    assert [name for name, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {"use_peft"}))  # that one is in test_config.py
def test_a_field_that_would_do_nothing_is_refused_by_name_with_what_to_do(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must stay .* \\(.*\\), got ") as caught:
        parse(None, overrides={**BASE, name: other(name)})
    assert REFUSED[name] in str(caught.value)


def test_fields_without_effect_are_taken_and_documented() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    assert [name for name in (*WITHOUT_EFFECT, *REFUSED) if f"`{name}`" not in text] == []
    values = {name: other(name) for name in ("remove_unused_columns", "dataloader_num_workers", "do_predict")}
    args = parse(None, overrides={**BASE, **values})[1]
    assert {name: getattr(args, name) for name in values} == values


MODEL_FLAGS = {
    "a head": ({"lora_target_modules": ["q_proj", "lm_head"]}, "lora_target_modules names lm_head, which cannot be"),
    "a head by its path": ({"lora_target_modules": ["model.lm_head", "q_proj"]}, "names lm_head"),
    "a head by a pattern": ({"lora_target_modules": [".*(q_proj|lm_head)"]}, "names lm_head"),
    "embeddings": ({"lora_target_modules": ["q_proj", "embed_tokens"]}, "names embed_tokens.*all-linear means every"),
    "embeddings of GPT-2": ({"lora_target_modules": ["wte", "c_attn"]}, "names wte"),
    "a broken pattern": ({"lora_target_modules": ["(q_proj"]}, r"'\(q_proj' is not a regular expression"),
    "whole modules": ({"lora_modules_to_save": ["lm_head"]}, "lora_modules_to_save must stay None .*raise lora_r"),
    "DoRA in vLLM": ({"use_dora": True, "engine": "vllm"}, "use_dora needs engine transformers.*got vllm"),
    "stacks in vLLM": ({"lora_target_parameters": ["a.b"], "engine": "server"}, "lora_target_parameters needs engine"),
}


@pytest.mark.parametrize("case", MODEL_FLAGS)
def test_adapters_that_cannot_be_trained_are_refused_before_a_model_is_looked_for(case: str) -> None:
    values, message = MODEL_FLAGS[case]
    with pytest.raises(ConfigError, match=message):
        parse(None, overrides={**BASE, **values})


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("load_in_4bit", "bitsandbytes", "bitsandbytes"),
        ("load_in_8bit", "bitsandbytes", "bitsandbytes"),
        ("use_liger_kernel", "liger_kernel", "liger-kernel"),
    ],
)
def test_a_flag_whose_package_is_missing_says_what_to_install(
    name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_sra.trainer.fields.find_spec", lambda asked: None if asked == module else "there")
    with pytest.raises(ConfigError, match=f"^{name} needs {package}, which is not installed: pip install {package}$"):
        parse(None, overrides={**BASE, name: True})
    monkeypatch.setattr("llm_sra.trainer.fields.find_spec", lambda asked: "there")
    monkeypatch.setattr("llm_sra.trainer.config.needs_gpu", lambda *field: None)
    both = parse(None, overrides={**BASE, name: True})
    assert any(getattr(part, name, False) for part in both)


def test_a_flag_that_only_a_gpu_can_serve_is_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_sra.trainer.fields.find_spec", lambda asked: "there")
    with pytest.raises(ConfigError, match=r"^use_liger_kernel needs a GPU, got a CPU: .*Triton\. Leave it out, or"):
        parse(None, overrides={**BASE, "use_liger_kernel": True, "use_cpu": True})
