"""Which of many partners differ most in how they must be answered: best-response diversity and its determinant.

Best-response diversity is ZSC-Eval's (arXiv 2310.05208): partners are alike if their best responses behave alike, and a
set of them is as diverse as the determinant of its similarities is large. The most probable set of a k-DPP (Kulesza and
Taskar, arXiv 1207.6083) is the one with the largest.
"""

from itertools import combinations, islice
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.stats.intervals import StatsError

MOST = 200_000  # subsets that are all looked at; of more the greedy one is taken
BATCH = 4096
RIDGE = 1e-6  # keeps the determinant above 0 where some are equal, so that those that differ still count
EQUAL = 1e-9  # of log determinants


def similarity(features: ArrayLike) -> NDArray[np.float64]:
    """How alike best responses are: exp(-d²), d being their distance in what they do.

    A number whose magnitude exceeds 1 somewhere is divided by its largest, so that a distance of 1 is all of one
    number. Smaller ones stay: a share of 0.003 and one of 0.001 are alike.

    Args:
        features: What each does, shape (n, numbers).

    Returns:
        Shape (n, n), in [0, 1]: 1 for two that do the same.

    Raises:
        StatsError: If they are not such numbers.
    """
    given = np.asarray(features, dtype=np.float64)
    if given.ndim != 2 or not given.size or not np.isfinite(given).all():
        raise StatsError(f"expected finite features of shape (n, numbers), not empty, got shape {given.shape}")
    scaled = given / np.maximum(np.abs(given).max(axis=0), 1.0)
    return np.asarray(np.exp(-((scaled[:, None] - scaled[None, :]) ** 2).sum(axis=-1)))


def most_diverse(alike: ArrayLike, k: int, seed: int = 0) -> tuple[int, ...]:
    """The k with the largest determinant of similarities.

    All subsets are looked at if there are at most `MOST`; else one after the other is added, the best each time.

    Args:
        alike: Similarities, shape (n, n), symmetric and positive semidefinite.
        k: How many.
        seed: Decides between sets that are equally diverse.

    Returns:
        Their indices, ascending.

    Raises:
        StatsError: If there are not so many, or the similarities are none.
    """
    matrix = np.asarray(alike, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise StatsError(f"expected finite similarities of shape (n, n), got shape {matrix.shape}")
    if not 1 <= k <= len(matrix):
        raise StatsError(f"expected to choose from 1 to {len(matrix)} of {len(matrix)}, got {k}")
    order = np.random.default_rng(seed).permutation(len(matrix))
    ridged = matrix[np.ix_(order, order)] + RIDGE * np.eye(len(matrix))
    chosen = _of_all(ridged, k) if comb(len(matrix), k) <= MOST else _one_by_one(ridged, k)
    return tuple(sorted(int(order[index]) for index in chosen))


def effective_number(alike: ArrayLike) -> float:
    """As how many different ones some count, the Vendi score (arXiv 2210.02410).

    Args:
        alike: Their similarities, shape (n, n), with ones on the diagonal.

    Returns:
        From 1, all do the same, to n, no two have anything in common.
    """
    shares = np.linalg.eigvalsh(np.asarray(alike, dtype=np.float64)) / len(np.asarray(alike))
    there = shares[shares > 0]
    return float(np.exp(-(there * np.log(there)).sum()))


def _of_all(matrix: NDArray[np.float64], k: int) -> tuple[int, ...]:
    best, most = tuple(range(k)), -np.inf
    subsets = combinations(range(len(matrix)), k)
    while batch := list(islice(subsets, BATCH)):
        logs = _logdets(matrix, batch)
        if logs.max() > most + EQUAL:
            at = int(np.argmax(logs >= logs.max() - EQUAL))  # the first of equals
            best, most = batch[at], float(logs[at])
    return best


def _one_by_one(matrix: NDArray[np.float64], k: int) -> tuple[int, ...]:
    chosen: tuple[int, ...] = ()
    while len(chosen) < k:
        wider = [(*chosen, index) for index in range(len(matrix)) if index not in chosen]
        logs = _logdets(matrix, wider)
        chosen = wider[int(np.argmax(logs >= logs.max() - EQUAL))]
    return chosen


def _logdets(matrix: NDArray[np.float64], subsets: list[tuple[int, ...]]) -> NDArray[np.float64]:
    index = np.array(subsets)
    return np.asarray(np.linalg.slogdet(matrix[index[:, :, None], index[:, None, :]]).logabsdet)
