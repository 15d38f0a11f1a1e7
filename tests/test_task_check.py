"""A user's task that breaks the protocol: the file, the line, what came and what was expected, before anything runs."""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT, Says, Talk, Toy

from llm_sra.errors import TaskError
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, PolicyError, Scripted
from llm_sra.protocol.check import check_task, require_task, unpaid
from llm_sra.registry import load_task, shipped_tasks
from llm_sra.task import Episode, Message, Outcome, Problem, Reward, Task
from recipes.cli import main

HERE = Path(__file__).name
OPTIONS: dict[str, dict[str, Any]] = {}
EXTRAS = {"openspiel": "pyspiel", "pettingzoo": "pettingzoo", "tag": "mpe2", "textarena": "textarena"}
APPLE = Problem("apple", {"word": "apple"})


def toy(method: str, body: Callable[..., Any], **attributes: Any) -> Task:
    """`Toy` with one method replaced."""
    return type("Mine", (Toy,), {method: body, **attributes})()


def played(task: Task) -> Episode:
    match = Match("m", {seat: Scripted("parrot", Says("hm")) for seat in task.seats})
    [episode] = play(task, [EpisodeSpec(APPLE, match)], {}, seed=0)
    return episode


def paying(**reward: Any) -> Callable[..., Any]:
    """A `step` that pays the left seat this."""
    return lambda self, state, replies, rng: (Toy.step(self, state, replies, rng)[0], {"left": Reward(**reward)})


def ending(**outcome: Any) -> Callable[..., Any]:
    return lambda self, state: Outcome(**{"solved": True, **outcome})


def raises(error: Exception) -> Callable[..., Any]:
    def body(self: Any, *args: Any) -> Any:
        raise error

    return body


def broken_generator(self: Any, state: Any, seat: str) -> Iterator[Message]:
    yield Message("user", "hm")
    raise KeyError("board")


NAN, INFINITY = float("nan"), float("inf")
BROKEN: dict[str, tuple[str, Callable[..., Any], str]] = {
    # The inputs of the issue, and relatives of each.
    "actors a name": ("actors", lambda self, state: "left", r"returned 'left' \(a str\).*comma"),
    "actors a letter": ("actors", lambda self, state: "p", r"returned 'p' \(a str\)"),
    "actors nothing": ("actors", lambda self, state: None, r"returned None"),
    "actors a set": ("actors", lambda self, state: {"left"}, r"\(a set\)"),
    "actors a stranger": ("actors", lambda self, state: ("planner",), r"named 'planner'.*the seats are left, right"),
    "actors a number": ("actors", lambda self, state: (0,), r"named 0"),
    "actors one twice": ("actors", lambda self, state: ("left", "left"), "named a seat twice"),
    "actors raises": ("actors", raises(KeyError("p")), r"KeyError: 'p', at step 0 of problem 'apple'"),
    "view a text": (
        "view",
        lambda self, state, seat: "word: apple",
        r"returned 'word: apple' \(a str\), for seat 'left'",
    ),
    "view texts": ("view", lambda self, state, seat: ["word"], r"a list that holds 'word'"),
    "view dicts": ("view", lambda self, state, seat: [{"role": "user", "content": ""}], r"holds \{'role'"),
    "view a dict": ("view", lambda self, state, seat: {}, r"\(a dict\)"),
    "view nothing": ("view", lambda self, state, seat: [], "is empty"),
    "view ends with own": ("view", lambda self, state, seat: [Message("assistant", "hm")], "role 'assistant'"),
    "view another role": ("view", lambda self, state, seat: [Message("tool", "hm")], "roles are system, user"),  # type: ignore[arg-type]
    "view no text": ("view", lambda self, state, seat: [Message("user", None)], "content=None"),  # type: ignore[arg-type]
    "view breaks off": ("view", broken_generator, r"KeyError: 'board', for seat 'left'"),
    "step floats": (
        "step",
        lambda self, state, replies, rng: (state, {"left": 1.0}),
        r"pays seat 'left' 1.0 \(a float\)",
    ),
    "step one float": (
        "step",
        lambda self, state, replies, rng: (state, 1.0),
        r"returned 1.0 \(a float\) as the rewards",
    ),
    "step a bare state": ("step", lambda self, state, replies, rng: state, r"returned Talk"),
    "step nothing": ("step", lambda self, state, replies, rng: None, r"returned None"),
    "step three": ("step", lambda self, state, replies, rng: (state, {}, True), r"\(a tuple\)"),
    "step a stranger": ("step", lambda self, state, replies, rng: (state, {"planner": Reward()}), r"pays 'planner'"),
    "step raises": ("step", raises(ValueError("no number in 'hm'")), r"ValueError: no number in 'hm', at step 0"),
    "step a negative cost": ("step", paying(cost=-0.5), r"cost=-0.5: a cost is 0 or more"),
    "step nan": ("step", paying(team=NAN), r"says team of seat 'left' is nan.*at step 0 of problem 'apple'"),
    "step infinity": ("step", paying(own=-INFINITY), r"own of seat 'left' is -inf: expected a finite number"),
    "step numpy's nan": ("step", paying(cost=np.float32("nan")), r"cost of seat 'left' is nan"),
    "step a tensor of nan": ("step", paying(team=torch.tensor(NAN)), r"team of seat 'left' is nan"),
    "step text": ("step", paying(team="1"), r"team of seat 'left' is '1' \(a str\): expected a number"),
    "outcome bool": ("outcome", lambda self, state: True, r"returned True \(a bool\)"),
    "outcome nothing": ("outcome", lambda self, state: None, r"returned None"),
    "outcome text": ("outcome", ending(solved="no"), r"solved='no'"),
    "outcome one effort": ("outcome", ending(effort=3.0), r"effort=3.0"),
    "outcome a stranger's effort": ("outcome", ending(effort={"planner": 1.0}), "planner"),
    "outcome negative effort": ("outcome", ending(effort={"left": -1.0}), "0 or more"),
    "outcome nan": ("outcome", ending(metrics={"score": NAN}), r"metric 'score' is nan.*Leave out what has no value"),
    "outcome text metric": ("outcome", ending(metrics={"score": "high"}), r"metric 'score' is 'high'"),
    "start raises": ("start", raises(KeyError("board")), r"KeyError: 'board', at problem 'apple'"),
}


