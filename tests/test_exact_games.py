"""Exact computations on matrix games that pages quote: equilibria over τ and ε, and learning without a model."""

import numpy as np
import pytest
from support import ROOT

from benchmarks.equilibria import EPSES, TAUS, scaled, table, team_payoff
from benchmarks.exact_learning import EPISODES, Setting, exact_gradients, learn, sampled_gradients
from llm_sra.games import RiskProfile, equilibria, two_player
from llm_sra.games.known import KNOWN
from llm_sra.games.objective import value

PAYOFFS = np.array([[0.0, 1.0], [0.7, 0.4]])


def test_the_page_has_the_tables_rows() -> None:
    page = (ROOT / "docs" / "equilibria.md").read_text()
    head, _, *rows = table(["inspection"], TAUS, EPSES[:1]).splitlines()
    assert head in page and rows[0] in page


def test_a_teams_payoff_is_the_expected_sum_and_every_equilibrium_counts() -> None:
    game = scaled(KNOWN["effort"])
    [found] = equilibria(game, RiskProfile.same(10, 0.1))
    work = found.policies[0][1]
    # 1.7 where one works, 1.4 where both do
    assert team_payoff(game, found) == pytest.approx(1.7 * 2 * work * (1 - work) + 1.4 * work**2)
    assert table(["effort"], [10], [0.1]).splitlines()[-1] == "| effort | 0.1 | 1.70 (3) | 1.68 (3) | 1.44 (1) |"


def test_exact_gradients_are_those_of_the_objectives() -> None:
    logits = np.array([0.3, -0.2]), np.array([-0.5, 0.4]), np.array([0.1, 0.7])
    tau, eps, step = 3.0, 0.2, 1e-6

    def policy(numbers: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(numbers) / np.exp(numbers).sum())

    def objectives(hero: np.ndarray, adversary: np.ndarray) -> tuple[float, float]:
        x, p, y = policy(hero), policy(adversary), policy(logits[2])
        paid = float(x @ PAYOFFS @ p)
        return paid - eps * float(x @ np.log(x)), -paid - float(p @ np.log(p / y)) / tau

    x, p, y = (policy(each)[None] for each in logits)
    mine, theirs = exact_gradients(PAYOFFS, x, p, y, tau, eps)
    for action in range(2):
        moved = np.eye(2)[action] * step
        hero = [objectives(logits[0] + sign * moved, logits[1])[0] for sign in (1, -1)]
        other = [objectives(logits[0], logits[1] + sign * moved)[1] for sign in (1, -1)]
        assert mine[0, action] == pytest.approx((hero[0] - hero[1]) / (2 * step), abs=1e-6)
        assert theirs[0, action] == pytest.approx((other[0] - other[1]) / (2 * step), abs=1e-6)


def test_sampled_gradients_are_exact_ones_on_average() -> None:
    x, p, y = (np.tile(each, (4000, 1)) for each in ([0.3, 0.7], [0.6, 0.4], [0.2, 0.8]))
    exact = exact_gradients(PAYOFFS, x[:1], p[:1], y[:1], 3.0, 0.2)
    sampled = sampled_gradients(PAYOFFS, x, p, y, 3.0, 0.2, np.random.default_rng(0))
    for one, many in zip(exact, sampled, strict=True):
        error = many.std(axis=0) / np.sqrt(len(many))
        assert (error < 0.1 / np.sqrt(EPISODES)).all()
        assert np.abs(many.mean(axis=0) - one[0]).max() < 4 * error.max()


def test_small_steps_reach_what_large_ones_overshoot() -> None:
    game = KNOWN["effort"]
    slow, fast = (learn(game, Setting(rate, 400))[-1].max() for rate in (0.02, 0.08))
    assert slow == pytest.approx(0.844, abs=0.01) and fast > 0.95
    annealed = learn(game, Setting(0.02, 150, 3.0))
    assert annealed[-1].max() == pytest.approx(0.844, abs=0.01) and annealed.max() < 0.88


def test_where_the_adversary_has_nothing_to_gain_learning_ends_at_the_softmax() -> None:
    game = two_player("own", [[0.0, 0.0], [0.6, 0.6]], [[0.0, 0.3], [0.0, 0.3]])
    ends = learn(game, Setting(0.05, 400), eps=0.3)[-1, 0]
    assert ends == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))], abs=2e-3)  # of 0.6 / 0.3, of 0.3 / 0.3
    logs = np.log([1 - ends[0], ends[0]]), np.log([1 - ends[1], ends[1]])
    best = equilibria(game, RiskProfile.same(10, 0.3))[0].values[0]
    assert value(game.first, logs[0], logs[1], 10, 0.3, "adversary_partner") == pytest.approx(best, abs=1e-5)
