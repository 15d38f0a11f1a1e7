"""How tag's scripted chasers and its runners play."""

import json
import math
import random

import numpy as np
import pytest
from tag_support import episodes, field, mean, say, sight

from tasks.tag import Tag
from tasks.tag.fit_runner import fine, fit, main, score
from tasks.tag.runners import RUNNERS, STORED, WEIGHTS, Steered, flee, pulls
from tasks.tag.world import MOVES, Body, Field

# -- chasers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runner", "move"), [((5, 1), "right"), ((-5, 4), "left"), ((0, 1), "up"), ((2, -3), "down"), ((0, 0), "stay")]
)
def test_a_hunter_goes_along_the_axis_on_which_the_runner_is_farther(runner: tuple[int, int], move: str) -> None:
    assert say("hunter", sight(runner, runner_speed=(-13, 9), own_speed=(7, 7))) == move


def test_of_two_axes_that_are_alike_one_is_drawn() -> None:
    rng = random.Random(0)
    said = [say("hunter", sight((-4, 4)), rng) for _ in range(200)]
    assert set(said) == {"left", "up"} and 70 <= said.count("up") <= 130  # 100, standard deviation 7


def test_an_interceptor_leads_the_runner_and_brakes_for_itself() -> None:
    assert say("interceptor", sight((3, 2), runner_speed=(0, 10))) == "up"  # 2 + 0.3 x 10 = 5 beside 3
    assert say("interceptor", sight((3, 2), own_speed=(10, 0))) == "up"  # 3 - 0.3 x 10 = 0 beside 2
    assert say("interceptor", sight((1, 0), own_speed=(10, 0))) == "left"  # 1 - 3: it would go past
    assert say("interceptor", sight((3, 2))) == "right"


def test_a_shadow_follows_the_other_chaser() -> None:
    assert say("shadow", sight((9, 0), other=(1, -2))) == "down"
    assert say("shadow", sight((9, 0), other=(0, 0))) == "stay"


def test_a_waiter_stays() -> None:
    assert say("waiter", sight((1, 0))) == "stay"
    [played] = episodes("waiter", "hunter", move_cost=0.1)
    assert played.outcome.effort["first"] == 0 and played.cost("first") == 0


def test_a_half_timer_hunts_at_half_of_the_steps() -> None:
    rng = random.Random(0)
    said = [say("half_timer", sight((3, 0)), rng) for _ in range(400)]
    assert set(said) == {"right", "stay"} and 160 <= said.count("stay") <= 240  # 200, standard deviation 10


def test_a_random_walker_says_each_word_alike() -> None:
    rng = random.Random(0)
    said = [say("random_walker", sight((3, 0)), rng) for _ in range(1000)]
    assert set(said) == set(MOVES) and all(150 <= said.count(move) <= 250 for move in MOVES)


# -- runners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "runner", "move"),
    [
        ((-0.5, 0.0), (3.0, 0.0), (0.0, 0.0), "right"),
        ((3.0, 0.0), (0.0, 0.5), (0.0, 0.0), "down"),
        # right would be (1.25, 0): 0.75 away, less 2 x 0.35 for the edge; down (0.95, -0.3): 0.54 less 2 x 0.05
        ((0.5, 0.0), (-3.0, 0.0), (0.95, 0.0), "down"),
    ],
)
def test_a_runner_flees_the_nearer_chaser_but_not_over_the_edge(first, second, runner, move) -> None:
    assert flee(field(first, second, runner), random.Random(0)) == move


def test_what_moves_is_turned_by_a_fleeing_runner() -> None:
    # it drifts from (0.7, 0) to 0.7 + 0.3 x 1.3 = 1.09; right is 1.39, left 0.79 and behind the chaser at (0.8, 0.4)
    fast = Field((Body((0.8, 0.4)), Body((-3.0, 0.0))), Body((0.7, 0.0), (1.3, 0.0)), ())
    # stay (1.09, 0): 0.494 - 0.38 = 0.114; left (0.79, 0): 0.400; down (1.09, -0.3): 0.758 - 0.38 = 0.378
    assert flee(fast, random.Random(0)) == "left"


