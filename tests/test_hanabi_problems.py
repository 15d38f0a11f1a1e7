"""Hanabi's options and problems."""

import json
import random

import pytest
from hanabi_support import (
    RNG,
)
from support import SPLITS

from llm_sra.registry import load_task
from llm_sra.task import Problem
from tasks.hanabi import Hanabi
from tasks.hanabi.cards import full_deck


@pytest.mark.parametrize(
    ("options", "hand", "cards_left"),
    [
        ({}, 3, 6),  # 18 cards - 12; 6 + 4 >= 9. With 4 in hand: 2 + 4 < 9
        ({"players": 2}, 5, 8),
        ({"players": 3}, 4, 6),  # 6 + 3 >= 9. With 5 in hand: 3 + 3 < 9
        ({"players": 5}, 2, 8),  # with 3 in hand: 3 + 5 < 9
        ({"players": 2, "colours": 5, "ranks": 5}, 5, 40),
        ({"players": 3, "colours": 5, "ranks": 5}, 5, 35),
        ({"players": 4, "colours": 5, "ranks": 5}, 4, 34),
        ({"players": 5, "colours": 5, "ranks": 5}, 4, 30),
        ({"hand": 2}, 2, 10),
    ],
)
def test_hands_are_the_official_ones_or_as_large_as_the_deck_allows(
    options: dict[str, int], hand: int, cards_left: int
) -> None:
    task = Hanabi(**options)
    state = task.start(task.problems("dev", 1)[0], RNG)
    assert {len(held) for held in state.hands} == {hand}
    assert len(state.deck) == cards_left


def test_the_deck_has_three_ones_one_highest_card_and_two_of_each_between() -> None:
    assert [card.rank for card in full_deck(1, 5)] == [1, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert [card.rank for card in full_deck(1, 2)] == [1, 1, 1, 2]
    assert (len(full_deck(5, 5)), len(full_deck(3, 3))) == (50, 18)


@pytest.mark.parametrize("players", [2, 3, 4, 5])
def test_seats_are_as_many_as_players(players: int) -> None:
    task = load_task("hanabi", {"players": players})
    assert task.seats == ("first", "second", "third", "fourth", "fifth")[:players]
    assert Hanabi.seats == ("first", "second", "third", "fourth")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"players": 1}, "`players` must be from 2 to 5, got 1"),
        ({"players": 6}, "`players` must be from 2 to 5"),
        ({"colours": 0}, "`colours` must be from 1 to 5"),
        ({"ranks": 1}, "`ranks` must be from 2 to 5"),
        ({"hand": 0}, "`hand` must be 1 or more"),
        ({"hand": 4}, "4 hands of 4 are too many for a deck of 18 cards.* at least 9"),
        ({"hand": 5}, "4 hands of 5 are too many for a deck of 18"),
        ({"players": 5, "colours": 1, "ranks": 2}, "5 hands of 1 are too many for a deck of 4"),
        ({"information": 0}, "`information` must be 1 or more"),
        ({"lives": 0}, "`lives` must be 1 or more"),
        ({"hint_cost": -0.1}, "`hint_cost` must be finite and 0 or more"),
        ({"hint_cost": float("nan")}, "`hint_cost` must be finite"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Hanabi(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        *(
            {name: value}
            for name in ("players", "colours", "ranks", "information", "lives")
            for value in (3.0, "3", True)
        ),
        *({"hand": "3"}, {"hand": True}, {"keep_score": 1}, {"hint_cost": "x"}, {"hint_cost": True}, {"explain": 0}),
    ],
)
def test_options_of_the_wrong_kind_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"`{next(iter(options))}` must be"):
        Hanabi(**options)  # type: ignore[arg-type]


def test_problems_are_orders_of_the_deck_each_in_one_split() -> None:
    task = Hanabi()
    problems = [problem for split in SPLITS for problem in task.problems(split)]
    assert [len(task.problems(split)) for split in SPLITS] == [4096, 512, 512]
    assert (
        len({problem.id for problem in problems}) == len({tuple(problem.data["deck"]) for problem in problems}) == 5120
    )
    assert {problem.id for problem in task.problems("dev")} == {f"3x3-dev-{index}" for index in range(512)}
    assert json.loads(json.dumps(problems[0].data)) == problems[0].data


def test_tiny_games_have_few_problems_and_no_order_twice() -> None:
    # Of r1 r1 r1 r2 there are 4!/3! = 4 orders; none of them falls to the dev split.
    tiny = Hanabi(players=2, colours=1, ranks=2)
    orders = [tuple(problem.data["deck"]) for split in ("train", "test") for problem in tiny.problems(split)]
    assert len(orders) == len(set(orders)) == 4
    with pytest.raises(ValueError, match="no order of these 4 cards is in the dev split: use more colours or ranks"):
        tiny.problems("dev")


def test_the_seed_orders_and_chooses_problems() -> None:
    task = Hanabi()
    assert task.problems("dev", 20, seed=1) == task.problems("dev", 20, seed=1) == task.problems("dev", seed=1)[:20]
    assert task.problems("dev", 20, seed=1) != task.problems("dev", 20, seed=2)
    assert task.problems("dev", 0) == []


def test_a_problem_deals_the_same_cards_whatever_the_generator() -> None:
    task = Hanabi()
    problem = task.problems("train", 1)[0]
    assert task.start(problem, random.Random(1)) == task.start(problem, random.Random(2))


def test_a_problem_of_another_game_is_refused() -> None:
    with pytest.raises(ValueError, match="use a problem with the options that it was made with"):
        Hanabi().start(Hanabi(colours=4).problems("dev", 1)[0], RNG)
    with pytest.raises(ValueError, match="a card is like 'red 1', got 'purple 1'"):
        Hanabi().start(Problem("odd", {"deck": ["purple 1"]}), RNG)
