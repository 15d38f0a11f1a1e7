"""How often the report's headline claims a difference where there is none; by simulation."""

import numpy as np
import pytest

from eval.stats import ArmDifference, StatsError, hierarchical_bootstrap, seed_interval, seeds_needed
from eval.stats.intervals import Estimate

PROBLEMS, LIMIT = 16, 0.06


def compared(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Differences of two arms without a true one, of shape (seeds, problems): seeds and problems vary, and noise."""
    of_seed, of_problem = rng.normal(0, 0.1, (seeds, 1)), rng.normal(0, 0.1, (1, PROBLEMS))
    return of_seed + of_problem + rng.normal(0, 0.3, (seeds, PROBLEMS))


def resampled(table: np.ndarray) -> Estimate:
    return hierarchical_bootstrap(np.zeros_like(table), table, resamples=400)


def is_clear(table: np.ndarray) -> bool:
    means = table.mean(axis=1)
    over_seeds = seed_interval(np.zeros_like(means), means)
    if not over_seeds.leaves_out_zero:
        return False  # resampling is slow
    return ArmDifference("sampled", tuple(range(len(table))), tuple(means), resampled(table), over_seeds).is_clear


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_at_most_six_of_a_hundred_reports_claim_a_difference_that_is_not_there(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    claims = [is_clear(compared(rng, seeds)) for _ in range(2000)]
    assert np.mean(claims) <= LIMIT


def test_resampling_alone_would_claim_too_often() -> None:
    rng = np.random.default_rng(2)
    assert np.mean([resampled(compared(rng, 2)).leaves_out_zero for _ in range(300)]) > LIMIT


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_large_difference_is_claimed(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    assert np.mean([is_clear(compared(rng, seeds) + 1.0) for _ in range(100)]) > 0.95


def test_one_seed_is_judged_by_its_problems_alone() -> None:
    clear, unclear = Estimate(0.3, 0.1, 0.5), Estimate(0.1, -0.1, 0.3)
    assert ArmDifference("sampled", (1,), (0.3,), clear, None).is_clear
    assert not ArmDifference("sampled", (1,), (0.1,), unclear, None).is_clear
    assert not ArmDifference("sampled", (1, 2), (0.3, 0.3), clear, unclear).is_clear
    assert not ArmDifference("sampled", (1, 2), (0.3, 0.3), unclear, clear).is_clear
    assert ArmDifference("sampled", (1,), (0.1,), unclear, None).seeds_needed is None


# The paired t test's table: an effect of one standard deviation needs 10 pairs for a power of 0.8, of half of it 34.
@pytest.mark.parametrize(("difference", "deviation", "seeds"), [(1, 1, 10), (-0.5, 1, 34), (0.1, 0, 2), (2, 1, 5)])
def test_seeds_that_show_a_difference(difference: float, deviation: float, seeds: int) -> None:
    assert seeds_needed(difference, deviation) == seeds


def test_a_difference_that_no_number_of_seeds_shows() -> None:
    assert seeds_needed(1e-6, 1) is None
    with pytest.raises(StatsError, match="other than 0"):
        seeds_needed(0, 1)


def test_ends_of_intervals_stay_within_what_a_share_can_be() -> None:
    assert Estimate(0.4, -4.89, 4.64).within(-1, 1) == Estimate(0.4, -1, 1)
