"""The mean return of the group's other episodes: RLOO's baseline (arXiv 2402.14740).

It is unbiased. An episode's own part in the mean shrinks its advantage by 1 - 1/G, and so makes ε and the exact form of
the tether weigh G / (G - 1) times as much.
"""

import torch

from llm_sra.objectives.baselines.base import baseline
from llm_sra.objectives.baselines.mean import mean


@baseline("leave_one_out", "the mean of the group's other episodes")
def leave_one_out(returns: torch.Tensor) -> torch.Tensor:
    """(groups, G) returns minus the mean of the others of their group."""
    return mean(returns) * returns.shape[1] / (returns.shape[1] - 1)
