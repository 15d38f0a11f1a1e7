"""The oracle of matrix games against brute force that shares no code with it, and what must hold in every game."""

import math

import numpy as np
import pytest
from games_support import NASH, PROFILES, second_actions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize_scalar

from llm_sra.games import (
    MatrixGame,
    RiskProfile,
    equilibria,
    exploitability,
    two_player,
)
from llm_sra.games.certificate import possible_gains
from llm_sra.games.equilibrium import _growth
from llm_sra.games.game import DIRECTIONS
from llm_sra.games.known import (
    KNOWN,
    battle_of_the_sexes,
    effort,
    pure_coordination,
    rock_paper_scissors,
    stag_hunt,
)
from llm_sra.games.larger import many_starts
from llm_sra.games.nash import extreme_nash
from llm_sra.games.objective import adversary, value


def brute_value(payoffs, x, y, tau, eps, direction):
    """f at P(second action) = x and y, by a search over adversaries."""
    own, u = np.array([1 - x, x]), np.array([1 - x, x]) @ payoffs
    partner = np.array([1 - y, y])

    def cost(p):
        imagined = np.array([1 - p, p])
        one, other = (imagined, partner) if direction == "adversary_partner" else (partner, imagined)
        return imagined @ u + sum(a * math.log(a / b) for a, b in zip(one, other, strict=True) if a > 0) / tau

    inner = minimize_scalar(cost, bounds=(1e-12, 1 - 1e-12), method="bounded", options={"xatol": 1e-12})
    return inner.fun - eps * sum(a * math.log(a) for a in own if a > 0), inner.x


cells = st.integers(-4, 4).map(lambda number: number / 4)
chances = st.floats(0.02, 0.98)


@st.composite
def games(draw: st.DrawFn) -> MatrixGame:
    first, second = (np.reshape(draw(st.lists(cells, min_size=4, max_size=4)), (2, 2)) for _ in range(2))
    return two_player("drawn", first, second)


@given(games(), chances, chances, st.sampled_from([0.01, 0.5, 3.0, 10.0]), st.sampled_from(DIRECTIONS))
@settings(max_examples=60, deadline=None)
def test_value_and_adversary_are_the_minimum_over_adversaries(game, x, y, tau, direction):
    logs = np.log([1 - x, x]), np.log([1 - y, y])
    expected, imagined = brute_value(game.first, x, y, tau, 0.1, direction)
    assert value(game.first, *logs, tau, 0.1, direction) == pytest.approx(expected, abs=1e-7)
    assert adversary(game.first, *logs, tau, direction)[1] == pytest.approx(imagined, abs=1e-3)


@given(games(), chances, chances, st.sampled_from([0.0, 0.05, 0.5]), st.sampled_from([0.0, 1.0, 10.0]),
       st.sampled_from(DIRECTIONS))  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_exploitability_is_what_a_grid_of_policies_gains(game, x, y, eps, tau, direction):
    gains = []
    for own, mine, other in ((game.first, x, y), (game.second.T, y, x)):
        partner = np.log([1 - other, other])
        values = [
            value(own, np.log([1 - a, a]), partner, tau, eps, direction) for a in np.linspace(1e-6, 1 - 1e-6, 301)
        ]
        gains.append(max(values) - value(own, np.log([1 - mine, mine]), partner, tau, eps, direction))
    policies = np.array([1 - x, x]), np.array([1 - y, y])
    found = exploitability(game, RiskProfile.same(tau, eps, direction), policies)
    assert found >= max(gains) - 1e-12
    assert found == pytest.approx(max(0, max(gains)), abs=1e-3)
    bounds = possible_gains(game, RiskProfile.same(tau, eps, direction), (np.log(policies[0]), np.log(policies[1])))
    assert max(bound.high - bound.low for bound in bounds) < 1e-7


