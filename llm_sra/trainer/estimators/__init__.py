"""Estimators of advantages: one module for each algorithm and level.

To add one, write a module beside these with a function decorated by `estimator`; nothing else has to know.
"""

from llm_sra.objectives.registry import import_modules
from llm_sra.trainer.estimators.base import (
    ESTIMATORS,
    Estimator,
    EstimatorInputs,
    EstimatorOptions,
    algorithms,
    estimator,
    find_estimator,
    levels,
)

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "EstimatorInputs",
    "EstimatorOptions",
    "algorithms",
    "estimator",
    "find_estimator",
    "levels",
]

import_modules(__name__, __path__)
