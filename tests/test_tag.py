"""The world of tag: it is mpe2's, step by step, and what holds whatever is said."""

import math
import random
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpe2 import simple_tag_v3
from tag_support import field, opening

from tasks.moves import named_move
from tasks.tag import Tag
from tasks.tag.sight import look
from tasks.tag.task import SPLITS, TOUCH, TagState
from tasks.tag.world import MOVES, Body, Field, Point, scatter, step

ROCKS = (0, 1, 2, 3)
ACTIONS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=25)


@cache
def environment(rocks: int) -> Any:
    return simple_tag_v3.raw_env(num_good=1, num_adversaries=2, num_obstacles=rocks, max_cycles=25)


def state_of(env: Any) -> Field:
    """What mpe2's environment holds, as a value."""
    *agents, runner = [Body(tuple(a.state.p_pos.tolist()), tuple(a.state.p_vel.tolist())) for a in env.world.agents]
    return Field(tuple(agents), runner, tuple(tuple(rock.state.p_pos.tolist()) for rock in env.world.landmarks))


def near(distance: float) -> Field:
    """The first chaser this far to the left of the runner, the second far away."""
    return field((-distance, 0.0), (0.0, 5.0), (0.0, 0.0))


# -- beside mpe2's own environment ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), rocks=st.sampled_from(ROCKS), actions=ACTIONS)
def test_every_step_is_that_of_mpe2_s_environment_to_the_last_bit(
    seed: int, rocks: int, actions: list[tuple[int, int, int]]
) -> None:
    env = environment(rocks)
    env.reset(seed=seed)
    here = scatter(seed, rocks)
    assert here == state_of(env)
    for three in actions:
        first, second, runner = (MOVES[action] for action in three)
        here, touches = step(here, (first, second), runner)
        for action in three:  # one agent after another; the world moves after the last
            env.step(action)
        assert here == state_of(env)
        assert env.rewards["adversary_0"] == env.rewards["adversary_1"] == TOUCH * sum(touches)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rocks=st.sampled_from(ROCKS), seat=st.sampled_from([0, 1]))
def test_a_chaser_sees_mpe2_s_observation_rounded(seed: int, rocks: int, seat: int) -> None:
    env = environment(rocks)
    env.reset(seed=seed)
    for action in (4, 2, 1):
        env.step(action)
    # own speed, own place, rocks, other chaser, runner, the runner's speed
    speed, place, *rest = np.split(env.scenario.observation(env.world.agents[seat], env.world), 5 + rocks)
    seen = look(state_of(env), seat, decimals=2)
    shown = [seen.own_speed, seen.own, *seen.rocks, seen.other, seen.runner, seen.runner_speed]
    assert shown == [tuple(round(float(x) * 100) for x in pair) for pair in (speed, place, *rest)]


def test_every_problem_begins_where_mpe2_s_seed_puts_everyone() -> None:
    env = environment(2)
    for problem in [*Tag().problems("train", 5), *Tag().problems("test", 5)]:
        env.reset(seed=problem.data["seed"])
        assert Tag().start(problem, random.Random(7)).field == state_of(env)


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("move", "x", "y"), [("left", -1, 0), ("right", 1, 0), ("down", 0, -1), ("up", 0, 1), ("stay", 0, 0)]
)
def test_a_move_pushes_and_what_moves_goes_on_by_itself_more_slowly(move: Any, x: int, y: int) -> None:
    # a chaser's push is 3 for 0.1 of time, a runner's 4; the place follows the speed of the step before
    here, _ = step(field((0.0, 0.0), (0.0, 3.0), (3.0, 0.0)), (move, "stay"), move)
    assert here.chasers[0] == Body((0.0, 0.0), pytest.approx((0.3 * x, 0.3 * y)))
    assert here.runner == Body((3.0, 0.0), pytest.approx((0.4 * x, 0.4 * y)))
    here, _ = step(here, ("stay", "stay"), "stay")  # a quarter of the speed is lost
    assert here.chasers[0] == Body(pytest.approx((0.03 * x, 0.03 * y)), pytest.approx((0.225 * x, 0.225 * y)))
    assert here.runner == Body(pytest.approx((3 + 0.04 * x, 0.04 * y)), pytest.approx((0.3 * x, 0.3 * y)))


def test_the_runner_is_faster() -> None:
    here = field((0.0, 0.0), (0.0, 3.0), (3.0, 0.0))
    for _ in range(25):
        here, _ = step(here, ("right", "right"), "right")
    assert (here.chasers[0].speed, here.runner.speed) == (pytest.approx((1.0, 0.0)), pytest.approx((1.3, 0.0)))


@pytest.mark.parametrize(("distance", "touched"), [(0.12, True), (0.13, False), (0.5, False)])
def test_a_chaser_tags_within_the_sum_of_both_radii(distance: float, touched: bool) -> None:
    # 0.075 + 0.05 = 0.125; nobody has moved yet after the first step
    assert step(near(distance), ("stay", "stay"), "stay")[1] == (touched, False)


