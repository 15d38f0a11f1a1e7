"""Self-play and cross-play over seeds, against numbers computed by hand."""

import numpy as np
import pytest
from scipy.stats import t as student_t

from eval.stats import StatsError, cross_play, mean_interval


def test_the_means_are_those_of_the_diagonal_and_of_all_else():
    found = cross_play([[1.0, 0.2, 0.4], [0.2, 0.9, 0.0], [0.4, 0.0, 0.5]])
    # (1 + 0.9 + 0.5) / 3 = 0.8; (0.2 + 0.4 + 0) / 3 = 0.2
    assert (found.runs, found.self_play, found.cross_play) == (3, pytest.approx(0.8), pytest.approx(0.2))
    assert found.gap == pytest.approx(0.6)
    assert found.self_play_interval == mean_interval([1.0, 0.9, 0.5])


def test_the_interval_counts_runs_and_not_pairs():
    # Off the diagonal 0.5 + g_i + g_j with g = -0.1, 0, 0.1: pseudo-values are 0.5 + 2 g = 0.3, 0.5, 0.7, whose
    # standard deviation is 0.2; half the width is t(0.975; 2) * 0.2 / sqrt(3). Runs' means would say half of that.
    g = np.array([-0.1, 0.0, 0.1])
    found = cross_play(0.5 + g[:, None] + g[None, :] + np.diag([0.5, 0.5, 0.5] - 2 * g))
    half = student_t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
    assert found.cross_play == pytest.approx(0.5)
    assert found.cross_play_interval.low == pytest.approx(0.5 - half)
    assert found.cross_play_interval.high == pytest.approx(0.5 + half)
    # Self-play is 1 in every run: the gap's pseudo-values are 0.7, 0.5, 0.3.
    assert found.gap == pytest.approx(0.5) and found.gap_interval.low == pytest.approx(0.5 - half)


def test_it_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        g = rng.normal(size=6)
        noise = np.triu(rng.normal(size=(6, 6)), 1)
        ends = cross_play(g[:, None] + g[None, :] + noise + noise.T).cross_play_interval
        hits += ends.low <= 0 <= ends.high
    assert 0.93 < hits / 2000 < 0.97


def test_few_runs_have_no_interval():
    one, two = cross_play([[0.7]]), cross_play([[1.0, 0.2], [0.4, 0.8]])
    assert (one.self_play, one.cross_play, one.gap, one.self_play_interval) == (0.7, None, None, None)
    assert (two.cross_play, two.gap) == (pytest.approx(0.3), pytest.approx(0.6))
    assert two.cross_play_interval is None and two.gap_interval is None and two.self_play_interval is not None


@pytest.mark.parametrize("matrix", [[], [[1.0, 2.0]], [1.0], [[np.nan]], [[1.0, 0.0], [np.inf, 1.0]]])
def test_what_is_no_matrix_of_runs_is_refused(matrix):
    with pytest.raises(StatsError, match="shape"):
        cross_play(matrix)
