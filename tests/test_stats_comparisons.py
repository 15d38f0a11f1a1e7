"""Several comparisons, tests over few seeds, and planning."""

import numpy as np
import pytest

from eval.stats import (
    StatsError,
    discordance,
    holm,
    mean_interval,
    paired_test,
    power_paired,
    power_unpaired,
    problems_paired,
    problems_unpaired,
    simultaneous_intervals,
)


def test_holm_steps_down():
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04; none below the one before it: 0.03, 0.06, 0.06.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([0.02, 0.02]).tolist() == [0.04, 0.04]


def test_holm_rejects_falsely_as_seldom_as_it_says():
    # Of 5 independent true hypotheses the smallest p is at most 0.05 / 5 in 1 - 0.99^5 = 4.9 % of the cases.
    p_values = np.random.default_rng(0).random((4000, 5))
    wrong = np.mean([holm(row).min() <= 0.05 for row in p_values])
    assert wrong == pytest.approx(0.049, abs=0.01)


def test_intervals_that_hold_at_once_are_wider():
    # Two columns: level 0.975 each. t(0.9875, 2) = 6.205347, deviation 0.1: half is 6.205347 * 0.1 / sqrt(3).
    values = np.array([[0.1, 1.0], [0.2, 2.0], [0.3, 6.0]])
    first, second = simultaneous_intervals(values)
    assert (first.value, first.low, first.high) == pytest.approx((0.2, 0.2 - 0.3582659, 0.2 + 0.3582659))
    assert second == mean_interval(values[:, 1], 0.975)
    assert simultaneous_intervals(values[:, :1]) == (mean_interval(values[:, 0]),)


def test_both_paired_tests():
    # Differences 3, 2, -1: sum 4. The sums of all signs are 6, 4, 2, 0, 0, -2, -4, -6: two of eight reach 4, doubled.
    # t = (4/3) / sqrt(13/3 / 3) = 1.109400; with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2) = 0.382787.
    got = paired_test([0.0, 0.0, 0.0], [3.0, 2.0, -1.0])
    assert (got.difference.value, got.sign_flip_p, got.least_p) == pytest.approx((4 / 3, 0.5, 0.25))
    assert got.t_p == pytest.approx(0.382787, abs=1e-6)
    assert paired_test([3.0, 2.0, -1.0], [0.0, 0.0, 0.0]).sign_flip_p == 0.5


@pytest.mark.parametrize(("seeds", "least"), [(2, 1 / 2), (5, 1 / 16), (6, 1 / 32), (10, 1 / 512)])
def test_few_seeds_cannot_reach_small_p_values(seeds, least):
    later = 0.1 * np.arange(1, seeds + 1)  # every seed favours the later arm
    got = paired_test(np.zeros(seeds), later)
    assert got.sign_flip_p == got.least_p == least


def test_ties_that_rounding_breaks_are_counted():
    # 0.7 - 0.6 and 0.6 - 0.5 differ by rounding. Differences 0.1, 0.1, -0.1: of the 8 sums, 0.3 and thrice 0.1 reach
    # it: 1/2, doubled.
    assert paired_test([0.6, 0.5, 0.4], [0.7, 0.6, 0.3]).sign_flip_p == 1.0


