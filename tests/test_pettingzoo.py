"""Environments of PettingZoo as tasks: turns, views, replies, pay, dead agents, cut episodes, and states as values."""

import random
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from llm_sra.protocol.check import check_task
from llm_sra.registry import load_task
from llm_sra.task import Reward
from tasks.adapters import Table
from tasks.movers import MOVERS
from tasks.moves import shown_moves
from tasks.pettingzoo import PettingZoo
from tasks.pettingzoo.environment import Environment

spaces = pytest.importorskip("gymnasium.spaces")


def played(task: Environment, replies: Sequence[Mapping[str, str]]) -> tuple[Table, list[Mapping[str, Reward]]]:
    """The first problem, played by what is said in turn."""
    state, paid = task.start(task.problems("dev")[0], random.Random(0)), []
    for said in replies:
        assert set(task.actors(state)) == set(said)
        state, rewards = task.step(state, said, random.Random(0))
        paid.append(rewards)
    return state, paid


class Pay:
    """Parallel. Each gets its number; `a` leaves after one step, `b` is truncated after three. Draws from `random`."""

    possible_agents = ("a", "b")

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(3, start=1)

    def reset(self, seed: int) -> Any:
        self.agents, self.at, self.told = ["a", "b"], 0, [0, seed % 2, random.randrange(1000)]
        return dict.fromkeys(self.agents, self.told), {agent: {} for agent in self.agents}

    def step(self, actions: Mapping[str, int]) -> Any:
        assert set(actions) == set(self.agents)
        self.at += 1
        self.told[0] = self.at  # the same list, written over
        self.told[2] = random.randrange(1000)
        cuts = dict.fromkeys(self.agents, self.at == 3)
        paid = {agent: float(action) for agent, action in actions.items()}
        over = {agent: agent == "a" for agent in self.agents}
        self.agents = [agent for agent in self.agents if not over[agent] and not cuts[agent]]
        return (
            dict.fromkeys(actions, self.told),
            paid,
            over,
            cuts,
            {agent: {"action_mask": [0, 1, 1]} for agent in actions},
        )


class PayTask(Environment):
    """Say a number."""

    def make(self) -> Any:
        return Pay()


def test_both_act_at_once_until_one_is_dead_and_each_gets_its_own() -> None:
    task = PayTask()
    state, paid = played(task, [{"a": "3", "b": "2"}, {"b": "3"}, {"b": "2"}])
    assert task.actors(state) == ()
    assert [{seat: reward.total for seat, reward in each.items()} for each in paid] == [
        {"a": 3.0, "b": 2.0}, {"a": 0.0, "b": 3.0}, {"a": 0.0, "b": 2.0},
    ]  # fmt: skip
    assert all(reward.team == reward.cost == 0 for each in paid for reward in each.values())
    outcome = task.outcome(state)
    assert outcome.effort == {"a": 0.0, "b": 0.0} and outcome.solved
    assert outcome.metrics == {
        "return/a": 3.0, "return/b": 7.0, "illegal/a": 0.0, "illegal/b": 0.0, "truncated": 1.0,
    }  # fmt: skip


def test_a_shared_reward_is_the_mean_and_the_rest_is_each_ones_own() -> None:
    _, paid = played(PayTask(shared=True), [{"a": "3", "b": "2"}])
    assert paid[0] == {"a": Reward(team=2.5, own=0.5), "b": Reward(team=2.5, own=-0.5)}


def test_a_reply_that_is_no_legal_move_is_the_first_one_and_counts() -> None:
    task = PayTask()
    state, paid = played(task, [{"a": "7", "b": "no"}, {"b": "1"}])  # the mask then forbids 1
    assert paid[0]["a"].own == paid[0]["b"].own == 1.0 and paid[1]["b"].own == 2.0
    assert state.illegal == (1, 2) and state.made == (1, 2)
    assert shown_moves(task.view(state, "b")[0].content) == ["2", "3"]


def test_a_state_is_a_value_though_the_environment_only_goes_forward() -> None:
    task = PayTask()
    start, _ = played(task, [])
    one, _ = task.step(start, {"a": "1", "b": "1"}, random.Random(1))
    seen = task.view(one, "b")
    after, paid = task.step(one, {"b": "2"}, random.Random(2))
    other, _ = task.step(start, {"a": "3", "b": "3"}, random.Random(3))
    again, repeated = task.step(one, {"b": "2"}, random.Random(2))
    assert task.view(one, "b") == seen and again == after and repeated == paid
    assert task.view(again, "b") == task.view(after, "b") != task.view(other, "b")  # what it draws is the same
    before = random.getstate()
    task.step(start, {"a": "1", "b": "1"}, random.Random(1))
    assert random.getstate() == before


