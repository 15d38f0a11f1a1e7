"""The mean return of the whole group: GRPO's baseline (DeepSeekMath, arXiv 2402.03300)."""

import torch

from llm_sra.objectives.baselines.base import baseline


@baseline("mean", "the mean of the group")
def mean(returns: torch.Tensor) -> torch.Tensor:
    """(groups, G) returns minus the mean of their group."""
    return returns - returns.mean(dim=1, keepdim=True)