@pytest.mark.parametrize(("method", "body", "complaint"), BROKEN.values(), ids=BROKEN)
def test_a_task_that_breaks_the_protocol_is_named_with_file_line_and_what_is_wanted(
    method: str, body: Callable[..., Any], complaint: str
) -> None:
    with pytest.raises(TaskError, match=complaint) as caught:
        played(toy(method, body))
    place, wanted = rf"tests/{HERE}:\d+, in ", f"`{method}("
    assert wanted in str(caught.value) and re.match(place, str(caught.value)), caught.value
    findings = [finding for finding in check_task(toy(method, body)).findings if finding.breaks]
    assert len(findings) == 1 and findings[0].text.startswith(f"tests/{HERE}:")
    with pytest.raises(TaskError):
        require_task(toy(method, body))


def test_the_line_of_an_error_is_the_users_even_below_a_library(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import json\nfrom support import Toy\n\n\ndef parsed(text):\n    return json.loads(text)\n\n\n"
        "class Mine(Toy):\n    def step(self, state, replies, rng):\n        return parsed('{'), {}\n"
    )
    with pytest.raises(TaskError, match=rf"^{file}:6, in parsed: JSONDecodeError: .*at step 0 of problem 'apple'"):
        played(load_task(f"{file}:Mine"))


@pytest.mark.parametrize(
    ("problems", "complaint"),
    [
        ([1, 2], r"holds 1 \(a int\)"),
        (["apple"], r"holds 'apple' \(a str\)"),
        ([{"id": "a"}], r"holds \{'id'"),
        ("apple", r"returned 'apple' \(a str\)"),
        (None, r"returned None"),
        ([Problem(1, {})], r"id is 1 \(a int\)"),  # type: ignore[arg-type]
        ([Problem("a", {}), Problem("b", {}), Problem("a", {})], r"returned 2 problems with the id 'a'"),
        ([], r"no problem of split 'train'"),
    ],
)
def test_problems_that_are_none_are_named(problems: Any, complaint: str) -> None:
    with pytest.raises(TaskError, match=rf"tests/{HERE}:\d+.*{complaint}"):
        require_task(toy("problems", lambda self, split, count=None, seed=0: problems))


def by_split(problems: Callable[[str], list[Problem]]) -> Task:
    return toy("problems", lambda self, split, count=None, seed=0: problems(split))


AB = ("a", "b")
OVERLAPS = {
    "the same": (lambda split: [Problem(word, {"word": word}) for word in AB], "2 of the first 2 .*: 'a', 'b'\\. No"),
    "the same under other ids": (
        lambda split: [Problem(f"{split}/{word}", {"word": word}) for word in AB],
        r"2 of the first 2 .*: '\w+/a' \(as '\w+/a'\), '\w+/b' \(as '\w+/b'\)\. No",
    ),
    "one id": (lambda split: [Problem("only", {"word": split})], r"1 of the first 1 .*: 'only'\. No"),
    "some": (
        lambda split: [Problem(f"{split}/{word}", {"word": word}) for word in ("a", split)],
        r"1 of the first 2 .*: '\w+/a' \(as '\w+/a'\)\. No",
    ),
    "many": (
        lambda split: [Problem(str(number), {"word": str(number)}) for number in range(70)],
        r"70 of the first 70 .*: '0', '1', '2' \.\.\.\. No",
    ),
}


