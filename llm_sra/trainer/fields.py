"""Which fields of TRL's `GRPOConfig` and `ModelConfig` must keep their defaults, and why.

The others have an effect here, or change nothing of what is trained, which the documentation says.
`tests/test_fields.py` lists all of them, and fails for a field that a new version brings.
"""

from dataclasses import MISSING, fields
from importlib.util import find_spec
from typing import Any

from transformers.utils import is_torch_bf16_gpu_available, is_torch_xla_available

_WHOLE = "the trained log-probabilities are those of the whole distribution"
_TASK = "rewards come from the task"
_DEV = "evaluations play the dev roster; set dev_problems"
_HUB = "upload with `llm-sra export --push_to_hub`"
_ENGINES = "replies come from the engine; set `engine`"
_EPISODES = "episodes/ of the run folder has what was said; set log_episodes"
_BONUS = "set entropy_coef and adversary_entropy_coef"
_REFERENCE = "the reference of beta is the base model, which is frozen"
_DDP = "gradients are averaged by the trainer, without DistributedDataParallel"
_STEPS = "problems are drawn by `seed`, and prompts are never sorted or padded by the data loader"
_COMPILE = "the adapters' forward passes are not compiled"
_MODEL = "set dtype, attn_implementation and model_revision"

# By field, why it must keep its default.
REFUSED = {
    # The model and its adapters
    "use_peft": "every policy is a LoRA adapter on one frozen base model",
    "lora_modules_to_save": (
        "a module that is trained whole would be shared by all agents; raise lora_r, or name further modules in "
        "lora_target_modules"
    ),
    "lora_task_type": "agents are causal language models",
    # Batches and steps
    "gradient_accumulation_steps": (
        "per_device_train_batch_size is the micro-batch; gradients always accumulate over the whole rollout"
    ),
    "steps_per_generation": "one step is one rollout; set problems_per_step and num_generations",
    "generation_batch_size": "set problems_per_step and num_generations",
    "num_generations_eval": "evaluations play the dev roster; set dev_problems",
    "auto_find_batch_size": "lower per_device_train_batch_size, which changes memory and not the gradient",
    "average_tokens_across_devices": "losses are always normalised over all processes",
    "train_sampling_strategy": _STEPS,
    "length_column_name": _STEPS,
    "shuffle_dataset": _STEPS,
    "data_seed": _STEPS,
    "ignore_data_skip": _STEPS,
    "pad_to_multiple_of": "rows are padded to the longest of their micro-batch",
    "accelerator_config": _STEPS,
    "parallelism_config": "only data parallel training was tested",
    "include_num_input_tokens_seen": "the log has the tokens of replies",
    "torch_empty_cache_steps": "lower per_device_train_batch_size or rollout_batch_size",
    # Sampling
    "top_p": _WHOLE,
    "top_k": _WHOLE,
    "min_p": _WHOLE,
    "repetition_penalty": "the trained log-probabilities are those of the plain distribution",
    "generation_kwargs": _WHOLE,
    "cache_implementation": _ENGINES,
    "use_vllm": "TRL's own vLLM sync merges one adapter into the base: set engine to vllm or server",
    "vllm_mode": "set engine to vllm or server",
    "vllm_model_impl": "vLLM chooses it",
    "vllm_group_port": "adapters reach servers as files; set engine_adapter_dir",
    "vllm_structured_outputs_regex": "a task names its words as `choices`",
    "use_transformers_continuous_batching": _ENGINES,
    "transformers_continuous_batching_config": _ENGINES,
    "use_transformers_paged": _ENGINES,
    "use_cache": "generation always uses the cache, training never",
    "ds3_gather_for_generation": _ENGINES,
    "max_tool_calling_iterations": "tasks have turns, not tools",
    # The loss
    "use_adaptive_entropy": _BONUS,
    "entropy_coef_min": _BONUS,
    "entropy_coef_max": _BONUS,
    "entropy_coef_delta": _BONUS,
    "entropy_target": _BONUS,
    "top_entropy_quantile": "it would leave tokens out of the policy term, but not out of the entropy term",
    "router_aux_loss_coef": "routers are frozen, so there is no balance of experts to train",
    "label_smoothing_factor": "the loss is the policy's, not that of labels",
    "neftune_noise_alpha": "noise would make log-probabilities differ from those of the rollout",
    "reward_weights": _TASK,
    "multi_objective_aggregation": _TASK,
    "sync_ref_model": _REFERENCE,
    "ref_model_mixup_alpha": _REFERENCE,
    "ref_model_sync_steps": _REFERENCE,
    # Numbers
    "fp16": "use bf16, or float32",
    "fp16_full_eval": "evaluations play with the weights as they are loaded; set dtype",
    "bf16_full_eval": "evaluations play with the weights as they are loaded; set dtype",
    "cast_lm_head_to_fp32": "set dtype to float32",
    "logging_nan_inf_filter": "a NaN is an error, never replaced by a value",
    "model_init_kwargs": _MODEL,
    "optim_target_modules": "adapters are trained as a whole, each in its own parameter group",
    "torch_compile": _COMPILE,
    "torch_compile_backend": _COMPILE,
    "torch_compile_mode": _COMPILE,
    "ddp_find_unused_parameters": _DDP,
    "ddp_bucket_cap_mb": _DDP,
    "ddp_broadcast_buffers": _DDP,
    "ddp_static_graph": _DDP,
    # Evaluation and logs
    "per_device_eval_batch_size": _DEV,
    "prediction_loss_only": _DEV,
    "eval_do_concat_batches": _DEV,
    "eval_use_gather_object": _DEV,
    "eval_accumulation_steps": _DEV,
    "include_for_metrics": _DEV,
    "batch_eval_metrics": _DEV,
    "log_completions": _EPISODES,
    "log_multimodal": _EPISODES,
    "num_completions_to_print": _EPISODES,
    "log_unique_prompts": _EPISODES,
    "log_completions_hub_repo": _EPISODES,
    # Saving and uploading
    "enable_jit_checkpoint": "a run goes on from its last checkpoint; set save_steps",
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
}
ALSO: dict[str, tuple[object, ...]] = {  # other spellings of a default
    "top_k": (None,),
    "include_num_input_tokens_seen": (False,),
}


