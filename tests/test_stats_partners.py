"""Measures over partners, against numbers computed by hand and by simulation."""

import numpy as np
import pytest

from eval.stats import Estimate, StatsError, partner_spread, worst_partner


def solved(*counts: int, of: int = 10) -> np.ndarray:
    """One seed; with each partner the first so many problems are solved."""
    return np.array([[[1.0] * count + [0.0] * (of - count) for count in counts]])


def test_the_worst_partner_is_found():
    got = worst_partner(solved(7, 2, 9), resamples=500)
    assert (got.partner, got.estimate.value, got.resampled.value) == (1, 0.2, 0.2)
    assert got.chosen[1] > 0.9 and sum(got.chosen) == pytest.approx(1.0)
    assert got.estimate.low <= got.resampled.low <= 0.2 <= got.resampled.high <= got.estimate.high


def test_the_bias_of_a_minimum_is_seen():
    # Two partners, two problems, each solved with one of them: both rates are 0.5. Half of the draws take one problem
    # twice, and the least rate is 0; else it is 0.5. Mean 0.25, bias -0.25: either partner is the worst half the time.
    got = worst_partner(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
    assert got.bias == pytest.approx(-0.25, abs=0.01)
    assert got.resampled == Estimate(0.5, 0.0, 0.5)
    assert got.chosen == pytest.approx((0.5, 0.5), abs=0.02)
    assert (got.estimate.low, got.estimate.high) == (0.0, 1.0)


def test_partners_that_are_the_same_share_being_the_worst():
    got = worst_partner(solved(4, 4, 10), resamples=200)
    assert (got.partner, got.chosen, got.bias) == (0, (0.5, 0.5, 0.0), pytest.approx(0.0, abs=0.05))


def test_a_partner_with_whom_nothing_was_solved_has_wilsons_width():
    # Two partners, so level 0.975: z = 2.241403, z^2 = 5.023886; of 64 none: z^2 / (64 + z^2). Five seeds that played
    # the same problems count once.
    got = worst_partner(np.repeat(solved(64, 0, of=64), 5, axis=0), resamples=100)
    assert (got.estimate.value, got.estimate.low) == (0.0, 0.0)
    assert got.estimate.high == pytest.approx(5.023886 / 69.023886, abs=1e-6)
    assert got.resampled == Estimate(0.0, 0.0, 0.0)


def test_with_partners_alike_only_the_interval_that_allows_for_selection_holds_the_truth():
    rng = np.random.default_rng(0)
    held = drawn = 0
    rates = []
    for trial in range(100):
        outcomes = (rng.random((1, 8, 64)) < 0.5).astype(float)
        got = worst_partner(outcomes, resamples=200, seed=trial)
        held += got.estimate.low <= 0.5 <= got.estimate.high
        drawn += got.resampled.low <= 0.5 <= got.resampled.high
        rates.append(got.estimate.value)
        assert got.bias < 0
    assert np.mean(rates) == pytest.approx(0.5 - 0.09, abs=0.02)  # 1.42 standard errors of 0.0625
    assert held / 100 >= 0.9
    assert drawn / 100 < 0.25


def test_the_spread_without_noise_is_the_standard_deviation():
    # Solved with one partner always, with the other never: rates 1 and 0, variance 0.5; nothing else varies.
    got = partner_spread([[[1.0, 1.0], [0.0, 0.0]]], resamples=50)
    assert (got.estimate.value, got.observed, got.noise) == pytest.approx((0.5**0.5, 0.5**0.5, 0.0))


def test_what_partners_share_is_no_spread():
    got = partner_spread([[[1.0, 0.0], [1.0, 0.0]]], resamples=50)
    assert (got.estimate, got.observed, got.noise) == (Estimate(0.0, 0.0, 0.0), 0.0, 0.0)


def test_noise_of_problems_is_taken_out_of_the_spread():
    # Rates 1 and 0.5: variance 0.125. Less the problem's mean the outcomes are 0.5, 0 and -0.5, 0, the partners' means
    # 0.25 and -0.25, the interplay +-0.25 in four cells: squares 0.25, over (2 - 1)(2 - 1) 2 problems: 0.125.
    got = partner_spread([[[1.0, 1.0], [0.0, 1.0]]], resamples=50)
    assert (got.variance, got.estimate.value) == pytest.approx((0.0, 0.0), abs=1e-7)
    assert (got.observed**2, got.noise**2) == pytest.approx((0.125, 0.125))


def test_noise_of_seeds_is_taken_out_of_the_spread():
    # Each seed works with another partner: rates 0.5 and 0.5. The interplay is +-0.5 in four pairs of seed and partner:
    # squares 1, over (2 - 1)(2 - 1) 2 seeds: 0.5. The variance is unbiased, so it may be below 0; its root is not.
    got = partner_spread([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]], resamples=50)
    assert (got.observed, got.noise, got.variance) == pytest.approx((0.0, 0.5**0.5, -0.5))
    assert got.estimate.value == 0.0