@pytest.mark.parametrize(("problems", "found"), OVERLAPS.values(), ids=OVERLAPS)
def test_problems_in_two_splits_break_a_task_that_can_be_played_all_the_same(
    problems: Callable[[str], list[Problem]], found: str, caplog: pytest.LogCaptureFixture
) -> None:
    findings = check_task(by_split(problems)).findings
    assert [(finding.breaks, finding.plays) for finding in findings] == 3 * [(True, True)]
    for finding, (one, other) in zip(findings, combinations(("train", "dev", "test"), 2), strict=True):
        assert re.search(rf"of split '{one}' in split '{other}' again: ", finding.text)
        assert re.search(found, finding.text)
    require_task(by_split(problems))
    assert [record.getMessage() for record in caplog.records] == [finding.text for finding in findings]


def test_a_problem_of_training_far_behind_in_the_test_split_is_found() -> None:
    def problems(split: str) -> list[Problem]:
        words = {"train": ["5"], "dev": [], "test": [*map(str, range(10, 300)), "5"]}[split]
        return [Problem(f"{split}/{word}", {"word": word}) for word in words]

    [finding] = check_task(by_split(problems)).findings
    assert "1 of the first 1 problems of split 'train' in split 'test' again: 'train/5' (as 'test/5')" in finding.text


def test_one_game_that_every_split_plays_under_ids_of_its_own_is_no_overlap() -> None:
    game = by_split(lambda split: [Problem(f"{split}/{number}", {"word": "apple"}) for number in range(4)])
    assert check_task(game).findings == ()


def test_the_command_says_wrong_of_an_overlap_shows_the_partners_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starter = (ROOT / "recipes" / "starter_task.py").read_text()
    (tmp_path / "mine.py").write_text(starter.replace('"test": range(85, 100)', '"test": range(60, 100)'))
    assert main(["check", f"{tmp_path}/mine.py:Proofread"]) == 2
    shown = capsys.readouterr()
    wrong = [line for line in shown.out.splitlines() if line.startswith("wrong: ")]
    assert len(wrong) == 2 and f"{tmp_path}/mine.py:" in wrong[0]
    assert "10 of the first 70 problems of split 'train' in split 'test' again: 'page-" in wrong[0]
    assert "15 of the first 15 problems of split 'dev' in split 'test' again: 'page-" in wrong[1]
    assert "partner in all seats" in shown.out and "breaks the protocol in 2 things, listed above" in shown.err


def test_problems_that_differ_when_asked_again_break_a_task() -> None:
    generator = random.Random(0)
    with pytest.raises(TaskError, match="other problems when asked again"):
        require_task(
            by_split(lambda split: [Problem(f"{split}/{n}", {"word": n}) for n in generator.sample(range(9**9), 3)])
        )


class Listed(Toy):
    """Its state is a list, to which replies are added in place if `appends`."""

    appends = True

    def start(self, problem: Problem, rng: random.Random) -> Any:
        return []

    def actors(self, state: Any) -> tuple[str, ...]:
        return () if len(state) == 4 else (self.seats[len(state) % 2],)

    def view(self, state: Any, seat: str) -> list[Message]:
        return [Message("user", f"said: {state}")]

    def step(self, state: Any, replies: Mapping[str, str], rng: random.Random) -> Any:
        [text] = replies.values()
        if self.appends:
            state.append(text)
            return state, {seat: Reward(team=1) for seat in self.seats}
        return [*state, text], {seat: Reward(team=1) for seat in self.seats}

    def outcome(self, state: Any) -> Outcome:
        return Outcome(True)


class Kept(Listed):
    """The same within an object without equality."""

    def start(self, problem: Problem, rng: random.Random) -> Any:
        return Box()

    def actors(self, state: Any) -> tuple[str, ...]:
        return super().actors(state.said)

    def view(self, state: Any, seat: str) -> list[Message]:
        return super().view(state.said, seat)

    def step(self, state: Any, replies: Mapping[str, str], rng: random.Random) -> Any:
        state.said.extend(replies.values())
        return state, {seat: Reward(team=1) for seat in self.seats}


class Box:
    def __init__(self) -> None:
        self.said: list[str] = []