def best_responses(payoffs, tau, eps, direction, grid):
    """For each partner's policy of a grid, the best own policy of a finer one: f over all pairs, its maximum."""
    own = np.linspace(1e-4, 1 - 1e-4, 4001)[:, None]
    u, y = (1 - own) * payoffs[0] + own * payoffs[1], np.stack([1 - grid, grid])
    if direction == "adversary_partner":
        inner = -np.log(y[0] * np.exp(-tau * u[:, :1]) + y[1] * np.exp(-tau * u[:, 1:])) / tau
    else:
        gap = u[:, 1:] - u[:, :1]  # least over p of p gap - (y_0 log(1 - p) + y_1 log p) / τ, a quadratic equation
        root = np.sqrt((tau * gap + 1) ** 2 - 4 * tau * gap * y[1])
        p = np.where(np.abs(gap) < 1e-9, y[1], 2 * y[1] / (1 + tau * gap + root))
        entropy = -y[0] * np.log(y[0]) - y[1] * np.log(y[1])
        inner = u[:, :1] + p * gap - (y[0] * np.log(1 - p) + y[1] * np.log(p) + entropy) / tau
    total = inner - eps * (own * np.log(own) + (1 - own) * np.log(1 - own))
    return own[total.argmax(axis=0), 0]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_no_equilibrium_is_missed(seed, direction):
    rng = np.random.default_rng(seed)
    shapes = [np.diag([1.0, 1.0]), np.diag([1.0, 0.6]), np.fliplr(np.diag([1.0, 0.8]))]
    base = shapes[seed % 3]
    game = two_player("drawn", base + 0.15 * rng.normal(size=(2, 2)), base + 0.15 * rng.normal(size=(2, 2)))
    tau, eps = float(rng.choice([0.5, 1.5, 3.0])), float(rng.choice([0.15, 0.2]))
    found = np.array(second_actions(equilibria(game, RiskProfile.same(tau, eps, direction))))
    grid = np.linspace(0.001, 0.999, 1500)
    second = best_responses(game.second.T, tau, eps, direction, grid)
    first = np.interp(second, grid, best_responses(game.first, tau, eps, direction, grid))
    signs = np.concatenate([[1], np.sign(first - grid), [-1]])  # at 0 and at 1, best responses lie inside
    places = np.concatenate([[0], grid])[np.diff(signs) != 0]
    merged = places[np.insert(np.diff(places) > 0.01, 0, True)]  # the grid's steps cross more than once
    assert len(merged) == len(found)
    assert np.allclose(merged, found[:, 0], atol=0.01)


def test_stable_equilibria_attract_and_unstable_ones_repel():
    tau, eps, own = 10, 0.03, effort().first
    gains = own[1] - own[0]

    def best(y):
        def miss(log_odds):
            u = own.T @ [1 / (1 + math.exp(log_odds)), 1 / (1 + math.exp(-log_odds))]
            weights = np.array([1 - y, y]) * np.exp(-tau * (u - u.min()))
            return weights @ gains / weights.sum() - eps * log_odds

        return 1 / (1 + math.exp(-brentq(miss, -50, 50)))

    for each in equilibria(effort(), RiskProfile.same(tau, eps)):
        start = np.clip(np.add(second_actions([each])[0], (1e-3, -1e-3)), 0, 1)
        path = solve_ivp(lambda _, z: [best(z[1]) - z[0], best(z[0]) - z[1]], (0, 30), start, rtol=1e-6)
        distance = np.abs(path.y[:, -1] - np.ravel(second_actions([each]))).max()
        assert bool(distance < 1e-3) is each.stable, each


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", [name for name, game in KNOWN.items() if game.shape == (2, 2)])
def test_every_equilibrium_is_certified(name, direction):
    for tau, eps in [*PROFILES, (0, 0), (10, 0), (1e4, 0.001)]:
        for each in (found := equilibria(KNOWN[name], RiskProfile.same(tau, eps, direction))):
            assert each.certificate < 1e-10 * KNOWN[name].scale
            assert [sum(p) for p in (*each.policies, *each.adversaries)] == pytest.approx([1] * 4, abs=1e-12)
        assert len(found) % 2 == 1  # but at bifurcations, as best responses slope one way (the index theorem)


def test_games_of_all_kinds_have_an_odd_number_of_equilibria():
    # But for degenerate games and bifurcations, which have no chance here (the index theorem).
    rng = np.random.default_rng(5)
    for _ in range(80):
        game = two_player("drawn", rng.normal(size=(2, 2)), rng.normal(size=(2, 2)))
        tau, eps = rng.choice([0, 0.01, 1, 10, 100, 1000], size=2), rng.choice([0, 0.001, 0.03, 0.2, 1], size=2)
        profile = RiskProfile((tau[0], tau[1]), (eps[0], eps[1]), DIRECTIONS[rng.integers(2)])
        found = equilibria(game, profile)
        assert len(found) % 2 == 1, (game, profile)
        assert max(each.certificate for each in found) < 1e-8, (game, profile)


