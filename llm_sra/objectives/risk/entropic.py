"""Entropic risk: exponential weights, the closed form of SRPO's tethered adversary over a family of partners.

Sources: Föllmer and Schied, *Stochastic Finance*, section 4.3; for learned partners SRPO (arXiv 2602.21515).
"""

import math

import torch

from llm_sra.objectives.risk.base import Risk, RiskOption, checked, risk_like, risk_measure
from llm_sra.objectives.risk.expectation import expectation

FINITE = RiskOption("tau", "tau", math.isfinite, "be finite with risk entropic (its limit is worst_case)", own=False)


@risk_measure("entropic", "exponential weights, with tau", FINITE)
def entropic(returns: torch.Tensor, tau: float, prior: torch.Tensor | None = None) -> Risk:
    """The least Σ w_z R_z + (1/τ) KL(w ‖ w0): -(1/τ) log Σ w0_z exp(-τ R_z), at w_z ∝ w0_z exp(-τ R_z).

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        tau: Degree of risk aversion, 0 (the expectation) or more, finite, per unit of the reward.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If an argument is out of its range or has the wrong shape.
    """
    if not (math.isfinite(tau) and tau >= 0):
        raise ValueError(f"tau must be 0 or more and finite, got {tau}; worst_case is its limit at infinity")
    if tau == 0:
        return expectation(returns, prior)
    values, start = checked(returns, prior)
    weights = torch.softmax(start.log() - tau * values, dim=0)
    possible = start > 0
    least = values[possible].min()
    above = -tau * (values[possible] - least)  # 0 or less
    if above.min() > -1:  # near the mean: log of a number near 1, which only log1p keeps
        value = least - torch.log1p((start[possible] * torch.expm1(above)).sum()) / tau
    else:
        value = least - torch.logsumexp(start[possible].log() + above, dim=0) / tau
    return risk_like(returns, value, weights)
