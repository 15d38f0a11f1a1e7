"""Planning: how many problems show a difference, and how sure a number makes it."""

import numpy as np
import pytest

from eval.stats import (
    StatsError,
    discordance,
    power_paired,
    problems_paired,
    problems_unpaired,
)


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


def test_the_power_of_a_number():
    # 100 problems, 0.1 * 10 = 1: (1 - 1.959964 * 0.5) / sqrt(0.24) = 0.040862, below which lies 0.516297.
    assert power_paired(100, 0.1, 0.25) == pytest.approx(0.516297, abs=1e-5)
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
