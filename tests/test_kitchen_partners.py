"""How the kitchen's scripted partners play."""

import random

import pytest
from kitchen_support import LEFT_ONION, RIGHT_ONION, delivered_at, episode, floor, say

from tasks.kitchen.grid import MOVES, PLACES, POT, act
from tasks.kitchen.partners import RING
from tasks.moves import named_move


@pytest.mark.parametrize("seed", range(6))
def test_a_courier_beside_a_waiter_delivers_nine_times_if_onions_are_always_there(seed: int) -> None:
    # 6 moves to an onion and 3 into the pot; then 2 and 3, from either side that looks on the onions: 9, 14, ..., 49
    played = episode("courier", "waiter", seed, onion_returns=1.0)
    assert delivered_at(played) == list(range(9, 50, 5))
    assert played.outcome.effort == {"first": 50, "second": 0}
    assert played.team_reward("second") == 9 * 11 and played.cost("second") == 0
    assert played.cost("first") == pytest.approx(50 * 0.2)


@pytest.mark.parametrize("seed", range(6))
def test_a_courier_delivers_the_two_first_onions_whatever_comes_back(seed: int) -> None:
    played = episode("waiter", "courier", seed, onion_returns=0.0)
    assert delivered_at(played) == [9, 14]
    assert played.outcome.effort["second"] == 16  # and two more to a place, on which it waits


def test_a_courier_beside_a_waiter_delivers_between_two_and_nine_times_in_the_paper_s_kitchen() -> None:
    counts = [len(delivered_at(episode("courier", "waiter", seed))) for seed in range(60)]
    assert min(counts) >= 2 and max(counts) <= 9
    assert sum(counts) / 60 == pytest.approx(8.7, abs=0.3)  # over 200 seeds 8.71, standard error 0.04


def test_a_courier_goes_around_the_other_and_the_pot() -> None:
    assert say("courier", floor((3, 2), (2, 3), holding="first")) == "left"  # into the pot
    # past the other, who stands on the short way to (4,3)
    assert say("courier", floor((2, 3), (3, 3), onions=(RIGHT_ONION,))) == "down"
    assert say("courier", floor((2, 1), (3, 1), onions=(RIGHT_ONION,))) in {"up", "left"}


def test_a_courier_fetches_the_nearest_onion_that_is_there() -> None:
    assert say("courier", floor((2, 4), (0, 0))) == "right"
    assert say("courier", floor((2, 4), (0, 0), onions=(RIGHT_ONION,))) in {"up", "right"}
    assert say("courier", floor((3, 4), (0, 0), onions=(RIGHT_ONION,))) in {"up", "right"}
    assert say("courier", floor((2, 4), (3, 4), holding="second", onions=(LEFT_ONION,))) == "up"  # the other is on it


def test_a_courier_waits_on_the_nearest_free_place_while_no_onion_is_there() -> None:
    assert say("courier", floor((2, 4), (0, 0), onions=())) == "right"
    assert say("courier", floor((3, 4), (0, 0), onions=())) == "stay"
    assert say("courier", floor((4, 4), (3, 4), onions=())) == "up"


def test_two_couriers_deliver_more_than_one_and_do_not_lock_each_other() -> None:
    counts = [len(delivered_at(episode("courier", "courier", seed))) for seed in range(20)]
    assert min(counts) >= 6
    assert sum(episode("courier", "courier", seed).outcome.metrics["deliveries"] for seed in range(20)) / 20 > 11


def test_equally_good_moves_are_drawn() -> None:
    rng = random.Random(0)
    said = [say("courier", floor((1, 0), (0, 1)), rng=rng) for _ in range(200)]
    assert set(said) == {"right", "down"} and 70 <= said.count("down") <= 130


@pytest.mark.parametrize("seat", ["first", "second"])
def test_a_waiter_stays(seat: str) -> None:
    assert say("waiter", floor((1, 0), (0, 1)), seat) == "stay"


def test_a_blocker_paces_clockwise_round_the_pot_and_never_carries() -> None:
    here, seen = floor((1, 0), (0, 1)), []
    for _ in range(9):
        here, _ = act(here, "first", named_move(say("blocker", here), MOVES) or "stay")
        seen.append(here.cooks["first"].cell)
    assert seen == [*RING, RING[0]]
    assert {abs(x - 2) + abs(y - 2) for x, y in RING} == {1, 2} and POT not in RING and not set(RING) & set(PLACES)


def test_a_blocker_stops_for_the_other_and_costs_a_courier_deliveries() -> None:
    assert say("blocker", floor((1, 1), (2, 1))) == "stay"
    beside = [episode("courier", "blocker", seed).outcome.metrics for seed in range(20)]
    assert all(metrics["pickups/second"] == 0 for metrics in beside)
    assert 6.5 < sum(metrics["deliveries"] for metrics in beside) / 20 < 8.3  # of 200 seeds 7.72; with a waiter 8.71


def test_a_half_timer_works_at_half_of_the_steps() -> None:
    rng = random.Random(0)
    said = [say("half_timer", floor((2, 4), (0, 0)), rng=rng) for _ in range(400)]
    assert set(said) == {"right", "stay"} and 160 <= said.count("stay") <= 240  # 200, standard deviation 10


def test_one_onion_fetches_its_own_only_and_walks_around_the_other_place() -> None:
    rng = random.Random(0)  # from (4,2) it is 3 moves by the foreign place, too
    assert {say("one_onion", floor((4, 2), (0, 0)), rng=rng) for _ in range(50)} == {"left"}
    assert say("one_onion", floor((4, 3), (0, 0), onions=())) in {"left", "down"}  # put there, it leaves
    assert say("one_onion", floor((3, 3), (0, 0), onions=(RIGHT_ONION,))) == "down"
    assert say("one_onion", floor((3, 4), (0, 0), onions=(RIGHT_ONION,))) == "stay"
    assert say("one_onion", floor((0, 0), (3, 4), onions=(RIGHT_ONION,))) == "stay"
    assert say("one_onion", floor((3, 2), (0, 0), holding="first")) == "left"
    assert delivered_at(episode("one_onion", "waiter", onion_returns=0.0)) == [9]
    assert delivered_at(episode("one_onion", "waiter", onion_returns=1.0)) == list(range(9, 50, 5))


def test_a_random_walker_says_each_word_alike() -> None:
    rng = random.Random(0)
    said = [say("random_walker", floor((2, 4), (0, 0)), rng=rng) for _ in range(1000)]
    assert all(150 <= said.count(move) <= 250 for move in MOVES) and set(said) == set(MOVES)
