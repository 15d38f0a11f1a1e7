"""The kitchen's rules: what moves do, and what holds whatever is said."""

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kitchen_support import CELLS, RIGHT_ONION, floor, opening, walk

from tasks.kitchen import Kitchen
from tasks.kitchen.grid import MOVES, PLACES, Cell, Move, Tally, act, resolve, step
from tasks.kitchen.task import KitchenState
from tasks.moves import named_move

FIRST_LEADS, SECOND_LEADS = 1, 0  # seeds: random.Random(1) draws the order first, second; random.Random(0) the other


def test_a_walk_to_an_onion_and_into_the_pot_picks_up_and_delivers() -> None:
    # (1,0) r (2,0) r (3,0) d (3,1) d (3,2) d (3,3) d (3,4): onion; u (3,3) u (3,2) l: pot
    way: list[Move] = ["right", "right", "down", "down", "down", "down"]
    end, done = walk(floor((1, 0), (0, 1)), *way)
    assert end == floor((3, 4), (0, 1), holding="first", onions=(RIGHT_ONION,))
    assert done == [Tally(moves=1)] * 5 + [Tally(moves=1, pickups=1)]
    end, done = walk(end, "up", "up", "left")
    assert end == floor((3, 2), (0, 1), onions=(RIGHT_ONION,))
    assert done == [Tally(moves=1), Tally(moves=1), Tally(moves=1, deliveries=1)]


@pytest.mark.parametrize(
    ("cell", "move", "after"),
    [
        ((2, 0), "up", (2, 0)),
        ((2, 0), "down", (2, 1)),
        ((0, 2), "left", (0, 2)),
        ((4, 2), "right", (4, 2)),
        ((2, 4), "down", (2, 4)),
        ((2, 4), "up", (2, 3)),
        ((2, 4), "left", (1, 4)),
        ((1, 4), "right", (2, 4)),
        ((2, 1), "down", (2, 1)),  # the pot, from all four sides
        ((2, 3), "up", (2, 3)),
        ((1, 2), "right", (1, 2)),
        ((3, 2), "left", (3, 2)),
    ],
)
def test_walls_and_the_pot_block_a_move_that_counts_all_the_same(cell: Cell, move: Move, after: Cell) -> None:
    assert act(floor(cell, (4, 4)), "first", move) == (floor(after, (4, 4)), Tally(moves=1))


@pytest.mark.parametrize(("cell", "move"), [((2, 1), "down"), ((2, 3), "up"), ((1, 2), "right"), ((3, 2), "left")])
def test_the_pot_takes_an_onion_from_each_side(cell: Cell, move: Move) -> None:
    before = floor(cell, (0, 0), holding="first, second", onions=())
    after = floor(cell, (0, 0), holding="second", onions=())
    assert act(before, "first", move) == (after, Tally(moves=1, deliveries=1))


def test_staying_is_no_move_and_delivers_nothing() -> None:
    beside_pot = floor((2, 1), (0, 0), holding="first")
    assert act(beside_pot, "first", "stay") == (beside_pot, Tally())


def test_a_full_hand_takes_no_second_onion() -> None:
    end, done = walk(floor((3, 3), (0, 0), holding="first"), "down")
    assert end == floor((3, 4), (0, 0), holding="first") and done == [Tally(moves=1)]


def test_who_waits_on_a_place_takes_the_onion_once_it_is_back() -> None:
    empty = floor((3, 4), (0, 0), onions=())
    assert act(empty, "first", "stay") == (empty, Tally())
    back, done = step(empty, {"first": "stay", "second": "stay"}, 1.0, random.Random(0))
    assert back == floor((3, 4), (0, 0)) and done["first"] == Tally()
    taken = floor((3, 4), (0, 0), holding="first", onions=(RIGHT_ONION,))
    assert act(back, "first", "stay") == (taken, Tally(pickups=1))
    assert act(back, "first", "down") == (taken, Tally(moves=1, pickups=1))  # blocked by the wall


def test_walking_into_the_other_is_a_collision_of_the_one_that_moves() -> None:
    before = floor((1, 1), (2, 1))
    after, done = resolve(before, {"first": "right", "second": "stay"}, ("first", "second"))
    assert after == before
    assert done == {"first": Tally(moves=1, collisions=1), "second": Tally()}


def test_for_one_free_cell_the_first_in_order_gets_it_and_the_other_collides() -> None:
    before, moves = floor((1, 1), (3, 1)), {"first": "right", "second": "left"}
    after, done = resolve(before, moves, ("first", "second"))
    assert after == floor((2, 1), (3, 1))
    assert done == {"first": Tally(moves=1), "second": Tally(moves=1, collisions=1)}
    after, done = resolve(before, moves, ("second", "first"))
    assert after == floor((1, 1), (2, 1))
    assert done == {"first": Tally(moves=1, collisions=1), "second": Tally(moves=1)}


def test_following_works_only_behind_a_player_that_moved_before() -> None:
    before, moves = floor((1, 1), (2, 1)), {"first": "right", "second": "right"}
    assert resolve(before, moves, ("second", "first"))[0] == floor((2, 1), (3, 1))
    after, done = resolve(before, moves, ("first", "second"))
    assert after == floor((1, 1), (3, 1)) and done["first"].collisions == 1 and done["second"].collisions == 0


def test_two_that_want_past_each_other_both_collide_whatever_the_order() -> None:
    for order in (("first", "second"), ("second", "first")):
        after, done = resolve(floor((1, 1), (2, 1)), {"first": "right", "second": "left"}, order)
        assert after == floor((1, 1), (2, 1))
        assert set(done.values()) == {Tally(moves=1, collisions=1)}