@pytest.mark.parametrize(
    ("first", "second", "tau", "eps", "direction"),
    [
        # Gains of 0.6 and 0.6000000000000001 in the scaled game, from equal ones.
        ([[-3, -1], [0, 2]], [[2, 0], [-2, -3]], (0, 0.01), (0, 0.2), "adversary_partner"),
        # A pure pair, whose place is a sum that rounding moves.
        ([[-1.4264, 0.5919], [-0.036, -1.3633]], [[1.9184, 0.8139], [0.6912, -1.1061]], (1e4, 1), (0, 0),
         "adversary_partner"),
        # A partner's probability of exp(-706), beyond whose support the adversary goes.
        ([[-1.0219, 0.5811], [0.102, -0.3018]], [[-1.0219, 0.102], [0.5811, -0.3018]], (10, 0), (0.001, 0.001),
         "partner_adversary"),
    ],
)  # fmt: skip
def test_rounding_hides_no_equilibrium(first, second, tau, eps, direction):
    found = equilibria(two_player("hard", first, second), RiskProfile(tau, eps, direction))
    assert len(found) % 2 == 1
    assert max(each.certificate for each in found) < 1e-9


@given(games(), st.sampled_from([0.0, 1.0, 8.0]), st.sampled_from([0.07, 0.3]), st.sampled_from(DIRECTIONS))
@settings(max_examples=25, deadline=None)
def test_seats_units_and_constants_do_not_matter(game, tau, eps, direction):
    found = second_actions(equilibria(game, RiskProfile.same(tau, eps, direction)))
    turned = two_player("turned", game.second.T, game.first.T)
    mirrored = second_actions(equilibria(turned, RiskProfile.same(tau, eps, direction)))
    assert np.allclose(sorted((y, x) for x, y in mirrored), found, atol=1e-6)
    # In units of a third, τ is per unit; constants change no choice.
    scaled = two_player("scaled", 3 * game.first + 2, 3 * game.second - 1)
    assert np.allclose(
        second_actions(equilibria(scaled, RiskProfile.same(tau / 3, 3 * eps, direction))), found, atol=1e-6
    )


def test_players_of_different_kinds():
    # The first nearly exact and neutral, the second nearly blind: the first answers an even partner.
    (found,) = equilibria(effort(), RiskProfile((0, 0), (0, 100)))
    x, y = second_actions([found])[0]
    assert x == 1.0  # 0.7 - 0.5 > 0
    assert y == pytest.approx(1 / (1 + math.exp(0.3 / 100)), abs=1e-12)


def test_nash_equilibria_of_larger_games():
    assert np.allclose(extreme_nash(rock_paper_scissors()), 1 / 3)
    # Pure coordination on three: every set of actions that both mix evenly; 3 + 3 + 1.
    found = equilibria(pure_coordination(3), NASH)
    assert len(found) == 7
    assert sorted(str(each.stable) for each in found) == ["None"] * 4 + ["True"] * 3
    assert max(each.certificate for each in found) < 1e-12


@pytest.mark.parametrize(("eps", "count"), [(0.2, 7), (0.5, 1)])
def test_quantal_response_of_three_way_coordination(eps, count):
    # At even odds the slope is (1/3) / ε: growth 0.667 and -0.333.
    found = equilibria(pure_coordination(3), RiskProfile.same(0, eps), starts=8)
    (even,) = [each for each in found if np.allclose(each.policies[0], 1 / 3, atol=1e-6)]
    assert len(found) == count
    assert even.growth == pytest.approx(1 / (3 * eps) - 1, abs=1e-9)
    assert max(each.certificate for each in found) < 1e-9


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_rock_paper_scissors_stay_even_and_stable(direction):
    (found,) = equilibria(rock_paper_scissors(), RiskProfile.same(2, 0.2, direction), starts=2)
    assert np.allclose(np.concatenate(found.policies), 1 / 3, atol=1e-8)
    assert found.stable


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("game", [effort(), battle_of_the_sexes(), stag_hunt()], ids=lambda game: game.name)
def test_both_ways_of_solving_agree(game, direction):
    for tau, eps in [(1, 0.2), (10, 0.03)]:
        profile = RiskProfile.same(tau, eps, direction)
        exact = equilibria(game, profile)
        reached = many_starts(game, profile, starts=8, seed=0)
        assert np.allclose(sorted(np.exp(x[1]) for x, _ in reached), [x for x, _ in second_actions(exact)], atol=1e-7)
        for each in exact:
            assert _growth(game, profile, each.log_policies) == pytest.approx(each.growth, rel=1e-6, abs=1e-7)