def test_an_episode_is_cut_where_the_task_says() -> None:
    task = PayTask(max_replies=2)
    state, _ = played(task, [{"a": "1", "b": "1"}, {"b": "2"}])
    assert task.actors(state) == () and task.outcome(state).metrics["truncated"] == 1.0 and task.max_turns == 2


def test_with_letters_a_model_chooses_among_them() -> None:
    task = PayTask(letters=True)
    assert task.choices == {"a": ("A", "B", "C"), "b": ("A", "B", "C")}
    state, paid = played(task, [{"a": "C", "b": "A"}, {"b": "A"}])  # A is then 2
    assert paid[0]["a"].own == 3.0 and paid[1]["b"].own == 2.0 and state.illegal == (0, 0)


class Turns:
    """AEC. `a` and `b` take turns; `a` is terminated by its second action, and `b` goes on alone for one more."""

    possible_agents = ("a", "b")

    def agent_iter(self) -> None: ...

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(3)

    def reset(self, seed: int) -> None:
        self.agents, self.said = ["a", "b"], []
        self.rewards, self.infos = {"a": 0.0, "b": 0.0}, {"a": {}, "b": {"action_mask": [0, 1, 1]}}
        self.terminations, self.truncations = dict.fromkeys("ab", False), dict.fromkeys("ab", False)
        self.agent_selection = "a"

    def observe(self, agent: str) -> list[int]:
        return self.said

    def step(self, action: int | None) -> None:
        agent = self.agent_selection
        if self.terminations[agent]:
            assert action is None
            for kept in (self.agents.remove, self.rewards.pop, self.terminations.pop, self.truncations.pop):
                kept(agent)
            self.agent_selection = (self.agents or [""])[0]
            self.rewards = dict.fromkeys(self.rewards, 0.0)
            return
        assert action is not None
        self.said.append(action)
        self.rewards = {each: float(action) if each == agent else -float(action) for each in self.agents}
        self.terminations |= {"a": len(self.said) >= 3, "b": len(self.said) == 4} if "a" in self.agents else {"b": True}
        self.agent_selection = "b" if agent == "a" and len(self.said) < 3 else "a" if "a" in self.agents else "b"


class TurnsTask(Environment):
    """Say a number in turn."""

    def make(self) -> Any:
        return Turns()


def test_in_turn_a_dead_agent_leaves_and_is_paid_what_came_before() -> None:
    task = TurnsTask()
    state, paid = played(task, [{"a": "1"}, {"b": "0"}, {"a": "2"}, {"b": "2"}])  # 0 is masked for b
    assert task.actors(state) == () and state.illegal == (0, 1) and state.made == (2, 2)
    assert [(each["a"].own, each["b"].own) for each in paid] == [(1.0, -1.0), (-1.0, 1.0), (2.0, -2.0), (0.0, 2.0)]
    assert task.outcome(state).metrics["truncated"] == 0.0
    assert check_task(task).findings == ()


class Free(PayTask):
    """Actions that are no list of moves."""

    def make(self) -> Any:
        env = Pay()
        env.action_space = lambda agent: spaces.Box(0.0, 9.0, (), float)  # type: ignore[method-assign]
        return env


class FreeRead(Free):
    """The same, with both functions."""

    def show(self, agent: str, observation: Any) -> str:
        return f"{agent}: step {observation[0]}"

    def read(self, agent: str, reply: str, moves: Sequence[int]) -> Any:
        import numpy as np

        return np.array(float(reply)) if reply.isdecimal() else None

    def instead(self, agent: str, moves: Sequence[int]) -> Any:
        return 0.0


def test_the_users_functions_show_and_read_what_is_no_list_of_moves() -> None:
    task = FreeRead()
    state, paid = played(task, [{"a": "8", "b": "10"}])  # 10 is outside
    assert [paid[0][seat].own for seat in "ab"] == [8.0, 0.0] and state.illegal == (0, 1)
    assert task.view(state, "b")[0].content == "b: step 1" and task.partners == {}
    with pytest.raises(ValueError, match="no list of moves: give `read`, and `instead`"):
        Free()
    with pytest.raises(ValueError, match="`letters` is for at most 26 moves"):
        FreeRead(letters=True)


