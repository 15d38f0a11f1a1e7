"""Resampling of any statistic, the interquartile mean and the probability of improvement."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from eval.stats import (
    Estimate,
    StatsError,
    bootstrap,
    bootstrap_draws,
    hierarchical_bootstrap,
    interquartile_mean,
    mean_interval,
    paired_bootstrap,
    probability_of_improvement,
    simultaneous_bootstrap,
    stratified_bootstrap,
    wilson,
)


def mean(tables: np.ndarray) -> np.ndarray:
    return tables.mean(axis=(1, 2))


def test_any_statistic_of_a_table_has_an_interval():
    # One seed, problems 0 and 1. Draws are 00, 01, 10, 11: the largest is 0 in a quarter of them, else 1.
    draws = bootstrap_draws([[0.0, 1.0]], lambda tables: tables.max(axis=(1, 2)), resamples=4000)
    assert set(draws) == {0.0, 1.0}
    assert draws.mean() == pytest.approx(0.75, abs=0.03)
    got = bootstrap([[0.0, 1.0]], lambda tables: tables.max(axis=(1, 2)), resamples=400)
    assert got == Estimate(1.0, 0.0, 1.0)


def test_all_partners_get_the_same_problems_and_seeds():
    # Each problem is solved with exactly one of two partners, by exactly one of two seeds: rates always sum to 1.
    by_problem = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    by_seed = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    for outcomes in (by_problem, by_seed):
        got = bootstrap(outcomes, lambda tables: tables.mean(axis=(1, 3)).sum(axis=1), resamples=200)
        assert got == Estimate(1.0, 1.0, 1.0)
        assert bootstrap(outcomes[:, 0], resamples=200) == Estimate(0.5, 0.0, 1.0)


def test_the_bootstrap_of_arms_is_that_of_their_differences():
    first, later = np.random.default_rng(0).random((2, 4, 20))
    assert bootstrap(later - first, seed=3) == hierarchical_bootstrap(first, later, seed=3)
    assert bootstrap([later[0] - first[0]], seed=3) == paired_bootstrap(first[0], later[0], seed=3)


def test_axes_between_seeds_and_problems_keep_their_place():
    # The mean over three seats is the same, drawn before or after.
    outcomes = np.random.default_rng(0).random((4, 3, 20))
    got, expected = bootstrap(outcomes, seed=1), bootstrap(outcomes.mean(axis=1), seed=1)
    assert (got.value, got.low, got.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_a_band_of_one_column_holds_the_middle_of_its_draws():
    # 6 of 10 solved; solved among the drawn B ~ Binomial(10, 0.6): P(|B - 6| <= 2) = 0.8989, P(|B - 6| <= 3) = 0.9817.
    column = [1.0] * 6 + [0.0] * 4
    for columns in ([column], [column, column]):  # a column twice is no further comparison
        for got in simultaneous_bootstrap([columns]):
            assert (got.value, got.low, got.high) == pytest.approx((0.6, 0.3, 0.9))


def test_a_column_that_never_varies_does_not_widen_the_others():
    column = [1.0] * 6 + [0.0] * 4
    first, second = simultaneous_bootstrap([[column, [1.0] * 10]])
    assert (first.low, first.high) == pytest.approx((0.3, 0.9))
    assert second == Estimate(1.0, 1.0, 1.0)
    assert simultaneous_bootstrap([[[0.5, 0.5]]]) == (Estimate(0.5, 0.5, 0.5),)


def test_a_band_of_many_columns_is_as_sure_as_it_says_and_single_intervals_are_not():
    rng = np.random.default_rng(0)
    together = singly = 0
    for trial in range(200):
        # Ten seeds and six columns of true mean 0: seeds 0.1, problems 0.2 (common to the columns), both 0.4.
        outcomes = rng.normal(0, 0.1, (10, 6, 1)) + rng.normal(0, 0.2, 40) + rng.normal(0, 0.4, (10, 6, 40))
        band = simultaneous_bootstrap(outcomes, resamples=200, seed=trial)
        together += all(e.low <= 0 <= e.high for e in band)
        draws = bootstrap_draws(outcomes, lambda t: t.mean(axis=(1, 3)), resamples=200, seed=trial)
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        singly += bool(((low <= 0) & (high >= 0)).all())
    assert 0.90 <= together / 200 <= 0.99
    assert singly / 200 < 0.86


def test_the_middle_half_is_averaged():
    # Of 0..7 the two smallest and the two largest go: (2 + 3 + 4 + 5) / 4. An outlier changes nothing.
    assert interquartile_mean([[0, 1, 2, 3], [4, 5, 6, 7]]) == 3.5
    assert interquartile_mean([[0, 1, 2, 3], [4, 5, 6, 700]]) == 3.5
    # A quarter of 6 is 1.5, rounded down: (1 + 2 + 3 + 6) / 4.
    assert interquartile_mean([[0, 1, 2], [3, 6, 100]]) == 3.0


def test_the_probability_of_improvement_counts_pairs():
    # Task 1: 0, 1 against 1, 2: better in 1>0, 2>0, 2>1, as good in 1=1: 3.5 / 4. Task 2: never better: 0.
    assert probability_of_improvement([[0, 5], [1, 6]], [[1, 0], [2, 1]]) == 0.875 / 2
    assert probability_of_improvement([[1, 0], [2, 1]], [[0, 5], [1, 6]]) == 1 - 0.875 / 2
    assert probability_of_improvement([[0, 5]], [[0, 5]]) == 0.5


def test_the_probability_of_improvement_is_mann_whitneys_statistic():
    rng = np.random.default_rng(0)
    first, later = rng.integers(0, 5, (4, 3)), rng.integers(1, 6, (6, 3))  # with ties, and of other numbers of runs
    shares = [mannwhitneyu(later[:, task], first[:, task]).statistic / 24 for task in range(3)]
    assert probability_of_improvement(first, later) == pytest.approx(np.mean(shares))


def test_aggregates_of_many_tables_are_those_of_each():
    first, later = np.random.default_rng(0).random((2, 7, 5, 3))
    assert interquartile_mean(first) == pytest.approx([float(interquartile_mean(table)) for table in first])
    expected = [float(probability_of_improvement(a, b)) for a, b in zip(first, later, strict=True)]
    assert probability_of_improvement(first, later) == pytest.approx(expected)


def test_runs_are_drawn_whole_or_within_each_task():
    # The runs' scores 0, 1 and 1, 0 always average 0.5. Drawn apart, all four are 0 in 1 of 16 draws: above 2.5 %.
    scores = [[0.0, 1.0], [1.0, 0.0]]
    assert stratified_bootstrap(mean, scores, whole_runs=True) == Estimate(0.5, 0.5, 0.5)
    assert stratified_bootstrap(mean, scores, whole_runs=False) == Estimate(0.5, 0.0, 1.0)


def test_tasks_are_strata():
    # Within a task the runs agree, so nothing is left to draw, however far the tasks lie apart.
    assert stratified_bootstrap(mean, [[0.0, 1.0]] * 3, whole_runs=False) == Estimate(0.5, 0.5, 0.5)


def test_two_arms_are_drawn_apart():
    # Runs 0 and 1 in both arms. The later one always wins if 1, 1 is drawn against 0, 0: 1 of 16 draws, above 2.5 %.
    got = stratified_bootstrap(probability_of_improvement, [[0.0], [1.0]], [[0.0], [1.0]], whole_runs=True)
    assert got == Estimate(0.5, 0.0, 1.0)


def test_drawing_within_tasks_is_too_sure_where_a_run_fills_a_row():
    rng = np.random.default_rng(0)
    covered = {True: 0, False: 0, "separate": 0}
    for trial in range(200):
        noise = rng.normal(0, 0.05, (10, 8))
        of_runs = rng.normal(0, 0.1, (10, 1)) + noise
        of_trainings = rng.normal(0, 0.1, (10, 8)) + noise
        for name, scores, whole in ((True, of_runs, True), (False, of_runs, False), ("separate", of_trainings, False)):
            got = stratified_bootstrap(interquartile_mean, scores, whole_runs=whole, resamples=200, seed=trial)
            covered[name] += got.low <= 0 <= got.high
    assert 0.88 <= covered[True] / 200 <= 0.98
    assert 0.88 <= covered["separate"] / 200 <= 0.98
    assert covered[False] / 200 < 0.7


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda: bootstrap([0.0, 1.0]), "two dimensions"),
        (lambda: bootstrap([[0.0, float("nan")]]), "finite"),
        (lambda: bootstrap([[0.0, 1.0]], resamples=0), "resamples must be 1 or more, got 0"),
        (lambda: bootstrap([[0.0, 1.0]], level=95), "in \\(0, 1\\), such as 0.95, got 95"),
        (lambda: bootstrap([[0.0, 1.0]], lambda tables: tables.mean()), "begins so"),
        (lambda: bootstrap([[0.0, 1.0]], lambda tables: tables.mean(axis=1)), "simultaneous_bootstrap"),
        (lambda: bootstrap([[0.0, 1.0]], lambda tables: tables[:, 0, 0] * np.nan), "not finite"),
        (lambda: simultaneous_bootstrap([[0.0, 1.0]]), r"\(seeds, columns, problems\)"),
        (lambda: stratified_bootstrap(mean, [0.0, 1.0], whole_runs=True), "two dimensions"),
        (lambda: stratified_bootstrap(mean, [[[0.0]]], whole_runs=True), r"\(runs, tasks\)"),
        (lambda: interquartile_mean([1.0]), r"\(1,\)"),
        (lambda: probability_of_improvement([[1.0, 2.0]], [[1.0]]), "same tasks"),
        (lambda: probability_of_improvement([[1.0]], [[float("inf")]]), "finite"),
        (lambda: mean_interval([0.0, 1.0], level=95), "got 95"),
        (lambda: wilson(1, 2, level=0), "got 0"),
        (lambda: paired_bootstrap([[0.0, 1.0]], [[1.0, 1.0]]), "1 dimension"),
    ],
)
def test_what_cannot_be_resampled_is_refused(compute, says):
    with pytest.raises(StatsError, match=says):
        compute()
