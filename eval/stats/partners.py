"""Statistics over partners: the worst one, and how far partners differ, both corrected for noise.

The roster is taken as given: intervals are over seeds and problems, not over other partners that might be met.

A minimum over noisy means is biased downward: the partner that looks worst is also the one whose problems happened to
be hardest (the winner's curse, for a minimum). The bootstrap repeats the selection, so its percentile interval is
shifted once more: with 8 partners that are truly alike and 64 problems, a 95 % percentile interval of the minimum held
the truth in 6 of 100 simulated evaluations. So the minimum comes with another interval, which does hold. If
simultaneous intervals hold every partner's true rate, then the interval from the least of their lower ends to the least
of their upper ends holds the true minimum, because a minimum never falls when a rate rises.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.stats.intervals import LEVEL, Estimate, StatsError, wilson
from eval.stats.resampling import RESAMPLES, bootstrap_draws, checked_table, percentile, sup_t_band

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WorstPartner:
    """The least solve rate among partners.

    Attributes:
        partner: Index of the partner that looks worst, the first one if several do.
        estimate: Its solve rate, with an interval for the least true rate. As an estimate of that rate it is biased
            downwards; the interval allows for the selection and is rather too wide than too narrow.
        resampled: The same rate with the percentile interval of the minimum's bootstrap. It shows how the minimum
            scatters, not where the truth lies: it is biased downwards twice.
        bias: Mean of the bootstrap's minima - the rate, at most about 0: an estimate of how far the rate lies below the
            truth. It is about 0 if one partner is clearly the worst. If several are truly alike it is too small (for
            those 8 partners -0.035, where the true bias is -0.09), so do not simply subtract it.
        chosen: For each partner, the share of the draws in which it was the worst; ties are shared, so it sums to 1.
    """

    partner: int
    estimate: Estimate
    resampled: Estimate
    bias: float
    chosen: tuple[float, ...]


@dataclass(frozen=True)
class PartnerSpread:
    """How far partners lie apart, as a standard deviation of their solve rates.

    Attributes:
        estimate: The deviation corrected for sampling noise, with its interval; 0 if noise alone explains what is seen.
        observed: The uncorrected deviation, 0 or more.
        noise: The standard deviation that sampling noise alone would give, 0 or more.
        variance: The corrected variance. It is unbiased, so it can fall below 0; `estimate` is its root, cut at 0.
    """

    estimate: Estimate
    observed: float
    noise: float
    variance: float


def worst_partner(
    outcomes: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> WorstPartner:
    """The least solve rate among partners; see the module on its bias.

    If nothing or everything was solved with a partner, the bootstrap has no width: then the partner's part of the
    interval is Wilson's, at Bonferroni's level, with every problem counted once however many seeds played it.

    Args:
        outcomes: Share solved, shape (seeds, partners, problems), in [0, 1].
        level: Confidence, in (0, 1).
        resamples: How often seeds and problems are drawn, 1 or more.
        seed: Seed of the draws.

    Raises:
        StatsError: If the outcomes do not have three dimensions, are empty or not in [0, 1], or `level` or
            `resamples` is not as said.
    """
    table = _checked(outcomes)
    draws = bootstrap_draws(table, _partner_means, resamples=resamples, seed=seed)
    rates = table.mean(axis=(0, 2))
    least, drawn = float(rates.min()), draws.min(axis=1)
    band = [_with_width(each, table.shape[2], len(rates), level) for each in sup_t_band(rates, draws, level)]
    estimate = Estimate(least, min(each.low for each in band), min(each.high for each in band))
    worst = draws == draws.min(axis=1, keepdims=True)
    chosen = (worst / worst.sum(axis=1, keepdims=True)).mean(axis=0)
    return WorstPartner(
        partner=int(rates.argmin()),
        estimate=estimate,
        resampled=percentile(least, drawn, level),
        bias=float(drawn.mean()) - least,
        chosen=tuple(float(share) for share in chosen),
    )


def partner_spread(
    outcomes: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> PartnerSpread:
    """Standard deviation of the solve rates between partners, with the sampling noise taken out.

    Rates over few problems differ even if the partners are alike. A crossed analysis of variance (partners, seeds and
    problems, each cell once) removes the part of the variance that comes from the interaction of partners with problems
    and with seeds. The problems' own difficulty is common to all partners and cancels. With one seed the spread is that
    of this run, and the seed is taken as given.

    Source: J. Cornfield and J. W. Tukey, Average values of mean squares in factorials, Annals of Mathematical
    Statistics 27(4), 1956.

    The interval is the basic bootstrap's for the variance, cut at 0. A drawn table holds the noise twice, once observed
    and once drawn. So its corrected variance is compared with the uncorrected variance of the table, and the sign of
    the deviation is reversed.

    Args:
        outcomes: In any unit, shape (seeds, partners, problems), 2 partners and 2 problems or more.
        level: Confidence, in (0, 1).
        resamples: How often seeds and problems are drawn, 1 or more.
        seed: Seed of the draws.

    Returns:
        In the outcomes' unit; variances divide by partners - 1.

    Raises:
        StatsError: If the outcomes do not have three dimensions, there are too few, one is not finite, or `level` or
            `resamples` is not as said.
    """
    table = checked_table(outcomes)
    if table.ndim != 3 or table.shape[1] < 2 or table.shape[2] < 2:
        raise StatsError(f"expected (seeds, partners, problems), 2 or more of the last two, got {table.shape}")
    observed, noise = (float(part[0]) for part in _variances(table[None]).T)

    def corrected(tables: Array) -> Array:
        parts = _variances(tables)
        return parts[:, 0] - parts[:, 1]

    draws = bootstrap_draws(table, corrected, resamples=resamples, seed=seed)
    value = observed - noise
    off = percentile(observed, draws, level)
    ends = [value - (off.high - observed), value - (off.low - observed)]
    return PartnerSpread(
        Estimate(*(float(np.sqrt(max(0.0, variance))) for variance in (value, *ends))),
        float(np.sqrt(observed)),
        float(np.sqrt(max(0.0, noise))),
        value,
    )


def _with_width(rate: Estimate, problems: int, partners: int, level: float) -> Estimate:
    """A partner's interval, cut to [0, 1]; Wilson's if nothing or everything was solved."""
    if rate.value in (0.0, 1.0):
        return wilson(int(rate.value) * problems, problems, 1 - (1 - level) / partners)
    return Estimate(rate.value, max(0.0, rate.low), min(1.0, rate.high))


def _partner_means(tables: Array) -> Array:
    return np.asarray(tables.mean(axis=(1, 3)))


def _variances(tables: Array) -> Array:
    """The variance seen between partners' means, and how much of it is noise: (draws, S, Z, N) to (draws, 2)."""
    _, seeds, partners, problems = tables.shape
    apart = tables - tables.mean(axis=2, keepdims=True)  # without what all partners have in common
    own = apart.mean(axis=(1, 3), keepdims=True)
    by_seed = apart.mean(axis=3, keepdims=True) - own
    by_problem = apart.mean(axis=1, keepdims=True) - own
    rest = apart - own - by_seed - by_problem
    degrees = partners - 1
    observed = (own**2).sum(axis=(1, 2, 3)) / degrees
    # The mean square of each interaction, divided by the number of outcomes of a partner.
    noise = (by_problem**2).sum(axis=(1, 2, 3)) / (degrees * (problems - 1) * problems)
    if seeds > 1:
        noise += (by_seed**2).sum(axis=(1, 2, 3)) / (degrees * (seeds - 1) * seeds)
        noise -= (rest**2).sum(axis=(1, 2, 3)) / (degrees * (seeds - 1) * (problems - 1) * seeds * problems)
    return np.stack([observed, noise], axis=1)


def _checked(outcomes: ArrayLike) -> Array:
    table = checked_table(outcomes)
    if table.ndim != 3:
        raise StatsError(f"expected outcomes of shape (seeds, partners, problems), got {table.shape}")
    if table.min() < 0 or table.max() > 1:
        raise StatsError(f"a share solved is in [0, 1], got {table.min():g} to {table.max():g}")
    return table
