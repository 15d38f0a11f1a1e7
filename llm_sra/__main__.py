"""`python -m llm_sra`: the command line `llm-sra`, which ships beside this package."""

import sys
from importlib import import_module

sys.exit(import_module("recipes.cli").main())
