"""The launchable training program.

accelerate launch --config_file accelerate_configs/cpu.yaml recipes/train.py --config recipes/worksheet/srpo.yaml

Every field of the recipe is also a flag. See `llm_sra.trainer.config` for the method's own, and the documentation of
TRL's GRPOConfig and ModelConfig for all others.
"""

import sys
from collections.abc import Sequence

from llm_sra.runs import Run


def main(argv: Sequence[str] | None = None) -> Run:
    """Train as a recipe and flags say."""
    from llm_sra.trainer.parse import parse
    from llm_sra.training import run_training

    flags = list(sys.argv[1:] if argv is None else argv)
    recipe = None
    if "--config" in flags:
        at = flags.index("--config")
        recipe = flags[at + 1] if at + 1 < len(flags) else ""
        del flags[at : at + 2]
    run = run_training(*parse(recipe, flags))
    print(
        f"trained: {run.path}\nnext:    llm-sra eval --run {run.path} --roster worksheet_test --out {run.path}/report"
    )
    return run


if __name__ == "__main__":
    from recipes.cli import run_command

    sys.exit(run_command(main))
