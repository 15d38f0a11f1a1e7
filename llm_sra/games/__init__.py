"""Exact risk-averse quantal response equilibria of two-player matrix games: what training is held against.

Nothing here learns or samples; `known` has the text-book games.
"""

from llm_sra.games.certificate import exploitability
from llm_sra.games.equilibrium import Equilibrium, equilibria, symmetric
from llm_sra.games.game import MatrixGame, RiskProfile, two_player

__all__ = [
    "Equilibrium",
    "MatrixGame",
    "RiskProfile",
    "equilibria",
    "exploitability",
    "symmetric",
    "two_player",
]
