"""The help of `llm-sra train`: the method first, then what is commonly set; `--help-all` lists every field.

`python -m recipes.commands.train_help` writes what is known of the fields anew, to `recipes/fields.json`.
"""

import argparse
import json
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, NoReturn

from recipes.fields import TABLE, fields_parser, read_table

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
    return _help(_groups(whole=False), usage=USAGE, description=HEAD, epilog=FOOT)


def full_help() -> str:
    """All fields: first those of the short help, then the rest."""
    return _help(_groups(whole=True), usage=USAGE, description=HEAD)


class HelpAll(argparse.Action):
    """`--help-all` of a command that takes fields: its help, and every field."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        print(f"{parser.format_help()}\n{field_groups(without=parser._option_string_actions)}", end="")
        parser.exit()


def takes_fields(parser: argparse.ArgumentParser) -> None:
    """Say in a command's help that it takes the fields of a recipe, too, and give it `--help-all`."""
    parser.add_argument("--help-all", action=HelpAll, nargs=0, help="show this and every field of a recipe, and exit")


def field_groups(without: Collection[str]) -> str:
    """All fields, without a head: to stand below the help of another command that takes them.

    Args:
        without: Flags of the command itself, which take the place of fields of that name.
    """
    groups = _groups(whole=True).items()
    left = {title: [one for one in actions if f"--{one.dest}" not in without] for title, actions in groups}
    return _help(left, usage=argparse.SUPPRESS)


def _help(groups: Mapping[str, Iterable[argparse.Action]], **texts: str) -> str:
    parser = argparse.ArgumentParser(
        add_help=False, **texts,  # type: ignore[arg-type]  # usage, description, epilog
        formatter_class=partial(argparse.ArgumentDefaultsHelpFormatter, width=WIDTH, max_help_position=6),
    )  # fmt: skip
    for title, actions in groups.items():
        group = parser.add_argument_group(title)
        for action in actions:
            group._add_action(action)
    return parser.format_help()


def _groups(whole: bool) -> dict[str, list[argparse.Action]]:
    """The fields by their heading; whole: those that are not commonly set, too."""
    known: dict[str, argparse.Action] = {}
    for action in fields_parser()._actions:
        if known.setdefault(action.dest, action) is action:  # the other is its --no_...
            action.option_strings = [f"--{action.dest}"]
    of_method = [row for row in read_table() if row["method"] is not None]
    method = [row["dest"] for row in sorted(of_method, key=lambda row: int(row["method"]))]
    groups = {"The method": method, **{title: list(names) for title, names in COMMON.items()}}
    if whole:
        listed = {name for names in groups.values() for name in names}
        groups["All other fields"] = [name for name in known if name not in listed]
    return {title: [known[name] for name in dict.fromkeys(names)] for title, names in groups.items()}


def make_table() -> list[dict[str, Any]]:
    """What is known of each flag, as the configuration says; see `recipes.fields`."""
    from dataclasses import fields

    from llm_sra.trainer.objective import ObjectiveArguments
    from llm_sra.trainer.parser import NUMBERS, make_parser

    method = [field.name for field in fields(ObjectiveArguments)]
    return [
        {
            "dest": action.dest,
            "flags": list(action.option_strings),
            "nargs": action.nargs,
            "kind": NUMBERS[action.dest][0].__name__ if action.dest in NUMBERS else None,
            "choices": None if action.choices is None else [str(getattr(one, "value", one)) for one in action.choices],
            "metavar": _metavar(action),
            "default": str(getattr(action.default, "value", action.default)),
            "method": method.index(action.dest) if action.dest in method else None,
            "help": WORDS.get(action.dest, action.help),
        }
        for action in make_parser()._actions
        if action.dest not in ("help", "config")
    ]


def _metavar(action: argparse.Action) -> str | None:
    """What a value is, short."""
    if action.choices is not None or action.nargs == 0:
        return None
    return {"int": "INT", "float": "NUMBER", "string_to_bool": "BOOL"}.get(
        getattr(action.type, "__name__", ""), "VALUE"
    )


def as_text(table: list[dict[str, Any]]) -> str:
    """The table as JSON, a flag a line."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in table) + "\n]\n"


if __name__ == "__main__":
    TABLE.write_text(as_text(make_table()), encoding="utf-8")
