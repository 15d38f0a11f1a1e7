"""`llm-sra train`: train agents by a recipe and flags."""

import argparse
from collections.abc import Sequence
from typing import Any

from llm_sra.registry import find_recipe, shipped_rosters
from llm_sra.runs import Run
from recipes.fields import check_early
from recipes.stopping import stopping


def main(argv: Sequence[str] | None = None) -> Run | None:
    """Train by a recipe and flags, and print the next command.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Returns:
        The run; None if its help was asked for.

    Raises:
        ConfigError: If the recipe or a flag cannot be used.
        RunError: If the run folder is in use.
    """
    which, flags = parser().parse_known_args(argv)
    if which.help or which.help_all:
        print(_help(which.help_all), end="")
        return None
    if which.config:
        find_recipe(which.config)
    check_early(which.config, flags)  # before the imports below, which take seconds
    from transformers import TrainerCallback

    from llm_sra.trainer.parse import parse
    from llm_sra.training import run_training

    class Begun(TrainerCallback):  # type: ignore[misc]
        """Knows when there is something to resume."""

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stopping.resumable = True

    model_args, args = parse(which.config, flags)
    with stopping.training():
        run = run_training(model_args, args, [Begun()])
    if args.process_index == 0:
        roster = f"{args.task}_test" if f"{args.task}_test" in shipped_rosters() else "ROSTER"
        print(f"trained: {run.path}\nnext:    llm-sra eval --run {run.path} --roster {roster} --out {run.path}/report")
    return run


def parser() -> argparse.ArgumentParser:
    """The flags beside those of the fields."""
    parser = argparse.ArgumentParser("llm-sra train", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", help="recipe: a YAML file, or a shipped one's name")
    parser.add_argument("-h", "--help", action="store_true", help="show the fields that are commonly set")
    parser.add_argument("--help-all", action="store_true", help="show every field")
    return parser


def _help(whole: bool) -> str:
    from recipes.commands.train_help import full_help, short_help

    return full_help() if whole else short_help()
