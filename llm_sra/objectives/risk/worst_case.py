"""The least return over partners: the limit of entropic risk for an infinite τ, and of CVaR for a share of 0."""

import torch

from llm_sra.objectives.risk.base import Risk, checked, risk_like, risk_measure


@risk_measure("worst_case", "the worst partner alone")
def worst_case(returns: torch.Tensor, prior: torch.Tensor | None = None) -> Risk:
    """The least return of all partners with a prior above 0; equally bad ones share the weight by their priors.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If returns or prior are out of range or have the wrong shape.
    """
    values, start = checked(returns, prior)
    least = values[start > 0].min()
    weights = torch.where(values == least, start, 0)
    return risk_like(returns, least, weights / weights.sum())