def shuffled(self: Any, problem: Problem, rng: random.Random) -> Talk:
    problem.data["seen"] = problem.data.get("seen", 0) + 1
    return Talk(problem.data["word"])


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        (Listed(), r"in step changed the state in place \(a list\), at step 0"),
        (Kept(), r"in step changed the state in place \(a Box\)"),
        (toy("start", shuffled), r"in start changed the problem's data in place \(a dict\)"),
    ],
)
def test_what_is_changed_in_place_breaks_a_task(task: Task, complaint: str) -> None:
    with pytest.raises(TaskError, match=rf"^tests/{HERE}:\d+, {complaint}.*return a new one"):
        require_task(task)


def test_a_list_as_a_state_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    require_task(type("Copied", (Listed,), {"appends": False})())
    assert [record.getMessage().split(", at ")[0].split(", in ")[1] for record in caplog.records] == [
        "start returned a state that is a list"
    ]


def test_an_episode_that_differs_for_the_same_seed_breaks_a_task() -> None:
    generator = random.Random(0)
    task = toy("view", lambda self, state, seat: [Message("user", str(generator.random()))])
    with pytest.raises(TaskError, match=r"seat 'left' saw another text .* with the same seed"):
        require_task(task)
    task = toy("outcome", lambda self, state: Outcome(True, metrics={"time": generator.random()}))
    with pytest.raises(TaskError, match="other rewards or another outcome"):
        require_task(task)


def test_a_seat_that_is_never_paid_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    require_task(toy("step", paying(team=1.0)))
    assert "paid seat 'right' nothing in any of 1 episodes (left in 1)" in caplog.text
    task = Toy()
    assert unpaid(task, [{"left": 0.0, "right": 0.0}] * 3) is None  # nobody was paid: that says nothing
    assert unpaid(task, [{"left": 1.0, "right": 0.0}, {"left": 0.0, "right": -0.5}]) is None
    finding = unpaid(task, [{"left": 1.0}, {"left": 0.0}, {"left": 2.0, "right": 0.0}])
    assert finding is not None and not finding.breaks and "any of 3 episodes (left in 2)" in finding.text


def test_an_episode_without_an_end_is_an_error_and_no_hang() -> None:
    endless = toy("actors", lambda self, state: ("left",), max_turns=7)
    with pytest.raises(TaskError, match=r"does not end: seat 'left' has spoken 7 times .* at step 7 .*max_turns"):
        played(endless)
    with pytest.raises(TaskError, match="has spoken 7 times"):
        require_task(endless)
    with pytest.raises(TaskError, match="has spoken 1000 times"):
        played(toy("actors", lambda self, state: ("left",)))
    assert len(played(type("Exact", (Toy,), {"max_turns": 2})()).turns) == 4  # two of each seat: the most there may be


def test_numbers_of_numpy_and_torch_are_kept_as_pythons() -> None:
    episode = played(toy("step", paying(team=np.float32(0.5), own=torch.tensor(1.0), cost=np.int64(2))))
    assert episode.rewards["left"][0] == Reward(0.5, 1.0, 2)
    assert {type(number) for number in (episode.rewards["left"][0].team, episode.rewards["left"][0].own)} == {float}
    outcome = played(toy("outcome", ending(solved=np.bool_(False), metrics={"x": np.float64(3)}))).outcome
    assert outcome == Outcome(False, {}, {"x": 3.0}) and outcome.solved is False


@pytest.mark.parametrize("share", [None, 1.5, -0.1])
def test_a_headline_is_a_share_that_every_episode_has(share: float | None) -> None:
    task = toy("outcome", ending(metrics={} if share is None else {"score": share}), headline="score")
    with pytest.raises(TaskError, match=r"metric 'score', the task's headline, .* expected a share"):
        played(task)


@pytest.mark.parametrize("name", sorted(set(shipped_tasks()) - {"gsm8k"}))  # whose problems are downloaded
def test_tasks_that_ship_keep_to_the_protocol(name: str) -> None:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    check = check_task(load_task(name, OPTIONS.get(name)))
    assert check.findings == () and check.trials and all(trial.turns for trial in check.trials)


class Raises:
    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return {}["plan"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("partner", "complaint"),
    [
        (Raises(), rf"KeyError\('plan'\), at tests/{HERE}:\d+, in reply.*must return a str"),
        (Says(7), r"must return a string, got int 7, at tests/support.py:\d+, in reply"),  # type: ignore[arg-type]
        (Says(["hm"]), r"got list \['hm'\], at tests/support.py"),  # type: ignore[arg-type]
    ],
)
def test_an_error_in_a_scripted_partner_is_named_with_file_and_line(partner: Any, complaint: str) -> None:
    match = Match("m", {"left": Scripted("parrot", partner), "right": Scripted("parrot", Says("hm"))})
    with pytest.raises(PolicyError, match=complaint):
        play(Toy(), [EpisodeSpec(APPLE, match)], {}, seed=0)
