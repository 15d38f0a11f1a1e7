"""The launchable training program.

accelerate launch --config_file accelerate_configs/cpu.yaml recipes/train.py --config worksheet/srpo

Every field of the recipe is also a flag. See `llm_sra.trainer.config` for the method's own, and the documentation of
TRL's GRPOConfig and ModelConfig for all others. `llm-sra train` is the same in one process.
"""

import sys

from recipes.commands.train import main
from recipes.terminal import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
