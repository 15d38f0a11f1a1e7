"""The launchable training program.

accelerate launch --config_file "$(llm-sra list accelerate_configs --path cpu)" -m recipes.train --config worksheet/srpo

Every field of the recipe is also a flag. The method's own fields are in `llm_sra.trainer.config`; the documentation of
TRL's GRPOConfig and ModelConfig has all others. `llm-sra train` is the same in one process.
"""

import sys

from recipes.stopping import stopping

if __name__ == "__main__":
    stopping.install([sys.executable, "-m", "recipes.train"])  # before the imports below: they take seconds

from recipes.commands.train import main
from recipes.terminal import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
