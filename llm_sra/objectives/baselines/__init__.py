"""Baselines of group-relative advantages: one module each.

To add one, write a module beside these with a function decorated by `baseline`; nothing else has to know.
"""

from llm_sra.objectives.baselines.base import BASELINES, Baseline, baseline
from llm_sra.objectives.registry import import_modules

__all__ = ["BASELINES", "Baseline", "baseline"]

import_modules(__name__, __path__)
