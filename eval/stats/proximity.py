"""Best-response proximity: what an agent earns with a partner as a share of what a best response to it earns.

Source: Wang et al., ZSC-Eval: An Evaluation Toolkit and Benchmark for Multi-agent Zero-shot Coordination, NeurIPS 2024,
and its code, which cuts the share at 1, counts 1 where the best response earns nothing or less, and takes the
interquartile mean over partners, seats and seeds. The interquartile mean: Agarwal et al., arXiv 2108.13264.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.stats.aggregate import interquartile_mean
from eval.stats.intervals import LEVEL, Estimate, StatsError
from eval.stats.resampling import RESAMPLES, bootstrap

HOPELESS = 0.05  # of what the best of a roster's best responses earns


def proximity(returns: ArrayLike, best: ArrayLike) -> NDArray[np.float64]:
    """An agent's returns divided by the best response's, at most 1; 1 where the best response earns 0 or less.

    It can be below 0: an agent can lose what a best response earns.

    Args:
        returns: Of the agent, shape (..., cells), in units of the reward; a cell is a partner in a seat.
        best: Of the best responses, shape (cells,), or any that goes with (..., cells).

    Returns:
        Shape (..., cells).

    Raises:
        StatsError: If a number is not finite, or there are not as many best responses as cells.
    """
    own, most = np.asarray(returns, dtype=np.float64), np.asarray(best, dtype=np.float64)
    if own.shape[-1:] != most.shape[-1:] or most.ndim > own.ndim:
        raise StatsError(f"expected returns (..., cells) and best returns (cells,), got {own.shape} and {most.shape}")
    if not (np.isfinite(own).all() and np.isfinite(most).all()):
        raise StatsError("every return must be a finite number")
    earns = most > 0
    return np.where(earns, np.minimum(own / np.where(earns, most, 1.0), 1.0), 1.0)


def proximity_mean(
    returns: ArrayLike, best: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The interquartile mean of `proximity` over seeds and cells, with a percentile interval over seeds and problems.

    Seeds and problems are drawn as `bootstrap` does; partners are not. Best responses that played the same problems are
    drawn with them; else what they earn is taken as given, and the interval is too narrow by that.

    Args:
        returns: Of the agents, shape (seeds, cells, problems), in units of the reward.
        best: Returns of the best responses on the same problems, shape (cells, problems); or their means, shape
            (cells,).
        level: Confidence, in (0, 1).
        resamples: How often seeds and problems are drawn, 1 or more.
        seed: Seed of the draws.

    Raises:
        StatsError: If the shapes do not fit, a number is not finite, or `level` or `resamples` is not as said.
    """
    table, most = np.asarray(returns, dtype=np.float64), np.asarray(best, dtype=np.float64)
    if table.ndim != 3:
        raise StatsError(f"expected returns of shape (seeds, cells, problems), got {table.shape}")
    _, cells, problems = table.shape
    if most.shape not in ((cells,), (cells, problems)):
        raise StatsError(f"expected best returns of shape ({cells},) or ({cells}, {problems}), got {most.shape}")
    drawn = most.ndim == 2
    if drawn:  # as further cells, which have the same problems in each draw
        table = np.concatenate([table, np.broadcast_to(most, table.shape)], axis=1)

    def statistic(tables: NDArray[np.float64]) -> NDArray[np.float64]:
        means = tables.mean(axis=-1)
        return interquartile_mean(proximity(means[..., :cells], means[..., cells:] if drawn else most))

    return bootstrap(table, statistic, level=level, resamples=resamples, seed=seed)


def hopeless(best: ArrayLike) -> NDArray[np.bool_]:
    """Which partners leave next to nothing to earn, even to a best response.

    Args:
        best: What best responses to a roster's partners earn in one seat, shape (partners,).

    Returns:
        Shape (partners,): whether it is 0 or less, or at most a twentieth of the largest.

    Raises:
        StatsError: If there are none, or one is not finite.
    """
    most = np.asarray(best, dtype=np.float64)
    if most.ndim != 1 or not most.size or not np.isfinite(most).all():
        raise StatsError(f"expected finite returns of shape (partners,), not empty, got {most.tolist()}")
    return np.asarray(most <= HOPELESS * max(float(most.max()), 0.0))
