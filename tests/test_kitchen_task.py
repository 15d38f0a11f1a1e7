"""The kitchen as a task: pay, outcome, problems and options; what a seat reads and how its reply is read."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kitchen_support import (
    CELLS,
    RIGHT_ONION,
    episode,
    floor,
    opening,
)
from support import SPLITS

from llm_sra.partners.rosters import read_roster
from llm_sra.registry import load_partner, load_task
from llm_sra.task import Message, Problem, Reward
from tasks.kitchen import Kitchen
from tasks.kitchen.grid import MOVES, PLACES, Cell, Cook, Floor, Tally
from tasks.kitchen.sight import Sight, look, read, write
from tasks.kitchen.task import KitchenState, most_deliveries
from tasks.moves import named_move

# -- the task --------------------------------------------------------------------------------------------------------


def test_seats_start_on_the_two_cells_swapped_half_of_the_time() -> None:
    task = Kitchen()
    starts = [opening(task, seed) for seed in range(1000)]
    straight, swapped = floor((1, 0), (0, 1)), floor((0, 1), (1, 0))
    assert {(s.floor == straight, s.floor == swapped, s.step) for s in starts} == {(True, False, 0), (False, True, 0)}
    assert 440 <= sum(start.floor == swapped for start in starts) <= 560  # 500, standard deviation 16


def test_both_seats_get_the_team_reward_and_each_pays_for_itself() -> None:
    task = Kitchen()
    shift = KitchenState(floor((3, 3), (2, 1), holding="second"), 0, opening(task).tallies, opening(task).illegal)
    shift, paid = task.step(shift, {"first": "down", "second": "down"}, random.Random(0))
    assert paid == {"first": Reward(team=11, cost=0.2), "second": Reward(team=11, cost=0.2)}
    shift, paid = task.step(shift, {"first": "stay", "second": "up"}, random.Random(0))
    assert paid == {"first": Reward(), "second": Reward(cost=0.2)}


def test_a_collision_costs_its_mover_two_beside_the_move_and_the_other_nothing() -> None:
    task = Kitchen()
    shift = KitchenState(floor((1, 1), (2, 1)), 0, opening(task).tallies, opening(task).illegal)
    _, paid = task.step(shift, {"first": "right", "second": "stay"}, random.Random(0))
    assert paid == {"first": Reward(cost=2.2), "second": Reward()}
    dear = Kitchen(move_cost=1, collision_cost=0.5)
    assert dear.step(shift, {"first": "right", "second": "stay"}, random.Random(0))[1]["first"] == Reward(cost=1.5)


def test_an_episode_has_fifty_steps_at_each_of_which_both_seats_speak() -> None:
    played = episode("waiter", "random_walker")
    assert [(turn.seat, turn.step) for turn in played.turns] == [
        (seat, number) for number in range(50) for seat in ("first", "second")
    ]
    assert len({turn.step for turn in episode("waiter", "waiter", steps=9).turns}) == 9


def test_the_outcome_counts_what_each_seat_did() -> None:
    task = Kitchen(goal=3)
    tallies = {"first": Tally(30, 3, 2, 1), "second": Tally(4, 1, 1, 0)}
    outcome = task.outcome(KitchenState(floor((0, 0), (1, 0)), 50, tallies, {"first": 0, "second": 5}))
    assert outcome.solved and outcome.effort == {"first": 30, "second": 4}
    assert outcome.metrics == {
        "deliveries": 3,
        "share of the most deliveries": 3 / 18,  # 2 players, 50 steps: 9 for the first of each, 5 for a further one
        "pickups/first": 3,
        "deliveries/first": 2,
        "moves/first": 30,
        "collisions/first": 1,
        "illegal/first": 0,
        "moves_per_delivery/first": 10,  # 30 moves by 3 deliveries of the team
        "pickups/second": 1,
        "deliveries/second": 1,
        "moves/second": 4,
        "collisions/second": 0,
        "illegal/second": 5,
        "moves_per_delivery/second": 4 / 3,
    }
    assert (
        not Kitchen(goal=4).outcome(KitchenState(floor((0, 0), (1, 0)), 50, tallies, {"first": 0, "second": 5})).solved
    )


def test_agents_are_compared_by_the_share_of_the_most_deliveries() -> None:
    assert Kitchen().headline == "share of the most deliveries"
    assert episode("waiter", "waiter").outcome.metrics[Kitchen().headline] == 0
    assert 0 < episode("courier", "courier").outcome.metrics[Kitchen().headline] <= 1


def test_without_a_delivery_nothing_is_solved_and_there_is_no_rate() -> None:
    outcome = episode("waiter", "waiter").outcome
    assert not outcome.solved
    assert not [name for name in outcome.metrics if name.startswith("moves_per_delivery")]


def test_states_are_never_changed_in_place() -> None:
    task, before = Kitchen(), opening(Kitchen())
    copy = repr(before)
    task.step(before, {"first": "down", "second": "nonsense"}, random.Random(0))
    assert repr(before) == copy


def test_splits_are_disjoint_and_the_same_whatever_the_seed_which_only_orders_and_chooses() -> None:
    task = Kitchen()
    ids = [{problem.id for problem in task.problems(split, seed=seed)} for seed, split in enumerate(SPLITS)]
    assert [len(split) for split in ids] == [700, 150, 150]
    assert len(set.union(*ids)) == 1000
    assert task.problems("dev", 20, seed=1) == task.problems("dev", seed=1)[:20]
    assert task.problems("dev", 20, seed=1) != task.problems("dev", 20, seed=2)
    assert {problem.id for problem in task.problems("dev", seed=1)} == {p.id for p in task.problems("dev", seed=2)}
    assert len(task.problems("test", 10_000)) == 150 and task.problems("test", 0) == []


def test_a_problem_is_its_start_cells_and_a_number_in_plain_json() -> None:
    problem = next(p for p in Kitchen().problems("train") if p.data["index"] == 7)
    assert problem == Problem("1,0+0,1/007", {"starts": [[1, 0], [0, 1]], "index": 7})
    again = Problem(problem.id, json.loads(json.dumps(problem.data)))
    assert Kitchen().start(again, random.Random(3)) == Kitchen().start(problem, random.Random(3))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 0}, "`steps` must be 1 or more, got 0"),
        ({"goal": 0}, "`goal` must be 1 or more, got 0"),
        ({"steps": 8}, "`goal`=1 is out of reach: in `steps`=8 .* make at most 0 deliveries"),
        ({"goal": 19}, "make at most 18 deliveries"),
        ({"goal": 3, "onion_returns": 0}, "make at most 2 deliveries"),
        ({"move_cost": -0.1}, "`move_cost` must be finite and 0 or more, got -0.1"),
        ({"collision_cost": float("inf")}, "`collision_cost` must be finite"),
        ({"onion_returns": 1.5}, r"`onion_returns` must be in \[0, 1\], got 1.5"),
        ({"onion_returns": float("nan")}, "`onion_returns` must be in"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Kitchen(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"steps": 50.0}, {"steps": True}, {"goal": "1"}, {"move_cost": "0.2"}, {"onion_returns": False}]
)
def test_options_of_the_wrong_kind_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"`{next(iter(options))}` must be"):
        Kitchen(**options)  # type: ignore[arg-type]


def test_the_most_that_two_players_can_deliver() -> None:
    # each needs 9 steps for its first and 5 for a further one: at 9, 14, 19, ..., 49
    assert [most_deliveries(steps, 0.2) for steps in (8, 9, 13, 14, 50)] == [0, 2, 2, 4, 18]
    assert most_deliveries(50, 0.0) == 2


def test_the_kitchen_and_its_partners_are_found_by_name() -> None:
    task = load_task("kitchen", {"steps": 20})
    assert isinstance(task, Kitchen) and task.steps == 20
    assert load_partner("courier", task).reply([{"role": "user", "content": write(SIGHT)}], random.Random(0)) == "left"
    with pytest.raises(ValueError, match="its options are: steps, move_cost, collision_cost, onion_returns, goal"):
        load_task("kitchen", {"step": 20})


def test_the_rosters_seat_every_partner_once() -> None:
    folder = Path(__file__).parent.parent / "eval" / "rosters"
    dev, test = ({e.policy for e in read_roster(folder / f"kitchen_{name}.yaml")} for name in ("dev", "test"))
    assert not dev & test and dev | test == set(Kitchen.partners)


# -- text ------------------------------------------------------------------------------------------------------------

SIGHT = Sight((3, 2), (0, 1), own_holds=True, other_holds=False, onions=frozenset({RIGHT_ONION}))


def test_a_seat_reads_itself_first_then_the_other_hands_onions_and_pot() -> None:
    shift = KitchenState(floor((3, 2), (0, 1), holding="first", onions=(RIGHT_ONION,)), 7, {}, {})
    rest = "onion 3,4 away\nonion 4,3 there\npot 2,2\nup, down, left, right or stay?"
    first = "you 3,2\nother 0,1\nyour hand onion\nother hand empty\n"
    second = "you 0,1\nother 3,2\nyour hand empty\nother hand onion\n"
    assert Kitchen().view(shift, "first") == (Message("user", first + rest),)
    assert Kitchen().view(shift, "second") == (Message("user", second + rest),)


def test_the_rules_come_first_if_wanted_and_partners_read_past_them() -> None:
    task = Kitchen(explain=True, steps=30, move_cost=0.5, onion_returns=0.1)
    shift = KitchenState(floor((3, 2), (0, 1), holding="first", onions=(RIGHT_ONION,)), 0, {}, {})
    (message,) = task.view(shift, "first")
    rules, _, seen = message.content.rpartition("\n\n")
    assert seen == Kitchen().view(shift, "first")[0].content
    for told in (
        "There are 30 steps",
        "probability 0.1",
        "get 1 for each",
        "10 for each",
        "costs the player that makes it 0.5",
    ):
        assert told in rules
    assert "costs 2 more" in rules
    assert read([message.as_dict()]) == look(shift.floor, "first")
    assert load_partner("courier", task).reply([message.as_dict()], random.Random(0)) == "left"
    with pytest.raises(TypeError, match="`explain` must be true or false, got 1"):
        Kitchen(explain=1)  # type: ignore[arg-type]


def test_a_view_depends_on_the_floor_alone() -> None:
    here, tired = floor((3, 2), (0, 1)), {"first": Tally(40, 5, 5, 3), "second": Tally()}
    views = [Kitchen().view(KitchenState(here, n, tallies, {}), "first") for n, tallies in ((0, {}), (49, tired))]
    assert views[0] == views[1]


@given(
    cells=st.lists(st.sampled_from(CELLS), min_size=2, max_size=2, unique=True),
    holds=st.tuples(st.booleans(), st.booleans()),
    onions=st.frozensets(st.sampled_from(PLACES)),
)
def test_what_is_written_is_read_back(cells: list[Cell], holds: tuple[bool, bool], onions: frozenset[Cell]) -> None:
    here = Floor({"first": Cook(cells[0], holds[0]), "second": Cook(cells[1], holds[1])}, onions)
    sight = look(here, "second")
    assert sight == Sight(cells[1], cells[0], holds[1], holds[0], onions)
    assert read([{"role": "user", "content": write(sight)}]) == sight


@pytest.mark.parametrize("shown", ["Q: 3+2+5", "", "you 5,0\n" + write(SIGHT).split("\n", 1)[1], write(SIGHT) + "\n"])
def test_a_partner_on_a_foreign_task_says_what_it_expected(shown: str) -> None:
    for name in ("courier", "blocker", "one_onion"):
        with pytest.raises(ValueError, match="first like 'you 1,0', got"):
            Kitchen.partners[name]().reply([{"role": "user", "content": shown}], random.Random(0))
    with pytest.raises(ValueError, match="got ''"):
        read([])


@pytest.mark.parametrize(
    ("reply", "move"),
    [
        *((move, move) for move in MOVES),
        (" Up.\n", "up"),
        ("I move RIGHT", "right"),
        ("**left**", "left"),
        ("", None),
        ("north", None),
        ("upwards", None),
        ("updown", None),
        ("up down", None),
        ("up up", None),
        ("stay, or left", None),
        ("\x00�" * 20, None),
    ],
)
def test_a_reply_is_a_move_if_it_names_exactly_one(reply: str, move: str | None) -> None:
    assert named_move(reply, MOVES) == move


@pytest.mark.parametrize("reply", ["", "north", "up down", "left left"])
def test_an_illegal_reply_stays_for_free_and_is_counted(reply: str) -> None:
    task = Kitchen()
    before = opening(task)
    after, paid = task.step(before, {"first": reply, "second": "stay"}, random.Random(0))
    assert after.floor == before.floor and paid["first"] == Reward()
    assert after.illegal == {"first": 1, "second": 0}


def test_a_model_chooses_among_the_five_moves() -> None:
    assert Kitchen.choices == ("up", "down", "left", "right", "stay")
    assert all(named_move(word, MOVES) == word for word in Kitchen.choices)
