"""Shapley values and shares of effort, against numbers computed by hand."""

from itertools import combinations

import pytest

from eval.stats import StatsError, contribution_shares, shapley


def coalitions(players: str) -> list[frozenset[str]]:
    return [frozenset(some) for size in range(len(players) + 1) for some in combinations(players, size)]


def test_two_players_share_what_they_bring_about():
    # x: (0.2 - 0) / 2 + (1 - 0.4) / 2 = 0.4. y: (0.4 - 0) / 2 + (1 - 0.2) / 2 = 0.6.
    value = dict(zip(coalitions("xy"), (0.0, 0.2, 0.4, 1.0), strict=True))
    assert shapley(value) == {"x": pytest.approx(0.4), "y": pytest.approx(0.6)}


def test_a_free_rider_gets_nothing_and_one_who_can_be_replaced_half():
    rides = dict(zip(coalitions("xy"), (0.1, 0.1, 0.9, 0.9), strict=True))
    assert shapley(rides) == {"x": 0.0, "y": pytest.approx(0.8)}
    either = dict(zip(coalitions("xy"), (0.0, 1.0, 1.0, 1.0), strict=True))
    assert shapley(either) == {"x": 0.5, "y": 0.5}


def test_the_glove_game():
    # A pair is worth 1; a and b hold a left glove, r the only right one. r completes a pair unless it comes first, in
    # 4 of 6 orders; a only if it is second and r was first, in 1 of 6.
    value = {s: float("r" in s and len(s) > 1) for s in coalitions("abr")}
    assert shapley(value) == {"a": pytest.approx(1 / 6), "b": pytest.approx(1 / 6), "r": pytest.approx(2 / 3)}


def test_shapley_values_are_efficient_and_the_same_for_equal_players_and_nothing_for_idle_ones():
    weights = {"a": 0.7, "b": 1.3, "c": 1.3, "idle": 0.0}
    players = ["a", "b", "c", "idle"]
    value = {
        frozenset(some): 2.0 + sum(weights[p] for p in some) ** 2 for n in range(5) for some in combinations(players, n)
    }
    got = shapley(value)
    assert list(got) == players
    assert sum(got.values()) == pytest.approx(3.3**2)  # less what nobody brings about
    assert got["b"] == pytest.approx(got["c"])
    assert got["idle"] == pytest.approx(0.0)
    # (Σ w)^2 shares every product w_i w_j evenly: φ_a = w_a Σ w.
    assert got["a"] == pytest.approx(0.7 * 3.3)


def test_shares_of_effort():
    assert contribution_shares({"first": 1.0, "second": 3.0}) == {"first": 0.25, "second": 0.75}
    assert contribution_shares({"first": 0.0, "second": 2.0}) == {"first": 0.0, "second": 1.0}
    assert contribution_shares({"first": 0.0, "second": 0.0}) is None


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda: shapley({}), "no player"),
        (lambda: shapley({frozenset("a"): 1.0}), r"2 coalitions, got 1: \{\} is missing"),
        (lambda: shapley({frozenset(): 0.0, frozenset("ab"): 1.0, frozenset("a"): 0.0}), r"\{'b'\} is missing"),
        (lambda: shapley({frozenset(): 0.0, frozenset("a"): float("inf")}), r"\{'a'\} is inf"),
        (lambda: contribution_shares({"first": -1.0, "second": 2.0}), "got -1.0 of 'first'"),
        (lambda: contribution_shares({"first": float("nan")}), "nan"),
    ],
)
def test_results_that_cannot_be_shared_out_are_refused(compute, says):
    with pytest.raises(StatsError, match=says):
        compute()
