"""Tag as a task: pay, outcome, problems and options; what a seat reads and how its reply is read."""

import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SPLITS
from tag_support import SIGHT, VIEW, episodes, field, opening

from llm_sra.partners.rosters import read_roster
from llm_sra.registry import load_partner, load_task
from llm_sra.task import Message, Problem, Reward
from tasks.starting_model import byte_level_tokenizer
from tasks.tag import Tag
from tasks.tag.sight import Sight, read, write
from tasks.tag.task import TagState, Tally
from tasks.tag.world import MOVES, Body, Field, scenario

NOTHING = {"first": Tally(), "second": Tally()}

# -- the task --------------------------------------------------------------------------------------------------------


def test_each_touch_pays_both_and_each_pays_for_its_own_move() -> None:
    task = Tag(move_cost=0.2, rocks=0)
    far, one = field((3.0, 3.0), (-3.0, 3.0), (0.0, 0.0)), field((-0.1, 0.0), (-3.0, 3.0), (0.0, 0.0))
    both = field((-0.1, 0.0), (0.1, 0.0), (0.0, 0.0))
    for here, team in ((far, 0), (one, 10), (both, 20)):
        _, paid = task.step(TagState(here, 0, NOTHING), {"first": "up", "second": "stay"}, random.Random(0))
        assert paid == {"first": Reward(team=team, cost=0.2), "second": Reward(team=team)}


def test_moving_is_free_by_default_as_in_mpe2() -> None:
    _, paid = Tag().step(opening(Tag()), {"first": "up", "second": "left"}, random.Random(0))
    assert {reward.cost for reward in paid.values()} == {0}


def test_an_episode_has_twenty_five_steps_at_each_of_which_both_seats_speak() -> None:
    [played] = episodes("hunter", "random_walker")
    assert [(turn.seat, turn.step) for turn in played.turns] == [
        (seat, number) for number in range(25) for seat in ("first", "second")
    ]
    [short] = episodes("waiter", "waiter", steps=9)
    assert len({turn.step for turn in short.turns}) == 9


def test_the_outcome_counts_what_each_seat_did() -> None:
    task = Tag(goal=3)
    tallies = {"first": Tally(2, 20, 0, 12.5), "second": Tally(1, 5, 4, 50.0)}
    outcome = task.outcome(TagState(field((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), 25, tallies))
    assert outcome.solved and outcome.effort == {"first": 0.8, "second": 0.2}  # 20 and 5 of 25 steps
    assert outcome.metrics == {
        "tags": 3,
        "tags/first": 2,
        "moves/first": 20,
        "illegal/first": 0,
        "distance/first": 0.5,  # 12.5 by 25 steps
        "moves_per_tag/first": 20 / 3,  # by the team's tags
        "tags/second": 1,
        "moves/second": 5,
        "illegal/second": 4,
        "distance/second": 2,
        "moves_per_tag/second": 5 / 3,
    }
    assert not Tag(goal=4).outcome(TagState(opening(task).field, 25, tallies)).solved


def test_without_a_tag_nothing_is_solved_and_there_is_no_rate() -> None:
    away = TagState(opening(Tag()).field, 25, NOTHING)
    outcome = Tag().outcome(away)
    assert not outcome.solved
    assert not [name for name in outcome.metrics if name.startswith("moves_per_tag")]


def test_states_are_never_changed_in_place() -> None:
    before = opening(Tag())
    copy = repr(before)
    Tag().step(before, {"first": "down", "second": "nonsense"}, random.Random(0))
    assert repr(before) == copy


def test_the_same_words_and_chance_lead_to_the_same_state() -> None:
    task, said = Tag(runner="random"), {"first": "up", "second": "left"}
    ends = [task.step(opening(task), said, random.Random(seed))[0].field.runner.speed for seed in (0, 0, 1, 2, 3)]
    assert ends[0] == ends[1] and len(set(ends)) > 1  # the random runner draws from that generator alone


def test_splits_are_disjoint_and_the_same_whatever_the_seed_which_only_orders_and_chooses() -> None:
    task = Tag()
    ids = [{problem.id for problem in task.problems(split, seed=seed)} for seed, split in enumerate(SPLITS)]
    assert [len(split) for split in ids] == [2000, 300, 300]
    assert len(set.union(*ids)) == 2600
    assert task.problems("dev", 20, seed=1) == task.problems("dev", seed=1)[:20]
    assert task.problems("dev", 20, seed=1) != task.problems("dev", 20, seed=2)
    assert len(task.problems("test", 10_000)) == 300 and task.problems("test", 0) == []


def test_a_problem_is_a_seed_in_plain_json() -> None:
    problem = next(p for p in Tag().problems("train") if p.data["seed"] == 7)
    assert problem == Problem("0007", {"seed": 7})
    again = Problem(problem.id, json.loads(json.dumps(problem.data)))
    assert Tag().start(again, random.Random(3)) == Tag().start(problem, random.Random(4))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 0}, "`steps` must be 1 or more, got 0"),
        ({"goal": 0}, "`goal` must be from 1 to 50, got 0"),
        ({"goal": 51}, "`goal` must be from 1 to 50, got 51"),
        ({"rocks": -1}, "`rocks` must be from 0 to 8, got -1"),
        ({"decimals": 4}, "`decimals` must be from 0 to 3, got 4"),
        ({"move_cost": -0.1}, "`move_cost` must be finite and 0 or more, got -0.1"),
        ({"move_cost": float("nan")}, "`move_cost` must be finite"),
        ({"runner": "hide"}, "`runner` must be one of flee, random, trained, got 'hide'"),
        ({"runner": []}, r"`runner` must be one of flee, random, trained, got \[\]"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Tag(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"steps": 25.0}, {"rocks": True}, {"goal": "1"}, {"move_cost": "0.2"}])
