"""Returns with sampled partners: pooled over steps, and without the part that is chance."""

import math
import random
from collections.abc import Sequence
from statistics import fmean

import pytest
import torch

from llm_sra.objectives.partner_returns import PartnerReturns
from llm_sra.objectives.risk.entropic import entropic

TAU = 10.0


def pairs(**returns: Sequence[float]) -> list[tuple[str, float]]:
    """Problem and return of each episode, from the returns by problem."""
    return [(problem, value) for problem, values in returns.items() for value in values]


def test_the_part_of_the_means_spread_that_chance_explains_is_taken_out() -> None:
    earned = PartnerReturns(0.0)
    earned.update({"a": pairs(p=[1.0, 0.0, 1.0, 1.0]), "b": pairs(p=[0.0, 0.0, 1.0, 0.0])})
    found = earned.estimate()
    # Means 0.75, 0.25: variance 0.125. Within: sums of squares 0.75 + 0.75 over 6 degrees, 0.25; of a mean 0.0625, half
    # of the spread. So half of each distance from 0.5 stays.
    assert found.means.tolist() == [0.75, 0.25] and found.noise == pytest.approx(0.5)
    assert found.shrunk.tolist() == pytest.approx([0.625, 0.375])


def test_what_differs_between_problems_is_no_noise_and_episodes_of_a_problem_are_one_unit() -> None:
    earned = PartnerReturns(0.0)
    easy, hard = [1.0, 1.0], [0.0, 0.0]
    earned.update({"a": pairs(p=easy, q=hard), "b": pairs(p=easy, q=hard)})
    assert earned.estimate().shrunk.tolist() == [0.5, 0.5]
    earned.update({"a": pairs(p=[1.0, 1.0], q=[0.5, 0.5]), "b": pairs(p=[0.5, 0.5], q=[0.0, 0.0])})
    found = earned.estimate()  # partner and problem explain everything
    assert found.noise == 0.0 and found.shrunk.tolist() == [0.75, 0.25]
    earned.update({"a": pairs(p=[1.0, 1.0], q=[0.0, 0.0]), "b": pairs(p=[0.5, 0.5], q=[0.25, 0.25])})
    # Means 0.5, 0.375: variance 1/128. Of problems 0.75, 0.125. Residuals ±(1 - 0.75 - 0.5 + 0.4375) = ±0.1875, one
    # degree of freedom: 4 * 0.1875² = 0.140625, of a mean over two problems 0.0703: more than all of the spread.
    assert earned.estimate().noise == 1.0 and earned.estimate().shrunk.tolist() == [0.4375, 0.4375]


def test_a_mean_that_is_known_better_is_shrunk_less() -> None:
    earned = PartnerReturns(0.5)
    for _ in range(2):
        earned.update({"a": pairs(p=[1.0, 0.0, 1.0, 1.0]), "b": pairs(p=[0.0, 0.0, 1.0, 0.0])})
    earned.update({"a": pairs(p=[1.0, 0.0, 1.0, 1.0])})
    found = earned.estimate()
    # Weights of a: 0.25, 0.5, 1, so 4 * 1.3125 / (4 * 1.75)² = 0.107 of the variance 0.25; of b 0.5, 1:
    # 4 * 0.3125 / (4 * 0.75)² = 0.1389. T² = 0.125 - (0.02679 + 0.03472) / 2 = 0.09425.
    assert found.shrunk.tolist() == pytest.approx(
        [0.5 + 0.25 * 0.09425 / (0.09425 + 0.02679), 0.5 - 0.25 * 0.09425 / (0.09425 + 0.03472)], abs=1e-4
    )


