"""The launchable training program.

accelerate launch --config_file accelerate_configs/cpu.yaml recipes/train.py --config recipes/worksheet/srpo.yaml

Every field of the recipe is also a flag. See `llm_sra.trainer.config` for the method's own, and the documentation of
TRL's GRPOConfig and ModelConfig for all others.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_sra.runs import Run


def main(argv: Sequence[str] | None = None) -> Run:
    """Train as a recipe and flags say."""
    from llm_sra.trainer.parse import parse
    from llm_sra.training import run_training

    which = argparse.ArgumentParser("llm-sra train", add_help=False, allow_abbrev=False)
    which.add_argument("--config")
    recipe, flags = which.parse_known_args(argv)
    model_args, args = parse(recipe.config, flags)
    args.dev_roster, args.partners = found(args.dev_roster), found(args.partners)
    try:
        run = run_training(model_args, args)
    except KeyboardInterrupt:
        print("`--resume_from_checkpoint true` goes on from the last checkpoint, if there is one", file=sys.stderr)
        raise
    if args.process_index == 0:
        from eval.crossplay import ROSTERS

        roster = f"{args.task}_test" if (ROSTERS / f"{args.task}_test.yaml").is_file() else "ROSTER"
        print(f"trained: {run.path}\nnext:    llm-sra eval --run {run.path} --roster {roster} --out {run.path}/report")
    return run


def found(roster: str | None) -> str | None:
    """The file of a roster, as `llm-sra eval` finds it; what is no file is looked up among the shipped ones."""
    if not roster or Path(roster).is_file():
        return roster
    from eval.crossplay import find_roster

    return str(find_roster(roster))


if __name__ == "__main__":
    from recipes.cli import run_command

    sys.exit(run_command(main))