def test_options_of_the_wrong_kind_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"`{next(iter(options))}` must be"):
        Tag(**options)  # type: ignore[arg-type]


def test_without_mpe2_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.cache_clear()
    monkeypatch.setitem(sys.modules, "mpe2.simple_tag.simple_tag", None)
    with pytest.raises(ValueError, match=r"needs the package mpe2.*pip install 'mpe2==1\.1\.\*'"):
        load_task("tag")
    monkeypatch.undo()
    assert isinstance(load_task("tag"), Tag)  # a failure is not remembered


def test_tag_and_its_partners_are_found_by_name() -> None:
    task = load_task("tag", {"steps": 20, "runner": "trained"})
    assert isinstance(task, Tag) and (task.steps, task.runner) == (20, "trained")
    assert load_partner("hunter", task).reply([{"role": "user", "content": VIEW}], random.Random(0)) == "left"
    with pytest.raises(ValueError, match="its options are: steps, move_cost, runner, rocks, decimals, goal"):
        load_task("tag", {"step": 20})


def test_the_rosters_seat_every_partner_once() -> None:
    folder = Path(__file__).parent.parent / "eval" / "rosters"
    dev, test = ({e.policy for e in read_roster(folder / f"tag_{name}.yaml")} for name in ("dev", "test"))
    assert not dev & test and dev | test == set(Tag.partners)


# -- text ------------------------------------------------------------------------------------------------------------


def test_a_chaser_reads_its_own_place_and_all_others_from_there() -> None:
    first, second = Body((0.4, -0.3), (0.0, 1.0)), Body((0.61, 0.56), (0.5, 0.0))
    here = Field((first, second), Body((-0.1, -0.2), (1.04, -0.26)), ((0.6, -1.0), (1.5, 0.0)))
    chase = TagState(here, 7, NOTHING)
    assert Tag().view(chase, "first") == (Message("user", VIEW),)
    other = "you 6 6 5 0\nother -2 -9\nrunner -7 -8 10 -3\nrock 0 -16\nrock 9 -6\nstay left right down up?"
    assert Tag().view(chase, "second") == (Message("user", other),)
    assert Tag(decimals=2).view(chase, "second")[0].content.startswith("you 61 56 50 0\nother -21 -86\nrunner -71 -76 ")


