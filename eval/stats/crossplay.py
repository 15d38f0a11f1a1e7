"""Self-play and cross-play of one setting's runs: the means on and off the diagonal of their matrix.

Pure functions of a matrix. An off-diagonal mean over n runs has n (n - 1) numbers, but they come from n runs only: each
run is in 2 (n - 1) of them. So intervals here are over runs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eval.stats.intervals import LEVEL, Estimate, StatsError, mean_interval


@dataclass(frozen=True)
class CrossPlay:
    """Self-play and cross-play of one setting's runs.

    Attributes:
        runs: Number of runs.
        self_play: Mean of the diagonal.
        cross_play: Mean off the diagonal; None with one run.
        gap: Self-play - cross-play; None with one run.
        self_play_interval: Student's t over the runs; None with one run.
        cross_play_interval: Jackknife over the runs; None with fewer than 3.
        gap_interval: The same.
    """

    runs: int
    self_play: float
    cross_play: float | None
    gap: float | None
    self_play_interval: Estimate | None
    cross_play_interval: Estimate | None
    gap_interval: Estimate | None


def cross_play(matrix: ArrayLike, level: float = LEVEL) -> CrossPlay:
    """Self-play and cross-play of a matrix, with intervals over runs.

    The off-diagonal mean is a U-statistic of two runs: its pseudo-values are θ + 2 gᵢ where the matrix is θ + gᵢ + gⱼ.
    Student's t of these has the right width; the mean of n (n - 1) numbers, taken as independent, would be too narrow.

    Source: J. N. Arvesen, Jackknifing U-statistics, Annals of Mathematical Statistics 40, 1969.

    Args:
        matrix: Shape (runs, runs), 1 or more: row i, column j is run i with run j.
        level: Confidence, in (0, 1).

    Raises:
        StatsError: If it is not such a matrix of finite numbers.
    """
    table = np.asarray(matrix, dtype=np.float64)
    n = len(table)
    if table.ndim != 2 or table.shape != (n, n) or not n or not np.isfinite(table).all():
        raise StatsError(f"expected finite numbers of shape (runs, runs), got {table.shape}")
    own = table.diagonal()
    if n == 1:
        return CrossPlay(1, float(own[0]), None, None, None, None, None)
    off = table.sum() - own.sum()
    mean = off / (n * (n - 1))
    ends: tuple[Estimate | None, Estimate | None] = None, None
    if n > 2:
        without = (off - table.sum(axis=0) - table.sum(axis=1) + 2 * own) / ((n - 1) * (n - 2))
        pseudo = n * mean - (n - 1) * without
        ends = mean_interval(pseudo, level), mean_interval(own - pseudo, level)
    return CrossPlay(
        n, float(own.mean()), float(mean), float(own.mean() - mean), mean_interval(own, level), ends[0], ends[1]
    )
