"""Robust summaries over runs and tasks: the interquartile mean and the probability of improvement.

Both take one table, or many at once as `stratified_bootstrap` and `bootstrap` pass them. Scores are numbers per run
and task, such as the solve rate of a run with each partner. Of single problems, solved or not, the interquartile mean
says little.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, arXiv 2108.13264,
section 4.3 and its library rliable.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import trim_mean

from eval.stats.intervals import StatsError


def interquartile_mean(scores: ArrayLike) -> NDArray[np.float64]:
    """Mean of the middle half of all scores, runs and tasks pooled: more robust than the mean, less noisy than median.

    A quarter of the scores is left out at either end, rounded down: of 6 scores one at either end.

    Args:
        scores: Shape (..., runs, tasks), in any unit.

    Returns:
        Shape (...), in the scores' unit.

    Raises:
        StatsError: If there are no scores, or one is not finite.
    """
    tables = _checked(scores)
    pooled = tables.reshape(*tables.shape[:-2], -1)
    return np.asarray(trim_mean(pooled, 0.25, axis=-1), dtype=np.float64)


def probability_of_improvement(first: ArrayLike, later: ArrayLike) -> NDArray[np.float64]:
    """The probability that a run of the later arm beats a run of the first, averaged over tasks.

    It is the share of pairs, a run from either arm, in which the later arm's run is better; a tie counts half. This is
    the Mann-Whitney statistic divided by its maximum. It says how often, not by how much.

    Args:
        first: Shape (..., runs, tasks), in any unit.
        later: The same for the other arm, shape (..., runs', tasks). The number of runs may differ; the tasks and their
            order may not.

    Returns:
        Shape (...), in [0, 1]; 0.5 is no improvement.

    Raises:
        StatsError: If there are no scores, one is not finite, or the tasks are not as many.
    """
    a, b = _checked(first), _checked(later)
    if (*a.shape[:-2], a.shape[-1]) != (*b.shape[:-2], b.shape[-1]):
        raise StatsError(f"expected both arms to have the same tasks, got shapes {a.shape} and {b.shape}")
    wins = np.zeros(a.shape[:-2])
    for run in range(a.shape[-2]):  # one at a time: all pairs of all draws would not fit
        other = a[..., run : run + 1, :]
        wins += ((b > other) + 0.5 * (b == other)).mean(axis=(-2, -1))
    return np.asarray(wins / a.shape[-2])


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    tables = np.asarray(scores, dtype=np.float64)
    if tables.ndim < 2 or not tables.size:
        raise StatsError(f"expected scores of shape (..., runs, tasks), not empty, got {tables.shape}")
    if not np.isfinite(tables).all():
        raise StatsError("every score must be a finite number")
    return tables
