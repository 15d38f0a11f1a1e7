"""The oracle of matrix games against values that are worked out by hand."""

import math

import numpy as np
import pytest
import torch
from games_support import NASH, second_actions

from eval import games_plot
from llm_sra.games import (
    MatrixGame,
    RiskProfile,
    equilibria,
    exploitability,
    symmetric,
    two_player,
)
from llm_sra.games.game import DIRECTIONS
from llm_sra.games.known import (
    KNOWN,
    WORK,
    effort,
    matching_pennies,
    prisoners_dilemma,
    pure_coordination,
    rock_paper_scissors,
)
from llm_sra.games.nash import extreme_nash
from llm_sra.games.objective import adversary, value
from llm_sra.objectives.risk.entropic import entropic


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The others' mixed probability makes a player indifferent:
        ("effort", [(0, 1), (0.7, 0.7), (1, 0)]),  # y = 1 - 0.3
        ("stag hunt", [(0, 0), (0.75, 0.75), (1, 1)]),  # 4 y = 3
        ("matching pennies", [(0.5, 0.5)]),
        ("inspection", [(5 / 6, 1 / 3)]),  # shirking s: 1 - 4 s = 0.5 - s; trust t: 3 t = 2
        ("pure coordination", [(0, 0), (0.5, 0.5), (1, 1)]),
        ("chicken", [(0, 1), (0.9, 0.9), (1, 0)]),  # -10 (1 - y) + y = -(1 - y)
        ("battle of the sexes", [(0, 0), (1 / 3, 2 / 3), (1, 1)]),  # 2 (1 - y) = y; 1 - x = 2 x
        ("prisoner's dilemma", [(0, 0)]),
    ],
)
def test_nash_equilibria_of_text_book_games(name, expected):
    found = equilibria(KNOWN[name], NASH)
    assert np.allclose(second_actions(found), expected, atol=1e-9)
    enumerated = sorted((x[1], y[1]) for x, y in extreme_nash(KNOWN[name]))
    assert np.allclose(enumerated, expected, atol=1e-9)
    # Pure strict ones are stable, mixed ones between two of them are not; circling play in the others dies out.
    assert [each.stable for each in found] == ([True, False, True] if len(expected) == 3 else [True])


@pytest.mark.parametrize(
    ("tau", "eps", "expected"),
    [(10, 0.1, [(0.844, 0.844)]), (1, 0.2, [(0.654, 0.654)])],
)
def test_effort_game_without_free_riding(tau, eps, expected):
    found = equilibria(effort(), RiskProfile.same(tau, eps))
    assert np.allclose(second_actions(found), expected, atol=5e-4)
    assert found[0].stable


def test_effort_game_in_which_free_riding_is_left():
    found = equilibria(effort(), RiskProfile.same(10, 0.03))
    works = second_actions(found)
    # Resting earns 0.3 more than working where the partner works: log-odds -0.3 / 0.03 = -10.
    assert works[0] == pytest.approx((1 / (1 + math.exp(10)), 1.0), abs=1e-6)
    assert works[2][0] == pytest.approx(works[2][1], abs=1e-12)
    assert works[3:] == [pytest.approx(pair[::-1], abs=1e-9) for pair in (works[1], works[0])]
    assert [each.stable for each in found] == [True, False, True, False, True]
    assert len(symmetric(found)) == 1


def test_quantal_response_in_a_game_of_dominance():
    # Defection earns 1 more whatever the other does: log-odds of cooperation -1 / ε, for every τ and direction.
    for tau, direction in [(0, "adversary_partner"), (7, "adversary_partner"), (7, "partner_adversary")]:
        found = equilibria(prisoners_dilemma(), RiskProfile.same(tau, 0.5, direction))
        assert np.allclose(second_actions(found), 1 / (1 + math.exp(2)), atol=1e-12)


