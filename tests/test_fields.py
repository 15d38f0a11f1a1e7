"""Every field of TRL's configurations has an effect, is refused unless it keeps its default, or is documented."""

from collections import Counter
from dataclasses import fields
from typing import Any

import pytest
from support import ROOT
from trl import GRPOConfig, ModelConfig

from llm_sra.trainer.config import ModelArguments, SRPOConfig
from llm_sra.trainer.fields import REFUSED, default_of
from llm_sra.trainer.parse import ConfigError, parse

THEIRS = {field.name for cls in (GRPOConfig, ModelConfig) for field in fields(cls)}
BASE = {"model_name_or_path": "some/model", "bf16": False}
# Taken, and without effect on what is trained: scripts and launchers set them.
WITHOUT_EFFECT = (
    "do_train", "do_eval", "do_predict", "remove_unused_columns", "label_names", "local_rank", "dataloader_drop_last",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context", "dataloader_in_order",
)  # fmt: skip

EFFECTIVE = (
    # The model and its adapters
    "model_name_or_path", "model_revision", "dtype", "attn_implementation", "trust_remote_code", "lora_r",
    "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters",
    "use_rslora", "use_dora", "load_in_8bit", "load_in_4bit",
    "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage", "chat_template_kwargs",
    "disable_dropout", "use_liger_kernel", "liger_kernel_config",
    # Steps and the optimizer
    "max_steps", "num_train_epochs", "num_generations", "num_iterations", "per_device_train_batch_size",
    "max_completion_length", "temperature", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs",
    "warmup_steps", "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "seed", "full_determinism",
    # The loss
    "loss_type", "beta", "epsilon", "epsilon_high", "delta", "sapo_temperature_neg", "sapo_temperature_pos",
    "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg", "importance_sampling_level",
    "scale_rewards", "mask_truncated_completions", "entropy_coef", "off_policy_mask_threshold",
    "use_bias_correction_kl",
    # Machines
    "bf16", "tf32", "use_cpu", "gradient_checkpointing", "gradient_checkpointing_kwargs", "ddp_backend",
    "ddp_timeout", "fsdp", "fsdp_config", "deepspeed", "debug", "skip_memory_metrics",
    # Engines
    "vllm_enable_sleep_mode", "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout",
    "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size",
    "vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min", "vllm_importance_sampling_cap",
    # Evaluation, logs and checkpoints
    "output_dir", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "logging_strategy", "logging_steps",
    "logging_first_step", "log_on_each_node", "log_level", "log_level_replica", "disable_tqdm", "report_to",
    "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "hub_private_repo",
    "save_strategy", "save_steps", "save_on_each_node", "save_total_limit", "save_only_model",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "resume_from_checkpoint",
    "restore_callback_states_from_checkpoint",
)  # fmt: skip
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