def test_options_of_the_wrong_kind_are_refused() -> None:
    for options in ({"max_replies": 0}, {"max_replies": True}):
        with pytest.raises(ValueError, match="`max_replies` must be a whole number"):
            PayTask(**options)
    with pytest.raises(TypeError, match="PayTask option `shared` must be true or false"):
        PayTask(shared=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="split must be one of"):
        PayTask().problems("all")


def test_without_pettingzoo_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(ValueError, match="pip install 'pettingzoo==1"):
        PettingZoo()


# -- environments of PettingZoo and mpe2 -------------------------------------------------------------------------------


def test_tic_tac_toe_is_that_of_pettingzoo() -> None:
    pytest.importorskip("pettingzoo")
    task = PettingZoo()
    moves = [{"player_1": "0"}, {"player_2": "3"}, {"player_1": "1"}, {"player_2": "4"}, {"player_1": "2"}]
    state, paid = played(task, moves)
    assert task.actors(state) == () and paid[-1]["player_1"].own == 1.0 and paid[-1]["player_2"].own == -1.0
    assert not task.outcome(state).solved and task.outcome(state).metrics["truncated"] == 0.0
    part, _ = played(task, moves[:2])
    assert shown_moves(task.view(part, "player_1")[0].content) == ["1", "2", "4", "5", "6", "7", "8"]


@pytest.mark.parametrize("parallel", [False, True])
def test_rock_paper_scissors_in_turn_and_at_once(parallel: bool) -> None:
    pytest.importorskip("pettingzoo")
    task = PettingZoo(env="classic/rps-v2", env_args={"max_cycles": 2}, parallel=parallel)
    rounds = [
        {"player_0": "1", "player_1": "0"},
        {"player_0": "1", "player_1": "2"},
    ]  # paper, and what it beats, and what beats it
    if not parallel:
        rounds = [{seat: said} for both in rounds for seat, said in both.items()]
    state, paid = played(task, rounds)
    got = [each["player_0"].own for each in paid if any(reward.own for reward in each.values())]
    assert task.actors(state) == () and got == [1.0, -1.0] and state.returns == (0.0, 0.0)
    assert check_task(task).findings == ()


def test_an_environment_of_mpe2_by_its_name_pays_what_mpe2_does(monkeypatch: pytest.MonkeyPatch) -> None:
    mpe2 = pytest.importorskip("mpe2.simple_speaker_listener_v4")
    pytest.importorskip("pettingzoo")
    named: dict[str, Any] = {"env": "mpe/simple_speaker_listener_v4", "env_args": {"max_cycles": 3}, "parallel": True}
    task = PettingZoo(**named, shared=True, letters=True)
    assert task.choices == {"speaker_0": ("A", "B", "C"), "listener_0": ("A", "B", "C", "D", "E")}
    env = mpe2.parallel_env(max_cycles=3)
    state, paid = played(task, [{"speaker_0": "B", "listener_0": "C"}] * 3)
    env.reset(seed=random.Random(f"{task.game} {state.problem}").randrange(2**31))
    theirs = [env.step({"speaker_0": 1, "listener_0": 2})[1]["listener_0"] for _ in range(3)]
    assert [each["speaker_0"].team for each in paid] == pytest.approx(theirs) and sum(theirs) < 0
    for goal, solved in ((sum(theirs) - 0.1, True), (sum(theirs) + 0.1, False)):
        assert PettingZoo(**named, goal=goal).outcome(state).solved is solved
    with pytest.raises(ValueError, match=r"no parallel environment 'mpe/none'; it has .*mpe/simple_spread_v3"):
        PettingZoo(env="mpe/none", parallel=True)
    monkeypatch.setitem(sys.modules, "mpe2.all_modules", None)
    with pytest.raises(ValueError, match="pip install 'mpe2==1"):
        PettingZoo(**named)