def test_a_view_depends_on_the_field_alone() -> None:
    here, tired = opening(Tag()).field, {"first": Tally(1, 9, 3, 0.5), "second": Tally()}
    views = [Tag().view(TagState(here, n, tallies), "first") for n, tallies in ((0, NOTHING), (24, tired))]
    assert views[0] == views[1]


PAIRS = st.tuples(st.integers(-99, 99), st.integers(-99, 99))


@given(pairs=st.lists(PAIRS, min_size=5, max_size=5), rocks=st.lists(PAIRS, max_size=8))
def test_what_is_written_is_read_back(pairs: list[tuple[int, int]], rocks: list[tuple[int, int]]) -> None:
    sight = Sight(*pairs, rocks=tuple(rocks))
    assert read([{"role": "user", "content": write(sight)}]) == sight
    assert write(SIGHT) == VIEW


@pytest.mark.parametrize("shown", ["Q: 3+2+5", "", VIEW + "\n", VIEW.replace("4", "0.4"), VIEW.split("\n", 1)[1]])
def test_a_partner_on_a_foreign_task_says_what_it_expected(shown: str) -> None:
    for name in ("hunter", "interceptor", "shadow"):
        with pytest.raises(ValueError, match="a line like 'you 4 -3 0 10', then others, got"):
            Tag.partners[name]().reply([{"role": "user", "content": shown}], random.Random(0))
    with pytest.raises(ValueError, match="got ''"):
        read([])


@pytest.mark.parametrize("reply", ["", "north", "up down", "left left"])
def test_an_illegal_reply_stays_for_free_and_is_counted(reply: str) -> None:
    task, before = Tag(move_cost=1), opening(Tag())
    after, paid = task.step(before, {"first": reply, "second": "stay"}, random.Random(0))
    stayed, _ = task.step(before, {"first": "stay", "second": "stay"}, random.Random(0))
    assert after.field == stayed.field and paid["first"].cost == 0
    assert (after.tallies["first"].illegal, after.tallies["first"].moves, after.tallies["second"].illegal) == (1, 0, 0)


def test_the_rules_come_first_if_wanted_and_partners_read_past_them() -> None:
    task = Tag(explain=True, steps=30, move_cost=0.35, decimals=2)
    chase = opening(task)
    (message,) = task.view(chase, "first")
    told, _, seen = message.content.rpartition("\n\n")
    assert seen == Tag(decimals=2).view(chase, "first")[0].content
    for words in (
        "from -100 to 100 in x",
        "There are 30 steps",
        "one of stay, left, right, down, up at",
        "chaser goes is 100, the runner 130; at speed 100 the place changes by 10",
        "get 10 for each",
        "costs the chaser that makes it 0.35",
        "within 12.5",
    ):
        assert words in told
    view = [message.as_dict()]
    assert read(view) == read([{"role": "user", "content": seen}])
    assert task.partners["waiter"]().reply(view, random.Random(0)) == "stay"
    assert task.partners["hunter"]().reply(view, random.Random(0)) in MOVES
    with pytest.raises(TypeError, match="`explain` must be true or false, got 1"):
        Tag(explain=1)  # type: ignore[arg-type]


def test_a_model_chooses_among_the_five_moves_and_reads_little() -> None:
    assert Tag.choices == MOVES == ("stay", "left", "right", "down", "up")
    tokenizer = byte_level_tokenizer([*MOVES, "you", "other", "runner", "rock"])
    assert {len(tokenizer(move)["input_ids"]) for move in Tag.choices} == {1}
    views = [turn.view[0].content for played in episodes("hunter", "interceptor", 10) for turn in played.turns]
    assert max(len(tokenizer(view)["input_ids"]) for view in views) <= 66  # a digit, a sign, a space is one each