def test_differences_that_are_all_the_same_have_no_t():
    got = paired_test([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert (got.t_p, got.sign_flip_p, got.difference.value) == (None, 1.0, 0.0)
    got = paired_test([0.5, 0.6, 0.7], [0.6, 0.7, 0.8])  # 0.1 but for rounding
    assert (got.t_p, got.sign_flip_p) == (None, 0.25)


def test_the_sign_flip_test_rejects_falsely_as_seldom_as_it_says():
    # 6 seeds: rejected at 0.05 where p is 1/32, in 1/32 of the cases without a difference, however skewed their size.
    rng = np.random.default_rng(0)
    sizes = rng.exponential(size=(400, 6)) * rng.choice([-1, 1], (400, 6))
    wrong = np.mean([paired_test(np.zeros(6), row).sign_flip_p <= 0.05 for row in sizes])
    assert wrong == pytest.approx(1 / 32, abs=0.025)


def test_discordance_from_rates_and_their_correlation():
    # 0.5 * 0.4 + 0.6 * 0.5 = 0.5; with correlation 0.5 less 2 * 0.5 * sqrt(0.25 * 0.24) = 0.244949.
    assert discordance(0.5, 0.6, 0.0) == pytest.approx(0.5)
    assert discordance(0.5, 0.6, 0.5) == pytest.approx(0.255051, abs=1e-6)
    assert discordance(0.3, 0.3, 1.0) == pytest.approx(0.0)
    assert discordance(0.3, 0.7, -1.0) == pytest.approx(1.0)


def test_how_many_problems_a_difference_takes():
    # z = 1.959964 and 0.841621.
    # Unpaired, 0.5 and 0.6: (z sqrt(2 * 0.55 * 0.45) + z' sqrt(0.25 + 0.24))^2 / 0.01 = 1.968092^2 / 0.01 = 387.34.
    assert problems_unpaired(0.5, 0.6) == problems_unpaired(0.6, 0.5) == 388
    # Paired, discordance 0.25: (z * 0.5 + z' sqrt(0.24))^2 / 0.01 = 1.392290^2 / 0.01 = 193.85.
    assert problems_paired(0.1, 0.25) == problems_paired(-0.1, 0.25) == 194
    # Discordance 1/10, all for one side: (z sqrt(0.1) + z' 0.3)^2 / 0.01 = 0.872281^2 / 0.01 = 76.09.
    assert problems_paired(0.1, 0.1) == 77
    # Power 0.9, z' = 1.281552, level 0.01, z = 2.575829: (1.287915 + 0.627830)^2 / 0.01 = 367.01.
    assert problems_paired(0.1, 0.25, alpha=0.01, power=0.9) == 368


def test_the_planned_number_is_the_first_that_suffices():
    assert power_paired(194, 0.1, 0.25) >= 0.8 > power_paired(193, 0.1, 0.25)
    assert power_unpaired(388, 0.5, 0.6) >= 0.8 > power_unpaired(387, 0.5, 0.6)


def test_the_power_of_a_number():
    # 100 problems, 0.1 * 10 = 1: (1 - 1.959964 * 0.5) / sqrt(0.24) = 0.040862, below which lies 0.516297.
    assert power_paired(100, 0.1, 0.25) == pytest.approx(0.516297, abs=1e-5)
    # (1 - 1.959964 * 0.703562) / 0.7 = -0.541367: 0.294127.
    assert power_unpaired(100, 0.5, 0.6) == pytest.approx(0.294127, abs=1e-5)
    # One always solves what the other never does: seen from 4 problems on, as sqrt(3) < 1.96 < sqrt(4).
    assert (power_paired(3, 1.0, 1.0), power_paired(4, 1.0, 1.0), problems_paired(1.0, 1.0)) == (0.0, 1.0, 4)


def test_the_power_is_that_of_simulated_tests():
    rng = np.random.default_rng(0)
    both, first, later = rng.multinomial(194, [0.75, 0.075, 0.175], 4000).T  # of 194 problems, solved by just one
    assert (both + first + later == 194).all()
    seen = np.mean((later - first) / np.sqrt(first + later) > 1.959964)
    assert seen == pytest.approx(0.8, abs=0.025)
    a, b = rng.binomial(388, 0.5, 4000) / 388, rng.binomial(388, 0.6, 4000) / 388
    mean = (a + b) / 2
    assert np.mean((b - a) / np.sqrt(2 * mean * (1 - mean) / 388) > 1.959964) == pytest.approx(0.8, abs=0.025)


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda: holm([]), "p-values"),
        (lambda: holm([0.5, 1.5]), "1.5"),
        (lambda: holm([float("nan")]), "nan"),
        (lambda: simultaneous_intervals([0.1, 0.2]), r"\(seeds, columns\)"),
        (lambda: simultaneous_intervals([[0.1, 0.2]]), "2 finite numbers or more"),
        (lambda: paired_test([0.1], [0.2]), "2 to 16 seeds, got 1"),
        (lambda: paired_test(np.zeros(17), np.ones(17)), "2 to 16 seeds, got 17"),
        (lambda: paired_test([0.1, 0.2], [0.2]), r"\(2,\), \(1,\)"),
        (lambda: discordance(0.5, 1.2, 0.0), "rates in"),
        (lambda: discordance(0.5, 0.9, 1.0), "cannot correlate by 1.0"),
        (lambda: problems_paired(0.0, 0.2), "difference 0.0"),
        (lambda: problems_paired(0.3, 0.2), "discordance 0.2"),
        (lambda: problems_unpaired(0.5, 0.5), "that differ"),
        (lambda: problems_unpaired(0.5, float("nan")), "that differ"),
        (lambda: problems_paired(0.1, 0.2, power=1.0), "power"),
        (lambda: problems_paired(0.1, 0.2, alpha=5), "alpha"),
        (lambda: power_paired(0, 0.1, 0.2), "1 or more, got 0"),
    ],
)
def test_numbers_that_compare_nothing_are_refused(compute, says):
    with pytest.raises(StatsError, match=says):
        compute()
