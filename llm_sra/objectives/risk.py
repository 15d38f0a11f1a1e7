"""Risk measures over partners, and the weights that they put on them.

A hero has the return R_z with partner z, and each partner a prior weight w0_z. Every measure here is the least
average return Σ w_z R_z over a set of weights w, less what w costs: the reached w says how much of the hero's
gradient each partner gets (envelope theorem), so weights and values carry no gradient themselves.

Sources: coherent measures and their dual form, Artzner et al., *Coherent Measures of Risk* (1999); CVaR, Rockafellar
and Uryasev, *Optimization of Conditional Value-at-Risk* (2000); entropic, Föllmer and Schied, *Stochastic Finance*,
section 4.3; for learned partners SRPO (arXiv 2602.21515). This module plays no games and trains nothing.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

PRIOR_SLACK = 1e-5  # how far from 1 rounding may leave the sum of a prior in float32


@dataclass(frozen=True, eq=False)
class Risk:
    """A risk measure of returns.

    Attributes:
        value: (), in units of the reward; never above the prior's mean return.
        weights: (Z,), 0 or more, sum to 1, 0 wherever the prior is 0. No gradient.
    """

    value: torch.Tensor
    weights: torch.Tensor


def expectation(returns: torch.Tensor, prior: torch.Tensor | None = None) -> Risk:
    """The mean return under the prior: no aversion to risk.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If returns or prior are not as said.
    """
    values, weights = _checked(returns, prior)
    return _risk((weights * values).sum(), weights, returns)


def entropic(returns: torch.Tensor, tau: float, prior: torch.Tensor | None = None) -> Risk:
    """Entropic risk: exponential weights.

    The least Σ w_z R_z + (1/τ) KL(w ‖ w0), which is -(1/τ) log Σ w0_z exp(-τ R_z), at w_z ∝ w0_z exp(-τ R_z).

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        tau: Degree of risk aversion, 0 (the expectation) or more, finite, per unit of the reward.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If an argument is not as said.
    """
    if not (math.isfinite(tau) and tau >= 0):
        raise ValueError(f"tau must be 0 or more and finite, got {tau}; worst_case is its limit at infinity")
    if tau == 0:
        return expectation(returns, prior)
    values, start = _checked(returns, prior)
    weights = torch.softmax(start.log() - tau * values, dim=0)
    held = start > 0
    least = values[held].min()
    above = -tau * (values[held] - least)  # 0 or less
    if above.min() > -1:  # near the mean: log of a number near 1, which only log1p keeps
        value = least - torch.log1p((start[held] * torch.expm1(above)).sum()) / tau
    else:
        value = least - torch.logsumexp(start[held].log() + above, dim=0) / tau
    return _risk(value, weights, returns)


def cvar(returns: torch.Tensor, alpha: float, prior: torch.Tensor | None = None) -> Risk:
    """Conditional value at risk: the mean return over the worst share α of the prior's mass.

    The least Σ w_z R_z with w_z <= w0_z / α: the worst partners are filled to the brim one after the other, until the
    weights sum to 1. Partners with equal returns at the brim share what is left as their priors do.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        alpha: The share, above 0, at most 1 (the expectation).
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If an argument is not as said.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is the share of the worst partners, above 0 and at most 1, got {alpha}")
    values, start = _checked(returns, prior)
    below = (start * (values[None, :] < values[:, None])).sum(dim=1)  # the prior's mass on worse partners
    level = (start * (values[None, :] == values[:, None])).sum(dim=1)  # and on equally bad ones, itself among them
    filled = torch.minimum((alpha - below).clamp(min=0), level)
    # 0 / 0 only for partners that the prior leaves out.
    weights = torch.where(start > 0, start * filled / (alpha * level), 0)
    weights = weights / weights.sum()  # 1 but for rounding
    return _risk((weights * values).sum(), weights, returns)


def worst_case(returns: torch.Tensor, prior: torch.Tensor | None = None) -> Risk:
    """The least return of all partners that the prior holds possible; equally bad ones share as their priors do.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If returns or prior are not as said.
    """
    values, start = _checked(returns, prior)
    least = values[start > 0].min()
    weights = torch.where(values == least, start, 0)
    return _risk(least, weights / weights.sum(), returns)


class SmoothedWeights:
    """An exponential average of weights over steps, with Adam's bias correction (arXiv 1412.6980, section 3).

    After t steps the weights of step k count in proportion to decay^(t - k), so the average sums to 1 from the first
    step on, at which it is the weights themselves.
    """

    def __init__(self, decay: float) -> None:
        """Start with no steps.

        Args:
            decay: At least 0 (no smoothing), below 1; the average reaches back over about 1 / (1 - decay) steps.

        Raises:
            ValueError: If it is not.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.steps = 0
        self.total: torch.Tensor | None = None

    def update(self, weights: torch.Tensor) -> torch.Tensor:
        """Take in a step's weights and return the average so far.

        Args:
            weights: (Z,), sum to 1, of the same partners in the same order at every step.

        Returns:
            (Z,), sum to 1.

        Raises:
            ValueError: If their number changed.
        """
        fresh = weights.detach().to(torch.float64)
        before = torch.zeros_like(fresh) if self.total is None else self.total.to(fresh.device)
        if before.shape != fresh.shape:
            raise ValueError(f"expected weights of shape {tuple(before.shape)} as before, got {tuple(fresh.shape)}")
        self.steps += 1
        self.total = self.decay * before + (1 - self.decay) * fresh
        return (self.total / (1 - self.decay**self.steps)).to(weights.dtype)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"steps": self.steps, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the decay is the configuration's."""
        self.steps, self.total = state["steps"], state["total"]


def _checked(returns: torch.Tensor, prior: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns and prior in float64, without gradient."""
    if returns.ndim != 1 or not len(returns) or not returns.is_floating_point():
        raise ValueError(f"expected returns of shape (Z,), in floats, got {returns.dtype} of {tuple(returns.shape)}")
    if not returns.isfinite().all():
        raise ValueError(f"a return is not finite: {returns.tolist()}")
    values = returns.detach().to(torch.float64)
    if prior is None:
        return values, torch.full_like(values, 1 / len(values))
    if prior.shape != returns.shape:
        raise ValueError(f"expected a prior weight for each of {len(returns)} partners, got {tuple(prior.shape)}")
    start = prior.detach().to(values)
    total = start.sum().item()
    if not (start >= 0).all() or not abs(total - 1) <= PRIOR_SLACK:
        raise ValueError(f"a prior is 0 or more and sums to 1, got {prior.tolist()}, which sums to {total:.6g}")
    return values, start / total  # by rounding only


def _risk(value: torch.Tensor, weights: torch.Tensor, returns: torch.Tensor) -> Risk:
    return Risk(value=value.to(returns.dtype), weights=weights.to(returns.dtype))
