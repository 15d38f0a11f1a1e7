"""Intervals by formula: of a rate and of a mean. Those by resampling are in `resampling`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest
from scipy.stats import t as student_t

LEVEL = 0.95


class StatsError(ValueError):
    """Numbers from which nothing can be computed; says what was expected."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval.

    Attributes:
        value: The estimate itself.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def has_width(self) -> bool:
        """Whether the numbers behind it differed at all; if not, the interval says nothing."""
        return self.high - self.low > 1e-9

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def within(self, lowest: float, highest: float) -> "Estimate":
        """The same, with ends cut to what the number can be: Student's t knows no bounds."""
        low, high = (min(max(end, lowest), highest) for end in (self.low, self.high))
        return Estimate(self.value, low, high)


def wilson(solved: int, n: int, level: float = LEVEL) -> Estimate:
    """A share and its Wilson score interval.

    It stays in [0, 1] and has a width even if nothing or everything was solved; the bootstrap's interval has none then.
    The trials must be independent: a problem that five seeds played is one trial, not five.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.

    Args:
        solved: How many were solved, in 0..n.
        n: Number of trials, 1 or more.
        level: Confidence, in (0, 1).

    Raises:
        ValueError: If `solved` is not in 0..n, or `n` is below 1.
        StatsError: If `level` is not in (0, 1).
    """
    interval = binomtest(solved, n).proportion_ci(checked_level(level), method="wilson")
    return Estimate(solved / n, float(interval.low), float(interval.high))


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """A mean with Student's t interval.

    Args:
        values: Shape (n,), 2 or more.
        level: Confidence, in (0, 1).

    Raises:
        StatsError: If there are fewer than 2 numbers, one is not finite, or `level` is not in (0, 1).
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) < 2 or not np.isfinite(numbers).all():
        raise StatsError(f"an interval over seeds needs 2 finite numbers or more, got {numbers.tolist()}")
    mean = float(numbers.mean())
    quantile = student_t.ppf((1 + checked_level(level)) / 2, len(numbers) - 1)
    half = float(quantile * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Estimate(mean, mean - half, mean + half)


def seed_interval(first: ArrayLike, later: ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean difference of two arms over paired seeds, with Student's t interval.

    Exact for few seeds. The problems are taken as given: the chance in choosing them does not shrink with more seeds
    and is not in the interval. `hierarchical_bootstrap` includes it.

    Args:
        first: One number per seed, shape (seeds,), 2 seeds or more.
        later: The same of the other arm, in the same order.
        level: Confidence, in (0, 1).

    Returns:
        `later - first`.

    Raises:
        StatsError: If the shapes differ, there are fewer than 2 seeds, a number is not finite, or `level` is not in
            (0, 1).
    """
    return mean_interval(differences(first, later, dimensions=1), level)


def differences(first: ArrayLike, later: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    """`later - first`, number by number.

    Raises:
        StatsError: If the shapes differ, are empty or do not have so many dimensions, or a number is not finite.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(later, dtype=np.float64)
    if a.shape != b.shape or a.ndim != dimensions or not a.size:
        raise StatsError(f"expected two arrays of one shape with {dimensions} dimension(s), got {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise StatsError("every outcome must be a finite number")
    return b - a


def checked_level(level: float) -> float:
    """A confidence level, returned unchanged.

    Raises:
        StatsError: If it is not in (0, 1).
    """
    if not 0 < level < 1:
        raise StatsError(f"a level is a share in (0, 1), such as 0.95, got {level}")
    return level