def test_what_is_left_of_all_three_is_taken_out_once():
    # Solved or not by seed, partner and problem together: no rate differs, the rest is +-0.5 in eight cells. Both
    # interplays hold it, so it is put back once: squares 2, over (2 - 1)(2 - 1)(2 - 1) 4 outcomes: 0.5.
    got = partner_spread([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]], resamples=50)
    assert (got.observed, got.noise, got.variance) == pytest.approx((0.0, 0.0, 0.5))


def test_the_interval_of_the_spread_is_turned_round():
    # Variance 0, 0.125 seen. Draws: the first problem twice, in a quarter, is 0.5; all others 0. So the ends are
    # 0 - (0.5 - 0.125), cut, and 0 - (0 - 0.125).
    got = partner_spread([[[1.0, 1.0], [0.0, 1.0]]], resamples=500)
    assert (got.estimate.low, got.estimate.high) == pytest.approx((0.0, 0.125**0.5))


@pytest.mark.parametrize(("spread", "seeds"), [(0.1, 1), (0.1, 4), (0.0, 4)])
def test_the_corrected_spread_is_unbiased_and_its_interval_holds_the_truth(spread, seeds):
    rng = np.random.default_rng(1)
    apart = np.linspace(-1, 1, 6) / np.linspace(-1, 1, 6).std(ddof=1) * spread
    variances, observed, covered = [], [], 0
    for trial in range(100):
        outcomes = apart[:, None] + rng.normal(0, 0.3, 40) + rng.normal(0, 0.3, (6, 40))
        outcomes = outcomes + rng.normal(0, 0.3, (seeds, 6, 40))
        outcomes += rng.normal(0, 0.05, (seeds, 6, 1)) * (seeds > 1)
        got = partner_spread(outcomes, resamples=100, seed=trial)
        variances.append(got.variance)
        observed.append(got.observed**2)
        covered += got.estimate.low <= spread <= got.estimate.high
    error = np.std(variances) / 10
    assert np.mean(variances) == pytest.approx(spread**2, abs=3 * error)
    assert np.mean(observed) > spread**2 + 5 * error
    assert covered / 100 >= 0.87


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda: worst_partner([[0.0, 1.0]]), r"\(seeds, partners, problems\)"),
        (lambda: worst_partner([[[0.0, 2.0]]]), r"in \[0, 1\], got 0 to 2"),
        (lambda: worst_partner([[[0.0, 1.0]]], level=1.0), "got 1.0"),
        (lambda: worst_partner([[[0.0, float("nan")]]]), "finite"),
        (lambda: partner_spread([[[0.0, 1.0]]]), r"\(1, 1, 2\)"),
        (lambda: partner_spread([[[0.0], [1.0]]]), r"\(1, 2, 1\)"),
    ],
)
def test_outcomes_that_say_nothing_of_partners_are_refused(compute, says):
    with pytest.raises(StatsError, match=says):
        compute()
