"""Weights by rank: the worse a partner goes, the more it counts, by its place alone.

Source: the prioritised sampling of MEP (arXiv 2112.11701), which draws partner z with probability in proportion to
rank(1 / R_z)^β. Here partners are weighed where MEP draws them, which is the same on average. As a risk measure it is
spectral (Acerbi, *Spectral Measures of Risk*, 2002).
"""

import torch

from llm_sra.objectives.risk.base import Risk, RiskOption, checked, risk_like, risk_measure

POWER = RiskOption("power", "risk_power", lambda power: 0 <= power < float("inf"), "be 0 or more and finite")


@risk_measure("rank", "weights by rank from best to worst, to the power risk_power", POWER)
def rank(returns: torch.Tensor, power: float, prior: torch.Tensor | None = None) -> Risk:
    """Σ w_z R_z with w_z in proportion to w0_z rank_z^power; the best of Z partners has rank 1, the worst Z.

    Equally good partners share the mean of their ranks. A partner that the prior leaves out has no rank.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        power: β, 0 (the expectation) or more.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If an argument is out of its range or has the wrong shape.
    """
    if not 0 <= power < float("inf"):
        raise ValueError(f"power must be 0 or more and finite, got {power}")
    values, start = checked(returns, prior)
    possible = start > 0
    better = (possible & (values[None, :] > values[:, None])).sum(dim=1)
    equal = (possible & (values[None, :] == values[:, None])).sum(dim=1)
    ranks = better + (equal + 1) / 2
    weights = torch.where(possible, start * ranks**power, 0)
    weights = weights / weights.sum()
    return risk_like(returns, (weights * values).sum(), weights)