def test_the_order_of_the_chasers_makes_no_difference_to_a_runner() -> None:
    a, b, runner = Body((0.3, 0.1), (0.5, 0.0)), Body((-0.2, 0.6)), Body((0.0, 0.0), (0.1, 0.2))
    fields = Field((a, b), runner, ((0.4, 0.4),)), Field((b, a), runner, ((0.4, 0.4),))
    for name, run in RUNNERS.items():
        assert run(fields[0], random.Random(1)) == run(fields[1], random.Random(1)), name


def test_a_trained_runner_is_pulled_by_itself_both_chasers_by_distance_and_the_nearest_rock() -> None:
    runner = Body((0.5, 0.0), (0.1, 0.2))
    here = Field((Body((-0.5, 0.0), (0.3, 0.0)), Body((0.5, 0.4), (0.0, -0.6))), runner, ((0.0, 1.0), (0.7, 0.0)))
    nearer, farther = [(0, 1), (0, 2.5), (0, -0.6)], [(-1, 0), (-1, 0), (0.3, 0)]  # 0.4 and 1.0 away
    rows = [(0.5, 0), (0.125, 0), (0.1, 0.2), *nearer, *farther, (5, 0)]  # the rock is 0.2 away
    assert pulls(here) == pytest.approx(np.array(rows))
    assert list(pulls(Field(here.chasers, runner, ()))[-1]) == [0, 0]


def test_a_trained_runner_goes_along_the_sum_of_its_pulls_if_that_is_worth_a_move() -> None:
    here = field((1.0, 0.0), (0.0, 2.0), (0.0, 0.0))
    weights = [0.0] * WEIGHTS
    weights[3], weights[-1] = -1.0, 0.9  # 1 away from the nearer chaser
    assert Steered(tuple(weights))(here, random.Random(0)) == "left"
    weights[6] = -1.5  # 1.5 away from the farther one
    assert Steered(tuple(weights))(here, random.Random(0)) == "down"
    weights[-1] = 1.6
    assert Steered(tuple(weights))(here, random.Random(0)) == "stay"
    with pytest.raises(ValueError, match="has 11 weights, got 1"):
        Steered((0.0,))


def test_the_shipped_weights_are_small_and_say_how_they_were_made() -> None:
    stored = json.loads(STORED.read_text())
    assert len(stored["weights"]) == WEIGHTS and STORED.stat().st_size < 50_000
    assert stored["made_by"] == "tasks.tag.fit_runner"


def test_leaving_the_field_is_fined_as_in_mpe2() -> None:
    assert fine((0.5, -0.9)) == 0
    assert fine((0.95, -1.5)) == pytest.approx(0.5 + math.e)  # 0.05 x 10, and exp(2 x 1.5 - 2)
    assert fine((9.0, 9.0)) == 20


def test_the_search_moves_towards_better_runners_and_repeats_itself(tmp_path, capsys) -> None:
    made = fit(generations=3, candidates=12, episodes=5, seed=0)
    seeds = range(30)
    assert score(made, seeds) > score(np.zeros(WEIGHTS), seeds)
    for name in ("a", "b"):
        main(["--out", str(tmp_path / name), "--generations", "1", "--candidates", "4", "--episodes", "1"])
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    assert len(json.loads((tmp_path / "a").read_text())["weights"]) == WEIGHTS


# -- both -------------------------------------------------------------------------------------------------------------


def test_a_fleeing_or_trained_runner_is_caught_less_than_a_random_one() -> None:
    tags = {runner: mean(episodes("interceptor", "hunter", 60, runner=runner), "tags") for runner in RUNNERS}
    assert 0 < tags["flee"] < tags["random"] / 2 and tags["trained"] < tags["random"] / 2


def test_hunting_pays_and_waiting_does_not() -> None:
    tags = {
        pair: mean(episodes(*pair, 60), "tags")
        for pair in (("interceptor", "interceptor"), ("interceptor", "waiter"), ("waiter", "waiter"))
    }
    assert tags["waiter", "waiter"] < 0.2 < tags["interceptor", "waiter"] < tags["interceptor", "interceptor"]


def test_every_partner_plays_in_either_seat_with_every_runner() -> None:
    for name in Tag.partners:
        for runner in RUNNERS:
            for pair in ((name, "hunter"), ("hunter", name)):
                [played] = episodes(*pair, runner=runner)
                assert played.outcome.metrics["illegal/first"] == played.outcome.metrics["illegal/second"] == 0