def test_a_step_ago_counts_decay_times_as_much_and_without_decay_nothing() -> None:
    pooled, latest = PartnerReturns(0.75), PartnerReturns(0.0)
    for earned in (pooled, latest):
        earned.update({"a": pairs(p=[1.0, 1.0]), "b": pairs(p=[0.0, 0.0])})
        earned.update({"a": pairs(p=[0.0, 0.0]), "b": pairs(p=[1.0, 1.0])})
    assert pooled.estimate().means.tolist() == pytest.approx([3 / 7, 4 / 7])  # 0.75 : 1
    assert latest.estimate().means.tolist() == [0.0, 1.0]
    latest.update({"b": pairs(p=[1.0, 1.0])})
    assert latest.estimate().partners == ("b",)


def test_one_partner_has_nothing_to_be_told_apart_from() -> None:
    earned = PartnerReturns(0.5)
    earned.update({"a": pairs(p=[1.0, 0.0])})
    assert earned.estimate().shrunk.tolist() == [0.5] and earned.estimate().noise == 0.0


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    rng = random.Random(0)
    steps = [
        {partner: pairs(p=[rng.random() for _ in range(3)], q=[rng.random() for _ in range(3)]) for partner in partners}
        for partners in ("ab", "bc", "ca", "ab", "bc", "ca")
    ]
    whole, before, after = PartnerReturns(0.9), PartnerReturns(0.9), PartnerReturns(0.9)
    for step in steps:
        whole.update(step)
    for step in steps[:3]:
        before.update(step)
    after.load_state_dict(before.state_dict())
    for step in steps[3:]:
        after.update(step)
    assert torch.equal(after.estimate().shrunk, whole.estimate().shrunk)
    assert after.estimate().noise == whole.estimate().noise


def test_a_decay_of_one_is_refused() -> None:
    for decay in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="decay"):
            PartnerReturns(decay)


# -- how much of the weights is chance: four partners, two episodes of four problems with each, half of them solved ---


def weights(rates: Sequence[float], decay: float, steps: int, shrunk: bool = True, met: int = 4) -> list[list[float]]:
    """Entropic weights of 300 simulated trainings after some steps; returns are 0 or 1, `rates` how often 1.

    Args:
        rates: Of each partner.
        decay: See `PartnerReturns`.
        steps: Of each training.
        shrunk: Whether the weights are of shrunk means.
        met: How many partners a step meets.
    """
    rng = random.Random(0)
    found = []
    for _ in range(300):
        earned = PartnerReturns(decay)
        for _ in range(steps):
            of_step = sorted(rng.sample(range(len(rates)), met))
            earned.update(
                {str(z): [(p, float(rng.random() < rates[z])) for p in "pqrs" for _ in range(2)] for z in of_step}
            )
        means = earned.estimate()
        weight = dict(zip(means.partners, entropic(means.shrunk if shrunk else means.means, TAU).weights, strict=True))
        found.append([float(weight.get(str(z), 0.0)) for z in range(len(rates))])
    return found


EQUAL = (0.5, 0.5, 0.5, 0.5)


def test_raw_means_of_few_episodes_put_two_thirds_of_the_weight_on_one_of_four_equal_partners() -> None:
    assert fmean(map(max, weights(EQUAL, 0.0, 1, shrunk=False))) == pytest.approx(0.64, abs=0.03)


def test_shrunk_means_put_little_more_than_a_fourth_there_and_pooled_ones_still_less() -> None:
    assert fmean(map(max, weights(EQUAL, 0.0, 1))) == pytest.approx(0.37, abs=0.03)
    assert fmean(map(max, weights(EQUAL, 0.7, 15))) == pytest.approx(0.30, abs=0.03)
    assert fmean(map(max, weights(EQUAL, 0.7, 15, met=2))) == pytest.approx(0.33, abs=0.03)


def test_a_partner_that_is_really_worse_keeps_most_of_the_weight() -> None:
    worse = (0.2, 0.5, 0.5, 0.5)  # known exactly it would have e^3 / (e^3 + 3) = 0.87
    assert fmean(one[0] for one in weights(worse, 0.7, 15)) > 0.70
    assert fmean(one[0] for one in weights(worse, 0.7, 15, met=2)) > 0.60