def default_of(cls: type, name: str) -> object:
    """The default of a dataclass's field."""
    field = next(field for field in fields(cls) if field.name == name)
    return field.default_factory() if field.default_factory is not MISSING else field.default


def changed(config: Any, name: str) -> bool:
    """Whether a field of a configuration has another value than its default."""
    return getattr(config, name) not in (default_of(type(config), name), *ALSO.get(name, ()))


def refusal(config: Any, name: str) -> str:
    """What is said of a field that must keep its default."""
    default = default_of(type(config), name)
    return f"{name} must stay {default!r} ({REFUSED[name]}), got {getattr(config, name)!r}"


def refused_of(cls: type) -> list[str]:
    """The fields of a dataclass that must keep their defaults."""
    return [field.name for field in fields(cls) if field.name in REFUSED]


def needs_package(field: str, module: str, package: str) -> None:
    """Check that what a field needs is installed.

    Raises:
        ValueError: If it is not; says what to install.
    """
    if find_spec(module) is None:
        raise ValueError(f"{field} needs {package}, which is not installed: pip install {package}")


def check_bf16(bf16: bool | None, use_cpu: bool) -> None:
    """See that there is a GPU for bf16, which is on unless it is set to false.

    Raises:
        ValueError: If training is not said to run on the processor, and no device here has bf16.
    """
    if bf16 is not False and not use_cpu and not is_torch_bf16_gpu_available() and not is_torch_xla_available():
        raise ValueError(
            "bf16 needs a GPU that has it, and none was found here: to train on a CPU, add --use_cpu true --bf16 false"
        )


def needs_gpu(field: str, device: str, why: str) -> None:
    """See that a field that only a GPU can serve has one.

    Raises:
        ValueError: If training is to run on the processor.
    """
    if device == "cpu":
        raise ValueError(f"{field} needs a GPU, got a CPU: {why}. Leave it out, or train on a machine with a GPU")