def test_quantal_response_splits_where_the_slope_is_one():
    # Pure coordination at even odds: x' = 2 x (1 - x) / ε = 1 / (2 ε), so the growth is 1 / (2 ε) - 1, 0 at ε = 1/2.
    for eps, count in ((0.4, 3), (0.5, 1), (0.6, 1)):
        found = equilibria(pure_coordination(), RiskProfile.same(0, eps))
        assert len(found) == count
        assert found[count // 2].growth == pytest.approx(0.5 / eps - 1, abs=1e-9)
    assert equilibria(pure_coordination(), RiskProfile.same(0, 0.5))[0].stable is None


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_matching_pennies_are_even_for_all(direction):
    for tau, eps in [(0, 0), (0, 0.1), (5, 0), (5, 0.1), (1e4, 0.01)]:
        (found,) = equilibria(matching_pennies(), RiskProfile.same(tau, eps, direction))
        assert np.allclose(np.concatenate(found.policies), 0.5, atol=1e-9)
        # Every partner earns the even player 0, so risk costs nothing: the value is ε log 2.
        assert found.values == pytest.approx((eps * math.log(2),) * 2, abs=1e-12)
        assert found.stable


@pytest.mark.parametrize("tau", [0.1, 10, 1000])
def test_no_tau_removes_strict_pure_equilibria_without_entropy(tau):
    # KL(p ‖ y) binds p to the support of a pure y.
    pure = {(round(x), round(y)) for x, y in second_actions(equilibria(effort(), RiskProfile.same(tau, 0)))
            if min(x, 1 - x) < 1e-12 and min(y, 1 - y) < 1e-12}  # fmt: skip
    assert {(0, 1), (1, 0)} <= pure


@pytest.mark.parametrize(("tau", "free_riding"), [(1.42, True), (1.44, False)])
def test_the_other_divergence_removes_free_riding_without_entropy(tau, free_riding):
    # The rester imagines that the worker works with p = 1 / τ only; working instead gains 0.7 - p, so it rests as
    # long as p >= 0.7, that is τ <= 10 / 7 = 1.4286.
    found = second_actions(equilibria(effort(), RiskProfile.same(tau, 0, "partner_adversary")))
    assert ((0.0, 1.0) in [(round(x, 9), round(y, 9)) for x, y in found]) is free_riding


def test_an_adversary_by_hand():
    # Playing the first action, u = (0, 1); y even, τ = log 3.
    payoffs, log_x, log_y = np.array([[0.0, 1.0], [5.0, 5.0]]), np.array([0.0, -np.inf]), np.log([0.5, 0.5])
    # KL(p ‖ y): odds 1 : 1/3.
    assert adversary(payoffs, log_x, log_y, math.log(3), "adversary_partner") == pytest.approx([0.75, 0.25])
    # KL(y ‖ p) at τ = 1.5: p_0 = 1 / (3 λ), p_1 = 1 / (3 (λ + 1)), which sum to 1 if 3 λ² + λ - 1 = 0.
    root = (math.sqrt(13) - 1) / 6
    expected = [1 / (3 * root), 1 / (3 * (root + 1))]
    assert adversary(payoffs, log_x, log_y, 1.5, "partner_adversary") == pytest.approx(expected)
    # A partner that never plays the bad action: p leaves its support, p_1 = 1 / τ, the rest on the worst.
    assert adversary(payoffs, log_x, np.array([-np.inf, 0.0]), 4.0, "partner_adversary") == pytest.approx([0.75, 0.25])


def test_the_entropic_value_is_that_of_the_risk_measure():
    payoffs, x, y = np.array([[0.0, 1.0, 0.2], [0.7, 0.3, 0.9]]), np.array([0.4, 0.6]), np.array([0.2, 0.5, 0.3])
    risk = entropic(torch.tensor(x @ payoffs), 4.0, torch.tensor(y))
    assert value(payoffs, np.log(x), np.log(y), 4.0, 0, "adversary_partner") == pytest.approx(risk.value.item())
    assert adversary(payoffs, np.log(x), np.log(y), 4.0, "adversary_partner") == pytest.approx(risk.weights.numpy())


@pytest.mark.parametrize("eps", [0, 0.1, 0.2])
def test_without_a_tether_a_player_prepares_for_the_worst(eps):
    # Battle of the sexes: at 1/3 and 2/3 both places of the other pay 2/3. An adversary makes that a best response if
    # ballet earns ε log 2 less than boxing: 2 p - (1 - p) = -ε log 2.
    (found,) = equilibria(KNOWN["battle of the sexes"], RiskProfile.same(math.inf, eps))
    assert np.allclose(found.policies, [[1 / 3, 2 / 3], [2 / 3, 1 / 3]], atol=1e-3)
    assert found.adversaries[0][0] == pytest.approx((1 - eps * math.log(2)) / 3, abs=1e-3)
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert found.values == pytest.approx((2 / 3 + eps * entropy,) * 2, abs=1e-6)
    assert found.stable and found.certificate < 1e-6
    # Beside a partner who always rests, work earns 0.7.
    (found,) = equilibria(effort(), RiskProfile.same(math.inf, eps))
    assert found.policies[0][WORK] == pytest.approx(1 / (1 + math.exp(-0.7 / eps)) if eps else 1)
    gains = exploitability(effort(), RiskProfile.same(math.inf, eps), (np.array([0.5, 0.5]), found.policies[1]))
    assert gains == pytest.approx(found.values[0] - 0.35 - eps * math.log(2))


def test_without_a_tether_the_live_partner_does_not_matter():
    game = two_player("any", np.random.default_rng(1).normal(size=(3, 4)), np.zeros((3, 4)))
    (alone,) = equilibria(game, RiskProfile.same(math.inf, 0.3))
    (close,) = equilibria(game, RiskProfile.same(3000, 0.3), starts=4)
    assert np.allclose(alone.policies[0], close.policies[0], atol=2e-3)
    assert np.allclose(alone.policies[1], 0.25)


def effort_gap(tau, eps, direction="adversary_partner", cost=0.3, stable_only=False):
    """The largest difference between the seats' probabilities of working, over all equilibria of the effort game."""
    found = equilibria(effort(cost=cost), RiskProfile.same(tau, eps, direction))
    works = [
        [policy[WORK] for policy in each.policies] for each in found if each.stable is not False or not stable_only
    ]
    return max(abs(first - second) for first, second in works)


def test_free_riding_goes_with_risk_aversion_and_entropy():
    rides = [[effort_gap(tau, eps, stable_only=True) >= 0.5 for eps in (0.03, 0.1, 0.2)] for tau in (0, 1, 10, 30)]
    assert rides == [[True, True, True], [True, True, False], [True, False, False], [False, False, False]]
    assert max(effort_gap(tau, 0.2) for tau in (1, 30)) < 1e-9
    assert effort_gap(10, 0.03, "partner_adversary", stable_only=True) < 0.5


def test_equilibria_that_merge_are_still_told_from_none():
    # The fold at ε = 0.1, bisected: there a stable and an unstable equilibrium merge, in either seat's favour.
    fold = 4.2507919481
    counts = [len(equilibria(effort(), RiskProfile.same(fold + away, 0.1))) for away in (-1e-4, 1e-4)]
    assert counts == [5, 1]


@pytest.mark.parametrize(("cost", "threshold"), [(0.3, 35.0), (0.6, 20.0)])
def test_where_free_riding_ends_with_little_entropy(cost, threshold):
    # The worker's odds of resting are exp(-(1 - cost) / ε), and the rester's adversary makes them exp(τ) times as
    # large: it expects work no more from about τ = (1 - cost) / ε on. At ε = 0.02 that is 35 and 20.
    assert effort_gap(0.8 * threshold, 0.02, cost=cost) > 0.9
    assert effort_gap(1.1 * threshold, 0.02, cost=cost) < 1e-9


def test_the_picture_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(games_plot, "STEPS", 8)
    path = games_plot.effort_figure(tmp_path / "new" / "effort.png", [(10, 0.1, 0.84, 0.85)], epsilons=(0.1,))
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"points at \[0.3\]"):
        games_plot.effort_figure(path, [(10, 0.3, 0.5, 0.5)])


