"""Risk measures over partners, and the weights that they put on them: one module each.

To add one, write a module beside these with a function decorated by `risk_measure`; nothing else has to know.
"""

from llm_sra.objectives.registry import import_modules
from llm_sra.objectives.risk.base import RISKS, Risk, RiskMeasure, RiskOption, risk_measure

__all__ = ["RISKS", "Risk", "RiskMeasure", "RiskOption", "risk_measure"]

import_modules(__name__, __path__)
