"""What a hero earned with each of its sampled partners: pooled over steps, and without the part that is chance.

A risk measure that is strongly averse turns small differences into large weights: at τ = 10 the largest of four equal
partners' weights is 0.64 on average with 8 episodes each, where 0.25 is right. So means are pooled over steps, and then
shrunk towards their common mean by as much of their spread as chance explains.

Source of the shrinkage: parametric empirical Bayes with the moment estimate of the spread (Morris, *Parametric
Empirical Bayes Inference*, JASA 1983).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

import torch

Earned = Mapping[str, Sequence[tuple[str, float]]]  # by partner: problem and return of each episode


@dataclass(frozen=True, eq=False)
class PartnerMeans:
    """Estimates of what a hero earns with Z partners, in units of the reward.

    Attributes:
        partners: Their names.
        means: (Z,), mean returns as they were.
        shrunk: (Z,), the same after shrinkage.
        noise: Share of the means' spread that chance explains, in [0, 1]; 1: nothing tells the partners apart.
    """

    partners: tuple[str, ...]
    means: torch.Tensor
    shrunk: torch.Tensor
    noise: float


class PartnerReturns:
    """A hero's returns with its partners, in which what was k steps ago counts decay^k.

    Every partner keeps what it had while others are met, so a step may meet some of them alone.
    """

    def __init__(self, decay: float) -> None:
        """Start with no steps.

        Args:
            decay: At least 0 (the latest step alone), below 1; pools about 1 / (1 - decay) steps.

        Raises:
            ValueError: If it is not.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.totals: dict[str, list[float]] = {}  # by partner: Σ w x, Σ w, Σ w², over units x of weights w
        self.errors, self.degrees = 0.0, 0.0  # weighted sums of squared residuals, and of degrees of freedom

    def update(self, earned: Earned) -> None:
        """Take in a step.

        A unit is the mean over the episodes of a problem with a partner; where the step has one problem, an episode.
        What differs between problems is no noise: all partners of a step play the same ones.

        Args:
            earned: Of the partners that were met; all on the same problems, equally often.
        """
        several = len({problem for pairs in earned.values() for problem, _ in pairs}) > 1
        units = {partner: _units(pairs, several) for partner, pairs in earned.items()}
        for partner, (total, count, squares) in self.totals.items():
            self.totals[partner] = [self.decay * total, self.decay * count, self.decay**2 * squares]
        for partner, mine in units.items():
            before = self.totals.get(partner, [0.0, 0.0, 0.0])
            fresh = [sum(value for _, value in mine), float(len(mine)), float(len(mine))]
            self.totals[partner] = [one + other for one, other in zip(before, fresh, strict=True)]
        squares, degrees = _residuals(units)
        self.errors = self.decay * self.errors + squares
        self.degrees = self.decay * self.degrees + degrees

    def estimate(self) -> PartnerMeans:
        """Means of all partners that count, pooled and shrunk: m + T² / (T² + s_z²) (m_z - m).

        s_z² is the variance of the mean of partner z by chance, T² the spread of the means beyond that, 0 or more.
        """
        met = {partner: numbers for partner, numbers in self.totals.items() if numbers[1] > 0}
        totals, counts, squares = torch.tensor(list(met.values()), dtype=torch.float64).unbind(dim=1)
        means = totals / counts
        if len(met) < 2 or not self.degrees:
            return PartnerMeans(tuple(met), means, means, 0.0)
        by_chance = self.errors / self.degrees * squares / counts.square()
        spread, expected = means.var().item(), by_chance.mean().item()
        if spread <= expected:
            return PartnerMeans(tuple(met), means, means.mean().expand_as(means).clone(), 1.0)
        kept = (spread - expected) / (spread - expected + by_chance)
        return PartnerMeans(tuple(met), means, means.mean() + kept * (means - means.mean()), expected / spread)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"totals": dict(self.totals), "errors": self.errors, "degrees": self.degrees}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the decay is the configuration's."""
        self.totals, self.errors, self.degrees = dict(state["totals"]), state["errors"], state["degrees"]


def _units(pairs: Sequence[tuple[str, float]], several: bool) -> list[tuple[str, float]]:
    """Problem and return of each unit; `several`: whether the step has more than one problem."""
    if not several:
        return list(pairs)
    returns: dict[str, list[float]] = defaultdict(list)
    for problem, value in pairs:
        returns[problem].append(value)
    return [(problem, fmean(values)) for problem, values in returns.items()]


def _residuals(units: Mapping[str, Sequence[tuple[str, float]]]) -> tuple[float, int]:
    """Sum of squares, and degrees of freedom, of what neither the partner nor the problem explains."""
    by_problem: dict[str, list[float]] = defaultdict(list)
    for problem, value in chain.from_iterable(units.values()):
        by_problem[problem].append(value)
    problems = {problem: fmean(values) for problem, values in by_problem.items()}
    partners = {partner: fmean(value for _, value in mine) for partner, mine in units.items()}
    everything = fmean(chain.from_iterable(by_problem.values()))
    squares = sum(
        (value - problems[problem] - partners[partner] + everything) ** 2
        for partner, mine in units.items()
        for problem, value in mine
    )
    number = sum(map(len, by_problem.values()))
    return squares, max(number - len(units) - len(problems) + 1, 0)
