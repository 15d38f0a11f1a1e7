"""The help of `llm-sra train`: the method first, then what is commonly set; `--help-all` lists every field.

TRL and transformers, whose fields these are, take seconds to import. So the short help is kept as text beside this
module: `python -m recipes.commands.train_help` writes it anew, and a test says when that is due.
"""

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path

SHORT = Path(__file__).with_name("train_help.txt")
WIDTH = 100  # characters
COMMON = {
    "What is trained on": (
        "task", "task_args", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "seed",
        "model_name_or_path", "dtype", "lora_r", "lora_alpha", "lora_target_modules",
        "initial_adapter",
    ),
    "The budget of a step": (
        "max_steps", "problems_per_step", "num_generations", "max_completion_length", "temperature",
        "per_device_train_batch_size", "gradient_checkpointing",
    ),
    "The optimizer": (
        "learning_rate", "lr_scheduler_type", "warmup_steps", "max_grad_norm", "loss_type", "num_iterations",
    ),
    "Where replies come from": (
        "engine", "vllm_server_base_url", "vllm_gpu_memory_utilization", "vllm_max_model_length",
    ),
    "While it trains": (
        "dev_roster", "trust_scripts", "dev_problems", "eval_strategy", "eval_steps", "save_strategy", "save_steps",
        "load_best_model_at_end", "log_episodes", "report_to", "use_cpu", "bf16",
    ),
}  # fmt: skip
# In place of what TRL and transformers say of them at length, or of other programs.
WORDS = {
    "resume_from_checkpoint": "true: go on from the newest checkpoint in output_dir, or begin if there is none; or the "
    "folder of a checkpoint.",
    "max_steps": "Training steps, each with an optimizer update of every agent.",
    "num_generations": "Episodes of each problem: a group, whose returns are compared.",
    "loss_type": "How token losses are added up: dapo (over all tokens of the step), grpo, dr_grpo, bnpo, cispo, sapo, "
    "luspo or vespo, as TRL's GRPOConfig explains.",
}
USAGE = "llm-sra train --config RECIPE [--FIELD VALUE ...]"
HEAD = (
    "Train agents by a recipe, a YAML file or the name of a shipped one (llm-sra list recipes). Any field of a recipe "
    "is a flag, too, and replaces its value. The fields are those of TRL's GRPOConfig and ModelConfig under their own "
    "names, and the method's."
)
FOOT = "--help-all lists every field; docs/recipes.md explains them."


def short_help() -> str:
    """The method's fields, and those that are commonly set."""
    return _help(_listed(), FOOT)


def full_help() -> str:
    """All fields: first those of the short help, then the rest."""
    listed = _listed()
    named = {name for names in listed.values() for name in names}
    return _help({**listed, "All other fields": [name for name in _fields() if name not in named]}, None)


def _listed() -> dict[str, Iterable[str]]:
    """The fields of the short help by their heading."""
    from dataclasses import fields

    from llm_sra.trainer.objective import ObjectiveArguments

    return {"The method": [field.name for field in fields(ObjectiveArguments)], **COMMON}


def _fields() -> dict[str, argparse.Action]:
    """Every field of a recipe by its name."""
    from llm_sra.trainer.parse import make_parser

    return {action.dest: action for action in make_parser()._actions if action.dest not in ("help", "config")}


def _help(groups: dict[str, Iterable[str]], foot: str | None) -> str:
    known = _fields()
    parser = argparse.ArgumentParser(
        usage=USAGE, description=HEAD, epilog=foot, add_help=False,
        formatter_class=partial(argparse.ArgumentDefaultsHelpFormatter, width=WIDTH, max_help_position=6),
    )  # fmt: skip
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for name in names:
            action = known[name]
            action.option_strings = [f"--{name}"]
            action.metavar = action.metavar or _metavar(action)
            action.help = WORDS.get(name, action.help)
            group._add_action(action)
    return parser.format_help()


def _metavar(action: argparse.Action) -> str | None:
    """What a value is, short."""
    if action.choices is not None or action.nargs == 0:
        return None
    return {"int": "INT", "float": "NUMBER", "string_to_bool": "BOOL"}.get(
        getattr(action.type, "__name__", ""), "VALUE"
    )


if __name__ == "__main__":
    SHORT.write_text(short_help(), encoding="utf-8")
