"""Several comparisons at once, and paired tests over few seeds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import permutation_test, ttest_1samp

from eval.stats.intervals import LEVEL, Estimate, StatsError, checked_level, differences, mean_interval, seed_interval

EXACT_SEEDS = 16  # 65,536 ways to flip signs; beyond, the t test is as good


@dataclass(frozen=True)
class PairedTest:
    """Whether two arms differ, over paired seeds.

    Attributes:
        difference: Mean of the seeds' differences, with Student's t interval.
        t_p: Two-sided p-value of Student's paired t test, in [0, 1]; None if no difference differs from another, where
            there is no t.
        sign_flip_p: Two-sided p-value of the exact sign-flip test, in [0, 1].
        least_p: The smallest that `sign_flip_p` can be with so many seeds.
    """

    difference: Estimate
    t_p: float | None
    sign_flip_p: float
    least_p: float


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for their number by Holm's step-down rule: reject where the adjusted one is at most α.

    Then the probability of even one false rejection is at most α, whatever the tests' dependence. Never less powerful
    than Bonferroni. (`scipy.stats.false_discovery_control` bounds the share of false rejections instead, which is
    weaker.)

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2),
    1979.

    Args:
        p_values: Shape (n,), in [0, 1].

    Returns:
        Shape (n,), in the order given, in [0, 1], none smaller than its p-value.

    Raises:
        StatsError: If there are none, or one is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not p.size or not ((p >= 0) & (p <= 1)).all():
        raise StatsError(f"expected p-values of shape (n,), in [0, 1], got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def simultaneous_intervals(values: ArrayLike, level: float = LEVEL) -> tuple[Estimate, ...]:
    """Means of several columns over seeds, with intervals that all hold at once: Student's t, Bonferroni's level.

    Holm's test may find a difference where its interval here still holds 0; the reverse cannot be, if both are of
    Student's t. As `seed_interval` it takes the problems as they are; `simultaneous_bootstrap` does not.

    Args:
        values: Shape (seeds, columns), 2 seeds or more; columns are partners, or differences from one arm to others.
        level: Confidence of all together, in (0, 1).

    Returns:
        One per column.

    Raises:
        StatsError: If there are no columns, fewer than 2 seeds, a number is not finite, or `level` is not in (0, 1).
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise StatsError(f"expected values of shape (seeds, columns), not empty, got {table.shape}")
    each = 1 - (1 - checked_level(level)) / table.shape[1]
    return tuple(mean_interval(column, each) for column in table.T)


def paired_test(first: ArrayLike, later: ArrayLike, level: float = LEVEL) -> PairedTest:
    """Whether two arms differ, their seeds paired.

    Two tests of the same differences. Student's t takes them as normal. The sign-flip test takes them only as
    symmetric about 0 if the arms are alike: among all 2^n ways to choose the signs of n differences, the share whose
    mean is at least as far to one side as that seen, doubled for two sides (R. A. Fisher, The Design of Experiments,
    1935, section 21). Its p-values are multiples of 2 / 2^n, so few seeds cannot reach small ones: with 5 seeds the
    smallest possible is 1/16, two-sided, even if every seed favours one arm, and significance at 0.05 takes 6 seeds;
    after Holm's correction more still.

    Args:
        first: One number per seed, shape (seeds,), 2 to 16 seeds.
        later: The same of the other arm, in the same order.
        level: Confidence of the interval, in (0, 1).

    Raises:
        StatsError: If the shapes differ, the seeds are not so many, a number is not finite, or `level` is not in
            (0, 1).
    """
    difference = differences(first, later, dimensions=1)
    seeds = len(difference)
    if not 2 <= seeds <= EXACT_SEEDS:
        raise StatsError(f"the exact test takes 2 to {EXACT_SEEDS} seeds, got {seeds}; `seed_interval` takes more")
    flipped = permutation_test(
        (difference,), _mean, permutation_type="samples", vectorized=True, n_resamples=2**seeds, batch=4096
    )
    alike = bool(np.ptp(difference) <= 1e-12 * np.abs(difference).max())  # but for rounding
    t_p = None if alike else float(ttest_1samp(difference, 0.0).pvalue)
    return PairedTest(seed_interval(first, later, level), t_p, float(flipped.pvalue), 2.0 ** (1 - seeds))


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(values.mean(axis=axis))
