"""`llm-sra train`: train agents by a recipe and flags."""

import argparse
from collections.abc import Sequence
from typing import Any

from llm_sra.registry import shipped_rosters
from llm_sra.runs import Run
from recipes.stopping import stopping


def main(argv: Sequence[str] | None = None) -> Run:
    """Train by a recipe and flags, and print the next command.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ConfigError: If the recipe or a flag cannot be used.
        RunError: If the run folder is in use.
    """
    from transformers import TrainerCallback

    from llm_sra.trainer.parse import parse
    from llm_sra.training import run_training

    class Begun(TrainerCallback):  # type: ignore[misc]
        """Knows when there is something to resume."""

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stopping.resumable = True

    which = argparse.ArgumentParser("llm-sra train", add_help=False, allow_abbrev=False)
    which.add_argument("--config")
    recipe, flags = which.parse_known_args(argv)
    model_args, args = parse(recipe.config, flags)
    with stopping.training():
        run = run_training(model_args, args, [Begun()])
    if args.process_index == 0:
        roster = f"{args.task}_test" if f"{args.task}_test" in shipped_rosters() else "ROSTER"
        print(f"trained: {run.path}\nnext:    llm-sra eval --run {run.path} --roster {roster} --out {run.path}/report")
    return run
