"""What a risk measure is: a function of mean returns, and the options that it takes.

A hero has the return R_z with partner z, and each partner a prior weight w0_z. Every measure is the least average
return Σ w_z R_z over a set of weights w, plus what w costs. The minimising w says how much of the hero's gradient each
partner gets (envelope theorem), so weights and values carry no gradient themselves.

Sources: coherent measures and their dual form, Artzner et al., *Coherent Measures of Risk* (1999). Each measure's own
source stands in its module. Nothing here plays or trains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from llm_sra.objectives.registry import Registry

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


@dataclass(frozen=True)
class RiskOption:
    """An argument of a risk measure that the configuration sets.

    Attributes:
        argument: Name of the function's argument.
        field: Name of the configuration's field.
        holds: Whether a value can be used.
        must: What it must be, after "must": `lie in (0, 1]`.
        own: Whether only this measure reads the field; then its value is checked even where another is chosen.
    """

    argument: str
    field: str
    holds: Callable[[Any], bool]
    must: str
    own: bool = True


@dataclass(frozen=True)
class RiskMeasure:
    """An entry of `RISKS`.

    Attributes:
        name: What `risk` is set to.
        summary: What it is, in a few words.
        function: Function of (Z,) returns and the options.
        options: What the function takes beside returns.
    """

    name: str
    summary: str
    function: Callable[..., Risk]
    options: tuple[RiskOption, ...] = ()

    def of(self, returns: torch.Tensor, config: object) -> Risk:
        """The risk of (Z,) mean returns, with options from the configuration's fields."""
        return self.function(returns, **{option.argument: getattr(config, option.field) for option in self.options})


RISKS: Registry[RiskMeasure] = Registry("risk")


def risk_measure(name: str, summary: str, *options: RiskOption) -> Callable[[Callable[..., Risk]], Callable[..., Risk]]:
    """Register the decorated function; arguments as of `RiskMeasure`."""

    def register(function: Callable[..., Risk]) -> Callable[..., Risk]:
        RISKS.add(RiskMeasure(name, summary, function, options))
        return function

    return register


def checked(returns: torch.Tensor, prior: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns and prior in float64, without gradient.

    Args:
        returns: (Z,), each partner's return averaged over its episodes, in units of the reward.
        prior: (Z,), w0, 0 or more, sums to 1; None: all partners alike.

    Raises:
        ValueError: If returns or prior are not of this form.
    """
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


def risk_like(returns: torch.Tensor, value: torch.Tensor, weights: torch.Tensor) -> Risk:
    """A risk in the number type of the returns."""
    return Risk(value=value.to(returns.dtype), weights=weights.to(returns.dtype))
