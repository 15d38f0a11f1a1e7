"""The launchable training program.

accelerate launch --config_file accelerate_configs/cpu.yaml recipes/train.py --config recipes/worksheet/srpo.yaml

Every field of the recipe is also a flag. See `llm_sra.trainer.config` for the method's own, and the documentation of
TRL's GRPOConfig and ModelConfig for all others.
"""

import argparse
import sys
from collections.abc import Sequence

from llm_sra.runs import Run


def main(argv: Sequence[str] | None = None) -> Run:
    """Train as a recipe and flags say."""
    from llm_sra.trainer.parse import parse
    from llm_sra.training import run_training

    which = argparse.ArgumentParser("llm-sra train", add_help=False, allow_abbrev=False)
    which.add_argument("--config")
    recipe, flags = which.parse_known_args(argv)
    model_args, args = parse(recipe.config, flags)
    try:
        run = run_training(model_args, args)
    except KeyboardInterrupt:
        print("`--resume_from_checkpoint true` goes on from the last checkpoint, if there is one", file=sys.stderr)
        raise
    if args.process_index == 0:
        roster = "worksheet_test" if args.task == "worksheet" else "ROSTER"
        print(f"trained: {run.path}\nnext:    llm-sra eval --run {run.path} --roster {roster} --out {run.path}/report")
    return run


if __name__ == "__main__":
    from recipes.cli import run_command

    sys.exit(run_command(main))
