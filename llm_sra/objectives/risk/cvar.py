"""Conditional value at risk (CVaR): the mean over the worst share of partners.

Source: Rockafellar and Uryasev, *Optimization of Conditional Value-at-Risk* (2000).
"""

import torch

from llm_sra.objectives.risk.base import Risk, RiskOption, checked, risk_like, risk_measure

SHARE = RiskOption("alpha", "risk_alpha", lambda alpha: 0 < alpha <= 1, "lie in (0, 1]")


@risk_measure("cvar", "the mean over the worst share risk_alpha", SHARE)
def cvar(returns: torch.Tensor, alpha: float, prior: torch.Tensor | None = None) -> Risk:
    """The mean return over the worst share α of the prior's mass.

    The least Σ w_z R_z with w_z <= w0_z / α: the worst partners get their largest weight one after the other, until the
    weights sum to 1. Partners with equal returns at the boundary share what is left in proportion to their priors.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        alpha: The share, above 0, at most 1 (the expectation).
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If an argument is out of its range or has the wrong shape.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is the share of the worst partners, above 0 and at most 1, got {alpha}")
    values, start = checked(returns, prior)
    below = (start * (values[None, :] < values[:, None])).sum(dim=1)  # the prior's mass on worse partners
    level = (start * (values[None, :] == values[:, None])).sum(dim=1)  # and on equally bad ones, itself among them
    filled = torch.minimum((alpha - below).clamp(min=0), level)
    # 0 / 0 only for partners that the prior leaves out.
    weights = torch.where(start > 0, start * filled / (alpha * level), 0)
    weights = weights / weights.sum()  # 1 but for rounding
    return risk_like(returns, (weights * values).sum(), weights)
