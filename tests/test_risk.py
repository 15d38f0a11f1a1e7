import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from llm_sra.objectives.risk.cvar import cvar
from llm_sra.objectives.risk.entropic import entropic
from llm_sra.objectives.risk.expectation import expectation
from llm_sra.objectives.risk.rank import rank
from llm_sra.objectives.risk.worst_case import worst_case


def doubles(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@st.composite
def partners(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns in [-1, 1], some of them equal, and a prior, some of it 0."""
    count = draw(st.integers(1, 5))
    returns = draw(st.lists(st.integers(-10, 10), min_size=count, max_size=count))
    masses = draw(st.lists(st.integers(0, 6), min_size=count, max_size=count).filter(any))
    return doubles(*returns) / 10, doubles(*masses) / sum(masses)


def test_expectation_weighs_partners_as_the_prior_does():
    risk = expectation(doubles(1.0, 0.0, 0.5), doubles(0.5, 0.3, 0.2))
    assert risk.value.item() == pytest.approx(0.6)  # 0.5 + 0 + 0.1
    assert risk.weights.tolist() == pytest.approx([0.5, 0.3, 0.2])


def test_entropic_weights_and_value_by_hand():
    # exp(-τ R) = (1/3, 1) at τ = log 3: weights (1/4, 3/4); value -log((1/3 + 1) / 2) / log 3 = log 1.5 / log 3.
    risk = entropic(doubles(1.0, 0.0), math.log(3))
    assert risk.weights.tolist() == pytest.approx([0.25, 0.75])
    assert risk.value.item() == pytest.approx(math.log(1.5) / math.log(3))


@pytest.mark.parametrize(
    ("alpha", "weights", "value"),
    [
        (0.2, [0.0, 1.0, 0.0], 1.0),  # the worst partner has 0.3 of the mass, more than is asked for
        (0.4, [0.0, 0.75, 0.25], 1.25),  # 0.3 of it and 0.1 of the next, over 0.4
        (0.5, [0.0, 0.6, 0.4], 1.4),
        (1.0, [0.5, 0.3, 0.2], 2.2),  # the expectation
    ],
)
def test_cvar_fills_the_worst_partners_first(alpha, weights, value):
    risk = cvar(doubles(3.0, 1.0, 2.0), alpha, doubles(0.5, 0.3, 0.2))
    assert risk.weights.tolist() == pytest.approx(weights, abs=1e-12)
    assert risk.value.item() == pytest.approx(value)


def test_ranks_weigh_partners_by_their_place_alone():
    risk = rank(doubles(3.0, 1.0, 2.0), 1.0)  # ranks 1, 3, 2 of sum 6
    assert risk.weights.tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 6])
    assert risk.value.item() == pytest.approx((3 + 3 + 4) / 6)
    assert rank(doubles(9.0, 1.0, 1.5), 2.0).weights.tolist() == pytest.approx([1 / 14, 9 / 14, 4 / 14])
    assert rank(doubles(9.0, 1.0, 1.0), 1.0).weights.tolist() == pytest.approx([1 / 6, 2.5 / 6, 2.5 / 6])
    prior = doubles(0.5, 0.0, 0.5)  # the second has no rank: 1 and 2, of equal priors
    assert rank(doubles(3.0, -9.0, 1.0), 1.0, prior).weights.tolist() == pytest.approx([1 / 3, 0.0, 2 / 3])
    assert rank(doubles(3.0, 1.0), 0.0).value.item() == expectation(doubles(3.0, 1.0)).value.item()
    with pytest.raises(ValueError, match="power"):
        rank(doubles(1.0), -1.0)


def test_equally_bad_partners_share_as_their_priors_do():
    returns, prior = doubles(0.0, 0.0, 1.0), doubles(0.1, 0.3, 0.6)
    assert cvar(returns, 0.2, prior).weights.tolist() == pytest.approx([0.25, 0.75, 0.0])
    assert worst_case(returns, prior).weights.tolist() == pytest.approx([0.25, 0.75, 0.0])


def test_a_partner_that_the_prior_leaves_out_is_never_the_worst():
    returns, prior = doubles(-9.0, 1.0, 2.0), doubles(0.0, 0.5, 0.5)
    for risk in (entropic(returns, 0.2, prior), expectation(returns, prior)):  # near the mean of 1 and 2
        assert 1.4 < risk.value.item() <= 1.5
    for risk in (worst_case(returns, prior), cvar(returns, 0.1, prior), entropic(returns, 1e4, prior)):
        assert risk.value.item() == pytest.approx(1.0, abs=1e-3)
        assert risk.weights.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)


def test_the_four_measures_differ():
    returns = doubles(1.0, 0.0, 0.5)
    values = [expectation(returns), entropic(returns, 1.0), cvar(returns, 0.5), worst_case(returns)]
    assert min(a.value.item() - b.value.item() for a, b in pairwise(values)) > 0.05


@given(partners(), st.sampled_from([0.3, 1.0, 5.0]))
@settings(max_examples=40, deadline=None)
def test_entropic_is_the_minimum_over_the_simplex(case, tau):
    returns, prior = (tensor[case[1] > 0].numpy() for tensor in case)

    def cost(logits: np.ndarray) -> float:
        w = np.exp(logits - np.logaddexp.reduce(logits))
        return float(w @ returns + w @ np.log(w / prior) / tau)

    found = minimize(cost, np.zeros(len(returns)), method="BFGS", options={"gtol": 1e-9})
    weights = np.exp(found.x - np.logaddexp.reduce(found.x))
    risk = entropic(case[0], tau, case[1])
    assert risk.value.item() == pytest.approx(found.fun, abs=1e-6)
    assert risk.weights[case[1] > 0].numpy() == pytest.approx(weights, abs=1e-4)  # flat there: 1e-6 squared away
    assert cost(np.log(risk.weights[case[1] > 0].numpy())) <= found.fun + 1e-12


@given(partners(), st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_cvar_is_the_minimum_over_weights_of_bounded_density(case, alpha):
    returns, prior = case
    bounds = [(0, p / alpha) for p in prior.tolist()]
    found = linprog(returns.numpy(), A_eq=np.ones((1, len(returns))), b_eq=[1], bounds=bounds)
    risk = cvar(returns, alpha, prior)
    assert risk.value.item() == pytest.approx(found.fun, abs=1e-6)
    assert (risk.weights <= prior / alpha + 1e-9).all()


@given(partners(), st.floats(0, 1e4), st.floats(1e-3, 1.0))
@settings(max_examples=50, deadline=None)
def test_weights_are_a_distribution_and_values_are_in_order(case, tau, alpha):
    returns, prior = case
    mean, least = expectation(returns, prior).value.item(), worst_case(returns, prior).value.item()
    for risk in (entropic(returns, tau, prior), cvar(returns, alpha, prior), worst_case(returns, prior)):
        assert risk.weights.sum().item() == pytest.approx(1, abs=1e-12)
        assert (risk.weights >= 0).all()
        assert (risk.weights[prior == 0] == 0).all()
        assert least - 1e-12 <= risk.value.item() <= mean + 1e-12


@pytest.mark.parametrize("tau", [1e-12, 1e-6, 1e-3])
def test_a_small_tau_is_the_mean_less_half_the_variance(tau):
    # Mean 0.5, variance 0.25: 0.5 - τ / 8, and the next term is of third order in τ, as the skewness is 0.
    value = entropic(doubles(1.0, 0.0), tau).value.item()
    assert value == pytest.approx(0.5 - tau / 8, abs=1e-11)


@pytest.mark.parametrize("tau", [1e2, 1e4])
def test_a_large_tau_stays_finite_in_float32(tau):
    risk = entropic(torch.tensor([1000.0, -1000.0, 0.0]), tau)
    assert risk.weights.tolist() == [0.0, 1.0, 0.0]
    # -1000 + (log 3) / τ: the worst partner has a third of the prior.
    assert risk.value.item() == pytest.approx(-1000 + math.log(3) / tau, rel=1e-6)
    assert risk.value.dtype == risk.weights.dtype == torch.float32


def test_no_gradient_flows_into_weights_or_value():
    returns = doubles(1.0, 0.0).requires_grad_()
    for risk in (expectation(returns), entropic(returns, 1.0), cvar(returns, 0.5), worst_case(returns)):
        assert not risk.weights.requires_grad and not risk.value.requires_grad


@pytest.mark.parametrize("tau", [-1.0, math.inf, math.nan])
def test_a_tau_out_of_range_is_refused(tau):
    with pytest.raises(ValueError, match="tau"):
        entropic(doubles(0.0), tau)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, math.nan])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        cvar(doubles(0.0), alpha)


@pytest.mark.parametrize(
    ("returns", "prior", "match"),
    [
        (torch.zeros(2, 2), None, "shape"),
        (torch.zeros(0), None, "shape"),
        (torch.tensor([1, 2]), None, "floats"),
        (doubles(math.nan, 0.0), None, "finite"),
        (doubles(0.0, 1.0), doubles(1.0), "each of 2 partners"),
        (doubles(0.0, 1.0), doubles(0.5, 0.6), "sums to 1.1"),
        (doubles(0.0, 1.0), doubles(1.5, -0.5), "0 or more"),
        (doubles(0.0, 1.0), doubles(math.nan, 1.0), "0 or more"),
    ],
)
def test_returns_and_priors_that_are_none_are_refused(returns, prior, match):
    for measure in (expectation, worst_case, lambda r, p: entropic(r, 1.0, p), lambda r, p: cvar(r, 0.5, p)):
        with pytest.raises(ValueError, match=match):
            measure(returns, prior)