def test_both_chasers_can_tag_at_once() -> None:
    _, touches = step(field((-0.1, 0.0), (0.1, 0.0), (0.0, 0.0)), ("stay", "stay"), "stay")
    assert touches == (True, True)


def test_bodies_and_rocks_push_apart() -> None:
    here, _ = step(near(0.1), ("stay", "stay"), "stay")
    assert here.chasers[0].speed[0] < 0 < here.runner.speed[0]
    stone, _ = step(field((0.2, 0.0), (0.0, 5.0), (5.0, 0.0), (0.0, 0.0)), ("stay", "stay"), "stay")
    assert stone.chasers[0].speed[0] > 0 and stone.rocks == ((0.0, 0.0),)


def test_a_step_depends_on_what_goes_in_and_changes_none_of_it() -> None:
    here = scatter(3, 2)
    shown = repr(here)
    steps = [step(here, ("up", "left"), "down") for _ in range(2)]
    step(scatter(4, 2), ("down", "down"), "up")
    assert steps[0] == steps[1] == step(here, ("up", "left"), "down") and repr(here) == shown


# -- random play ------------------------------------------------------------------------------------------------------

# Contact needs a purpose: some words are a partner's, some are anything.
WORDS = st.sampled_from([*MOVES, "interceptor", "interceptor", "hunter", "shadow", "up up", "north", "", "\x00"])


@settings(max_examples=60, deadline=None)
@given(
    replies=st.lists(st.tuples(WORDS, WORDS), min_size=25, max_size=25),
    seed=st.integers(0, 10_000),
    runner=st.sampled_from(["flee", "random", "trained"]),
    rocks=st.sampled_from(ROCKS),
)
def test_whatever_is_said_the_rules_hold(replies: list[tuple[str, str]], seed: int, runner: str, rocks: int) -> None:
    task, rng = Tag(runner=runner, rocks=rocks, move_cost=0.5), random.Random(seed)
    chase = opening(task, seed % len(SPLITS["train"]))
    team, cost, fields = 0.0, dict.fromkeys(task.seats, 0.0), [chase.field]
    for number, pair in enumerate(replies, 1):
        said = {seat: _say(task, chase, seat, word, rng) for seat, word in zip(task.seats, pair, strict=True)}
        chase, paid = task.step(chase, said, rng)
        fields.append(chase.field)
        assert chase.step == number
        assert paid["first"].team == paid["second"].team and paid["first"].team in (0, 10, 20)
        assert {reward.own for reward in paid.values()} == {0}
        team += paid["first"].team
        for seat in task.seats:
            assert paid[seat].cost == (0 if named_move(said[seat], MOVES) in (None, "stay") else 0.5)
            cost[seat] += paid[seat].cost
    for before, after in pairwise(fields):
        _check_bodies(before, after)
    assert task.actors(chase) == ()
    outcome = task.outcome(chase)
    counted = outcome.metrics
    assert team == 10 * counted["tags"] == 10 * (counted["tags/first"] + counted["tags/second"]) <= 500
    assert outcome.solved == (counted["tags"] >= 1)
    for at, seat in enumerate(task.seats):
        assert cost[seat] == 0.5 * counted[f"moves/{seat}"]
        assert outcome.effort[seat] == counted[f"moves/{seat}"] / 25
        assert counted[f"illegal/{seat}"] == sum(pair[at] in ("up up", "north", "", "\x00") for pair in replies)
        assert counted[f"moves/{seat}"] + counted[f"illegal/{seat}"] <= 25
        away = [math.dist(here.chasers[at].place, here.runner.place) for here in fields[1:]]
        assert counted[f"distance/{seat}"] == pytest.approx(sum(away) / 25)
        assert counted[f"tags/{seat}"] == sum(distance < 0.125 for distance in away)


def _say(task: Tag, chase: TagState, seat: str, word: str, rng: random.Random) -> str:
    messages = [message.as_dict() for message in task.view(chase, seat)]
    said = {name: partner().reply(messages, rng) for name, partner in task.partners.items()}
    assert set(said.values()) <= set(MOVES)
    return said.get(word, word)


def _check_bodies(before: Field, after: Field) -> None:
    assert after.rocks == before.rocks
    for fastest, old, new in zip(
        (1.0, 1.0, 1.3), (*before.chasers, before.runner), (*after.chasers, after.runner), strict=True
    ):
        assert all(map(math.isfinite, (*new.place, *new.speed)))
        assert math.hypot(*new.speed) <= fastest + 1e-9
        moved: Point = (old.place[0] + 0.1 * old.speed[0], old.place[1] + 0.1 * old.speed[1])
        assert new.place == pytest.approx(moved)
