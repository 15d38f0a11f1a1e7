"""The mean return over partners: no aversion to risk."""

import torch

from llm_sra.objectives.risk.base import Risk, checked, risk_like, risk_measure


@risk_measure("expectation", "the mean over partners")
def expectation(returns: torch.Tensor, prior: torch.Tensor | None = None) -> Risk:
    """The mean return under the prior.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If returns or prior are out of range or have the wrong shape.
    """
    values, weights = checked(returns, prior)
    return risk_like(returns, (weights * values).sum(), weights)