def test_the_speaker_names_a_landmark_and_the_listener_is_paid_for_coming_nearer() -> None:
    mpe2 = pytest.importorskip("mpe2.simple_speaker_listener_v4")
    task = load_task("tasks.pettingzoo.speaker_listener:SpeakerListener", {"turns": 3, "hold": 2, "goal": 0.2})
    assert task.choices == {"speaker_0": ("A", "B", "C"), "listener_0": ("A", "B", "C", "D", "E")}
    state, paid = played(task, [])
    env = mpe2.parallel_env(max_cycles=6)
    seen, _ = env.reset(seed=random.Random(f"{task.game} {state.problem}").randrange(2**31))
    goal = int(seen["speaker_0"].argmax())
    far = [float(sum(seen["listener_0"][2 + 2 * goal : 4 + 2 * goal] ** 2) ** 0.5)]
    assert task.view(state, "speaker_0")[0].content.startswith(f"goal: {('red', 'green', 'blue')[goal]}\nYour moves:\n")
    assert task.view(state, "listener_0")[0].content.startswith("landmark: unknown\nYour moves:\nA: stay\nB: left\n")
    for _ in range(3):  # "up" is held for two steps each
        state, rewards = task.step(state, {"speaker_0": "C", "listener_0": "E"}, random.Random(0))
        paid.append(rewards)
        for _ in range(2):
            seen = env.step({"speaker_0": 2, "listener_0": 4})[0]
        far.append(float(sum(seen["listener_0"][2 + 2 * goal : 4 + 2 * goal] ** 2) ** 0.5))
        if task.actors(state):
            right, up = seen["listener_0"][6:8]
            way = ("up" if up > 0 else "down") if abs(up) > abs(right) else "right" if right > 0 else "left"
            assert task.view(state, "listener_0")[0].content.startswith(f"landmark: {way}\n")
    assert [each["speaker_0"].team for each in paid] == pytest.approx([a - b for a, b in pairwise(far)], abs=1e-6)
    assert task.actors(state) == () and task.outcome(state).solved is (far[0] - far[-1] > 0.2)
    assert check_task(task).findings == ()


@pytest.mark.parametrize("name", ["classic/tictactoe-v3", "classic/connect_four-v3"])
def test_scripted_partners_play_environments_with_masks(name: str) -> None:
    pytest.importorskip("pettingzoo")
    task = PettingZoo(env=name)
    for partner in MOVERS.values():
        rng = random.Random(0)
        state = task.start(task.problems("test")[0], rng)
        while seats := task.actors(state):
            said = {seat: partner().reply([task.view(state, seat)[-1].as_dict()], rng) for seat in seats}
            state, _ = task.step(state, said, rng)
        assert sum(state.illegal) == 0 and sum(state.returns) == 0
    assert check_task(task).findings == ()


def test_the_example_of_the_page_runs_and_pays_what_mpe2_does(tmp_path: Path) -> None:
    mpe2 = pytest.importorskip("mpe2.simple_spread_v3")
    page = (ROOT / "docs" / "tasks" / "pettingzoo.md").read_text(encoding="utf-8")
    (tmp_path / "meeting.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    task = load_task(f"{tmp_path / 'meeting.py'}:Meeting", {"steps": 4})
    assert check_task(task).findings == ()
    state = task.start(task.problems("train")[0], random.Random(0))
    env = mpe2.parallel_env(N=2, max_cycles=4, local_ratio=0.0)
    rng = random.Random(f"{task.game} {state.problem}")
    seen, _ = env.reset(seed=rng.randrange(2**31))
    for agent in env.agents:
        x, y = seen[agent][4:6]
        assert f"landmark {round(x * 10)} {round(y * 10)}" in task.view(state, agent)[0].content
    for _ in range(4):
        state, paid = task.step(state, {"agent_0": "Up!", "agent_1": "left"}, random.Random(0))
        _, theirs, _, _, _ = env.step({"agent_0": 4, "agent_1": 1})
        assert paid["agent_0"].team == paid["agent_1"].team == pytest.approx(theirs["agent_0"])
    assert task.actors(state) == () and state.illegal == (0, 0)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"env": "classic/no-v0"}, ValueError, "PettingZoo has no environment 'classic/no-v0'; it has atari/"),
        ({"env": "classic/tictactoe-v3", "parallel": True}, ValueError, "no parallel environment"),
        ({"env": "classic/rps-v2", "env_args": {"cycles": 3}}, ValueError, "cannot make classic/rps-v2: "),
        ({"env": 3}, TypeError, "pettingzoo takes `env`, a name"),
        ({"goal": "much"}, TypeError, "pettingzoo option `goal` must be a number, got 'much'"),
    ],
)
def test_what_pettingzoo_does_not_have_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    pytest.importorskip("pettingzoo")
    with pytest.raises(error, match=says):
        PettingZoo(**options)