def test_curves_join_what_is_near_and_end_where_equilibria_do():
    joined = games_plot.curves(0.1, [1.0, 1.3, 20.0, 25.0])
    # At 1 and 1.3 one works, the other rests, or both mix, unstably; at 20 and 25 both work, stably.
    assert sorted((len(curve), curve[0].equal, curve[0].stable) for curve in joined) == [
        (2, False, True), (2, False, True), (2, True, False), (2, True, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        ([[1, 2]], [[1, 2]], "shape"),
        ([[1, 2], [3, math.nan]], [[1, 2], [3, 4]], "finite"),
        ([[1, 2], [3, 4]], [[1, 2, 3], [3, 4, 5]], "differ"),
    ],
)
def test_payoffs_that_are_no_game_are_refused(first, second, match):
    with pytest.raises(ValueError, match=match):
        two_player("broken", first, second)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (((-1, 0), (0, 0)), "tau"),
        (((math.inf, 1), (0, 0)), "tau is inf for both"),
        (((0, 0), (0, math.inf)), "eps"),
        (((0, 0), (0, 0), "both"), "direction"),
    ],
)
def test_profiles_out_of_range_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        RiskProfile(*arguments)


def test_what_has_no_answer_says_so():
    with pytest.raises(ValueError, match="continuum"):
        equilibria(two_player("indifferent", np.ones((2, 2)), np.ones((2, 2))), NASH)
    with pytest.raises(ValueError, match="at least"):
        equilibria(effort(), RiskProfile.same(1, 1e-9))
    with pytest.raises(ValueError, match="several policies do best beside an adversary without a tether"):
        equilibria(two_player("indifferent", np.ones((2, 2)), np.ones((2, 2))), RiskProfile.same(math.inf, 0))
    with pytest.raises(ValueError, match="beyond 2 x 2"):
        equilibria(rock_paper_scissors(), RiskProfile.same(1, 0))
    with pytest.raises(ValueError, match="sums to 1"):
        exploitability(effort(), NASH, (np.array([0.5, 0.6]), np.array([0.5, 0.5])))
    with pytest.raises(ValueError, match="do not name"):
        MatrixGame("unnamed", np.eye(2), np.eye(2), (("a",), ("b", "c")))
    with pytest.raises(ValueError, match="too large"):
        extreme_nash(pure_coordination(11))
