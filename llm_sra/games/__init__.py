"""Exact risk-averse quantal response equilibria of two-player matrix games: what training is held against.

Nothing here learns or samples; `known` has the text-book games.
"""

from llm_sra.games.certificate import exploitability
from llm_sra.games.equilibrium import Equilibrium, equilibria, symmetric
from llm_sra.games.free_riding import effort_gap, free_riding_region
from llm_sra.games.game import MatrixGame, RiskProfile, two_player

__all__ = [
    "Equilibrium",
    "MatrixGame",
    "RiskProfile",
    "effort_gap",
    "equilibria",
    "exploitability",
    "free_riding_region",
    "symmetric",
    "two_player",
]
