"""Best-response diversity: similarities and determinants by hand, ties, seeds, and the greedy choice."""

import math

import numpy as np
import pytest

from eval.stats import StatsError, diversity, effective_number, most_diverse, similarity

# Two that are alike (0 and 1), and one that has nothing in common with them.
PAIR = [[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]
# det of {0, 1}: 1 - 0.25; {0, 2}: 1 - 0.64; {1, 2}: 1 - 0.04 = 0.96
CHAIN = [[1.0, 0.5, 0.8], [0.5, 1.0, 0.2], [0.8, 0.2, 1.0]]


def test_similarity_by_hand() -> None:
    # Lines written are at most 4, so they are quarters: 0, 0.5, 1. Shares stay as they are.
    # Squared distances: 0.25 + 0.04 = 0.29 and 0.25 from one to the next, 1 + 0.04 from the first to the last.
    alike = similarity([[0.0, 0.1], [2.0, 0.3], [4.0, 0.3]])
    assert alike[0, 1] == pytest.approx(math.exp(-0.29)) and alike[1, 2] == pytest.approx(math.exp(-0.25))
    assert alike[0, 2] == pytest.approx(math.exp(-1.04)) and np.diag(alike).tolist() == [1.0, 1.0, 1.0]
    assert np.array_equal(alike, alike.T)


def test_small_numbers_are_not_blown_up_and_the_sign_counts() -> None:
    assert similarity([[0.001], [0.003]])[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert similarity([[-5.0], [5.0]])[0, 1] == pytest.approx(math.exp(-4))  # from -1 to 1


def test_the_largest_determinant_wins_by_hand() -> None:
    assert most_diverse(CHAIN, 2) == (1, 2)
    assert most_diverse(CHAIN, 3) == (0, 1, 2)
    assert most_diverse(PAIR, 2, seed=1) in ((0, 2), (1, 2))  # 1 each, and 1 - 0.81 for the two that are alike


def test_equals_are_decided_by_the_seed_and_the_seed_alone() -> None:
    by_seed = [most_diverse(PAIR, 2, seed) for seed in range(20)]
    assert set(by_seed) == {(0, 2), (1, 2)}
    assert by_seed == [most_diverse(PAIR, 2, seed) for seed in range(20)]
    assert {most_diverse(CHAIN, 2, seed) for seed in range(20)} == {(1, 2)}


def test_those_that_differ_come_first_where_there_are_fewer_than_asked_for() -> None:
    # 0, 1 and 2 do the same: any three hold two of them, but 3 and 4 must be among those.
    alike = np.eye(5)
    alike[:3, :3] = 1.0
    for seed in range(5):
        chosen = most_diverse(alike, 3, seed)
        assert {3, 4} < set(chosen)


def test_one_by_one_finds_the_same_where_the_best_is_the_best_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "MOST", 0)
    # All are alike to themselves, so the seed says who is first; the second is the one most unlike it.
    assert {most_diverse(CHAIN, 2, seed) for seed in range(20)} == {(0, 1), (1, 2)}
    points = np.array([[0.0], [0.1], [4.0], [4.1], [9.0]])
    alike = np.exp(-((points - points.T) ** 2))
    found = {most_diverse(alike, 3, seed) for seed in range(10)}
    assert all(len({0, 1} & set(one)) == 1 and len({2, 3} & set(one)) == 1 and 4 in one for one in found)


def test_many_are_chosen_from_without_looking_at_all_subsets() -> None:
    points = np.repeat(np.arange(10.0), 4)[:, None]  # ten kinds, four of each: more subsets of ten than are looked at
    alike = np.exp(-((10 * (points - points.T)) ** 2))
    assert sorted(points[list(most_diverse(alike, 10)), 0]) == list(range(10))


def test_the_effective_number_by_hand() -> None:
    assert effective_number(np.ones((4, 4))) == pytest.approx(1.0)
    assert effective_number(np.eye(4)) == pytest.approx(4.0)
    # Eigenvalues 1.9, 0.1 and 1, shares of 3.
    shares = np.array([1.9, 0.1, 1.0]) / 3
    assert effective_number(PAIR) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("k", [0, 4, -1])
def test_there_must_be_as_many_as_are_asked_for(k: int) -> None:
    with pytest.raises(StatsError, match=f"expected to choose from 1 to 3 of 3, got {k}"):
        most_diverse(PAIR, k)


def test_what_is_no_matrix_of_numbers_is_an_error() -> None:
    with pytest.raises(StatsError, match="features of shape"):
        similarity([1.0, 2.0])
    with pytest.raises(StatsError, match="features of shape"):
        similarity([[float("nan")]])
    with pytest.raises(StatsError, match="similarities of shape"):
        most_diverse([[1.0, 0.0]], 1)