def test_the_order_is_drawn_from_the_generator_of_the_step() -> None:
    before, moves = floor((1, 1), (3, 1)), {"first": "right", "second": "left"}
    assert step(before, moves, 0.0, random.Random(FIRST_LEADS))[0] == floor((2, 1), (3, 1))
    assert step(before, moves, 0.0, random.Random(SECOND_LEADS))[0] == floor((1, 1), (2, 1))
    ends = [step(before, moves, 0.0, random.Random(seed))[0] for seed in range(1000)]
    assert 440 <= ends.count(floor((2, 1), (3, 1))) <= 560  # 500, standard deviation 16


def test_each_empty_place_has_its_onion_back_with_the_stated_probability() -> None:
    stay: Mapping[str, Move] = {"first": "stay", "second": "stay"}
    # holding makes no difference: it is the place that is filled
    empty = floor((0, 0), (1, 0), holding="first, second", onions=())
    back = [step(empty, stay, 0.2, random.Random(seed))[0].onions for seed in range(5000)]
    for place in PLACES:
        assert 900 <= sum(place in onions for onions in back) <= 1100  # 1000, standard deviation 28
    assert 150 <= sum(len(onions) == 2 for onions in back) <= 250  # 0.2 x 0.2 x 5000 = 200, standard deviation 14
    for seed in range(50):
        assert step(empty, stay, 0.0, random.Random(seed))[0].onions == set()
        assert step(empty, stay, 1.0, random.Random(seed))[0].onions == set(PLACES)


def test_a_place_may_be_filled_at_the_end_of_the_step_that_emptied_it() -> None:
    taking = floor((3, 3), (0, 0))
    after, done = step(taking, {"first": "down", "second": "stay"}, 1.0, random.Random(0))
    assert after == floor((3, 4), (0, 0), holding="first") and done["first"].pickups == 1


# -- random play -----------------------------------------------------------------------------------------------------

# Many deliveries need many good moves: some words are the courier's, some are anything.
WORDS = st.sampled_from([*MOVES, "courier", "courier", "courier", "up up", ""])


@settings(max_examples=60, deadline=None)
@given(
    replies=st.lists(st.tuples(WORDS, WORDS), min_size=50, max_size=50),
    seed=st.integers(0, 10_000),
    onion_returns=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_whatever_is_said_the_rules_hold(replies: list[tuple[str, str]], seed: int, onion_returns: float) -> None:
    task, rng = Kitchen(onion_returns=onion_returns), random.Random(seed)
    shift = opening(task, seed)
    team, cost, deliveries = 0.0, dict.fromkeys(task.seats, 0.0), 0
    for pair in replies:
        before = shift
        said = {seat: _say(task, shift, seat, word, rng) for seat, word in zip(task.seats, pair, strict=True)}
        shift, paid = task.step(shift, said, rng)
        cells = [cook.cell for cook in shift.floor.cooks.values()]
        assert len(set(cells)) == 2 and set(cells) <= set(CELLS)
        picked, brought = _hands(before, shift)
        deliveries += brought
        assert {reward.team for reward in paid.values()} == {picked + 10.0 * brought}
        assert {reward.own for reward in paid.values()} == {0.0}
        returned = len(shift.floor.onions) - len(before.floor.onions) + picked
        assert 0 <= returned <= 2 and shift.floor.onions <= set(PLACES)
        if onion_returns == 0.0:  # on its place, in a hand, or brought: none is lost and none is made
            held = sum(cook.holds for cook in shift.floor.cooks.values())
            assert len(shift.floor.onions) + held + deliveries == 2
        if onion_returns == 1.0:
            assert shift.floor.onions == set(PLACES)
        team += paid["first"].team
        for seat in task.seats:
            moved = named_move(said[seat], MOVES) not in (None, "stay")
            assert paid[seat].cost in ((0.2, 2.2) if moved else (0,))
            cost[seat] += paid[seat].cost
    _check_totals(task, shift, team, cost)


def _say(task: Kitchen, shift: KitchenState, seat: str, word: str, rng: random.Random) -> str:
    messages = [message.as_dict() for message in task.view(shift, seat)]
    said = {name: partner().reply(messages, rng) for name, partner in task.partners.items()}
    assert set(said.values()) <= set(MOVES)
    return said.get(word, word)


def _hands(before: KitchenState, after: KitchenState) -> tuple[int, int]:
    """Pick-ups and deliveries as the hands show them: no step has room for both of one seat."""
    changes = [after.floor.cooks[s].holds - before.floor.cooks[s].holds for s in before.floor.cooks]
    return changes.count(1), changes.count(-1)


def _check_totals(task: Kitchen, shift: KitchenState, team: float, cost: Mapping[str, float]) -> None:
    assert task.actors(shift) == ()
    outcome = task.outcome(shift)
    counted = outcome.metrics
    pickups = counted["pickups/first"] + counted["pickups/second"]
    assert team == pickups + 10 * counted["deliveries"]
    assert counted["deliveries"] == counted["deliveries/first"] + counted["deliveries/second"] <= 18
    assert pickups - counted["deliveries"] == sum(cook.holds for cook in shift.floor.cooks.values())
    for seat in task.seats:
        assert cost[seat] == pytest.approx(0.2 * counted[f"moves/{seat}"] + 2 * counted[f"collisions/{seat}"])
        assert counted[f"moves/{seat}"] + counted[f"illegal/{seat}"] <= 50
    assert outcome.solved == (counted["deliveries"] >= 1)
