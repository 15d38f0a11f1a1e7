"""Planning: how many problems or seeds show a difference between two solve rates, and the power of a number of them.

Formulas over problems are normal approximations, two-sided, without a correction for continuity; the problems are the
random sample, and the runs are taken as given. Over seeds it is Student's t, where the seeds are the random sample. The
far tail, a significant difference of the wrong sign, is left out.

Sources: paired, R. J. Connor, Sample size for testing differences in proportions for the paired-sample design,
Biometrics 43(1), 1987, for Q. McNemar's test; unpaired, J. L. Fleiss, Statistical Methods for Rates and Proportions,
chapter on sample size.
"""

import math

import numpy as np
from scipy.stats import nct, norm
from scipy.stats import t as student_t

from eval.stats.intervals import StatsError

LEVEL_OF_TEST = 0.05
POWER = 0.8


def discordance(first: float, later: float, correlation: float) -> float:
    """Share of problems that exactly one of two runs solves, from their rates and how far their problems agree.

    Args:
        first: Solve rate of one run, in [0, 1].
        later: Solve rate of the other, in [0, 1].
        correlation: Correlation over problems between solved by one run and solved by the other (φ), in [-1, 1]; 0: no
            more alike than on different problems.

    Returns:
        A share in [0, 1], never below the difference of the rates.

    Raises:
        StatsError: If a number is out of its range, or no two runs with these rates can have this correlation.
    """
    if not (0 <= first <= 1 and 0 <= later <= 1 and -1 <= correlation <= 1):
        raise StatsError(f"expected rates in [0, 1] and a correlation in [-1, 1], got {first}, {later}, {correlation}")
    covariance = correlation * math.sqrt(first * (1 - first) * later * (1 - later))
    share = first * (1 - later) + later * (1 - first) - 2 * covariance
    least, most = abs(later - first), min(first + later, 2 - first - later)
    if not least - 1e-12 <= share <= most + 1e-12:
        raise StatsError(
            f"rates {first} and {later} cannot correlate by {correlation}: {share:.3g} of the problems would be solved "
            f"by just one, which is {least:.3g} to {most:.3g}"
        )
    return min(max(share, least), most)


def problems_paired(
    difference: float, discordance: float, *, alpha: float = LEVEL_OF_TEST, power: float = POWER
) -> int:
    """How many problems show a difference between two rates on the same problems (McNemar's test).

    Args:
        difference: Difference of the rates, in [-1, 1], not 0.
        discordance: Share of problems that exactly one of the two solves, at least the size of the difference. Compute
            it by `discordance`, or count it in a pilot.
        alpha: Level of the two-sided test, in (0, 1).
        power: Probability of seeing the difference, above alpha / 2 and below 1.

    Returns:
        Number of problems, each played by both.

    Raises:
        StatsError: If a number is not as said.
    """
    null, alternative = _paired_deviations(difference, discordance)
    return _needed(difference, null, alternative, alpha, power)


def problems_unpaired(first: float, later: float, *, alpha: float = LEVEL_OF_TEST, power: float = POWER) -> int:
    """How many problems show a difference between two rates on different problems (test of two proportions).

    Args:
        first: Solve rate of one run, in [0, 1].
        later: Solve rate of the other, in [0, 1], not the same.
        alpha: Level of the two-sided test, in (0, 1).
        power: Probability of seeing the difference, above alpha / 2 and below 1.

    Returns:
        Number of problems for each of the two.

    Raises:
        StatsError: If a number is not as said.
    """
    null, alternative = _unpaired_deviations(first, later)
    return _needed(later - first, null, alternative, alpha, power)


def power_paired(problems: int, difference: float, discordance: float, *, alpha: float = LEVEL_OF_TEST) -> float:
    """Probability of seeing a difference between two rates on the same problems.

    Args:
        problems: How many, 1 or more, each played by both.
        difference: As in `problems_paired`.
        discordance: As in `problems_paired`.
        alpha: Level of the two-sided test, in (0, 1).

    Returns:
        In [0, 1].

    Raises:
        StatsError: If a number is not as said.
    """
    return _power(problems, difference, *_paired_deviations(difference, discordance), alpha)


def seeds_needed(
    difference: float, deviation: float, *, alpha: float = LEVEL_OF_TEST, power: float = POWER, most: int = 1000
) -> int | None:
    """How many paired seeds show a mean difference (Student's t over the seeds' differences, two-sided).

    Args:
        difference: True mean difference, not 0.
        deviation: Standard deviation of one seed's difference, 0 or more, in the same unit.
        alpha: Level of the two-sided test, in (0, 1).
        power: Probability of seeing the difference, in (0, 1).
        most: The largest number that is tried, 2 or more.

    Returns:
        The smallest number, 2 or more; None if it is above `most`.

    Raises:
        StatsError: If a number is not as said.
    """
    _check_alpha(alpha)
    if difference == 0 or deviation < 0 or not 0 < power < 1 or most < 2:
        raise StatsError(
            "expected a difference other than 0, a deviation of 0 or more, a power in (0, 1) and at least 2 seeds, got "
            f"{difference}, {deviation}, {power} and {most}"
        )
    if deviation == 0:
        return 2
    seeds = np.arange(2, most + 1)
    beyond = student_t.isf(alpha / 2, seeds - 1)
    reached = nct.sf(beyond, seeds - 1, abs(difference) / deviation * np.sqrt(seeds))
    enough = np.flatnonzero(np.nan_to_num(reached, nan=1.0) >= power)  # far out scipy has no number for almost 1
    return int(seeds[enough[0]]) if enough.size else None


def _paired_deviations(difference: float, discordance: float) -> tuple[float, float]:
    """Standard deviation of one problem's difference under the null hypothesis and under this difference."""
    if not 0 < abs(difference) <= discordance <= 1:
        raise StatsError(
            f"expected 0 < |difference| <= discordance <= 1, got difference {difference}, discordance {discordance}"
        )
    return math.sqrt(discordance), math.sqrt(discordance - difference**2)


def _unpaired_deviations(first: float, later: float) -> tuple[float, float]:
    if not (0 <= first <= 1 and 0 <= later <= 1) or first == later:
        raise StatsError(f"expected two rates in [0, 1] that differ, got {first} and {later}")
    mean = (first + later) / 2
    return math.sqrt(2 * mean * (1 - mean)), math.sqrt(first * (1 - first) + later * (1 - later))


def _needed(difference: float, null: float, alternative: float, alpha: float, power: float) -> int:
    _check_alpha(alpha)
    if not alpha / 2 < power < 1:
        raise StatsError(f"power is a probability above alpha / 2 = {alpha / 2:g} and below 1, got {power}")
    reach = float(norm.isf(alpha / 2)) * null + float(norm.ppf(power)) * alternative
    # Below 0 if even no problem gives the power asked for; rounding must not add a problem.
    return max(1, math.ceil((max(0.0, reach) / difference) ** 2 - 1e-9))


def _power(problems: int, difference: float, null: float, alternative: float, alpha: float) -> float:
    _check_alpha(alpha)
    if problems < 1:
        raise StatsError(f"problems must be 1 or more, got {problems}")
    beyond = abs(difference) * math.sqrt(problems) - float(norm.isf(alpha / 2)) * null
    if alternative == 0:  # one run solves every problem and the other none
        return float(beyond > 0)
    return float(norm.cdf(beyond / alternative))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise StatsError(f"alpha is the level of a test, in (0, 1), such as 0.05, got {alpha}")
