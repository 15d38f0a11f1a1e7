"""Episodes are kept as they end: what a kill leaves, how many are played at a time, and how far it is."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from evaluation_support import SHORT, roster
from partners_support import APPLE, PEAR
from support import Says, Talk, Toy, make_run

import llm_sra.evaluation.progress
from llm_sra import evaluate
from llm_sra.episodes import EpisodeRecord
from llm_sra.errors import TaskError
from llm_sra.evaluation.play_missing import Pace
from llm_sra.evaluation.progress import Progress
from llm_sra.files import JsonLinesFile, parse_line, to_json
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Scripted
from llm_sra.task import Episode, Outcome


class Uneven(Toy):
    """An episode has as many turns as its word has letters."""

    def actors(self, state: Talk) -> tuple[str, ...]:
        return () if len(state.said) >= len(state.word) else (self.seats[len(state.said) % 2],)


def test_play_hands_over_each_episode_after_the_turn_that_ended_it() -> None:
    policy = Scripted("says", Says("hm"))
    match = Match("m", {"left": policy, "right": policy})
    happened: list[str | dict[int, str]] = []

    def on_ended(ended: Mapping[int, Episode]) -> None:
        happened.append({place: episode.problem.id for place, episode in ended.items()})

    specs = [EpisodeSpec(problem, match) for problem in (APPLE, PEAR, APPLE)]
    episodes = play(Uneven(), specs, {}, seed=0, on_turn=lambda turn: happened.append(turn.seat), on_ended=on_ended)
    assert [episode.problem.id for episode in episodes] == ["apple", "pear", "apple"]
    turns = ["left"] * 3 + ["right"] * 3
    assert happened == [*turns, *turns, {1: "pear"}, "left", "left", {0: "apple", 2: "apple"}]


INTERRUPTED = """class Stops:
    left = {left}

    def reply(self, messages, rng):
        Stops.left -= 1
        if Stops.left < 0:
            raise KeyboardInterrupt
        return "pass"
"""


@pytest.mark.parametrize(("replies", "kept"), [(12, 8), (11, 0)])
def test_an_evaluation_that_is_interrupted_within_minutes_has_kept_its_first_episodes(
    tmp_path: Path, replies: int, kept: int
) -> None:
    # Eight episodes are played first: four of self-play, and four with the partner, who speaks three times in each.
    run = make_run(tmp_path / "study" / "one", **SHORT)
    (tmp_path / "stops.py").write_text(INTERRUPTED.format(left=replies))
    path = roster(tmp_path, "name: stops, kind: scripted, policy: 'stops.py:Stops'")
    with pytest.raises(KeyboardInterrupt):
        evaluate([run], path, tmp_path / "out", problems=4, decodings=["greedy"], trust_scripts=True)
    lines = (tmp_path / "out" / "store" / "process-0.jsonl").read_text().splitlines()
    assert len(lines) == kept


def sizes(pace: Pace, *seconds: float) -> list[int]:
    found = []
    for one in seconds:
        found.append(pace.size)
        pace.took(one)
    return [*found, pace.size]


def test_chunks_double_while_they_are_quick_up_to_the_largest() -> None:
    assert sizes(Pace(8, 100), 1, 1, 1, 1, 1) == [8, 16, 32, 64, 100, 100]
    assert sizes(Pace(8, 5), 1, 1) == [5, 5, 5]


def test_slow_chunks_double_only_where_twice_as_many_take_hardly_longer() -> None:
    # 8 in 40 s are 0.2 a second, 16 in 80 s as many: it does not pay, so that 8 it stays.
    assert sizes(Pace(8, 1024), 40, 80, 40, 40) == [8, 16, 8, 8, 8]
    # 8 in 300 s, 16 in 310 s, 32 in 330 s: nearly twice as many a second each time. 64 in 700 s are no more than 32.
    assert sizes(Pace(8, 1024), 300, 310, 330, 700, 330) == [8, 16, 32, 64, 32, 32]
    assert sizes(Pace(8, 1024), 40, 80, 5, 5) == [8, 16, 8, 16, 32]  # what comes then is quick again


def test_without_a_terminal_a_line_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llm_sra.evaluation.progress.LINE_SECONDS == 60
    monkeypatch.setattr(llm_sra.evaluation.progress, "LINE_SECONDS", 0.05)
    with Progress(8, 2, "episodes", None) as progress:
        progress.add(2)
        time.sleep(0.3)  # nothing ends meanwhile, and it is said all the same
    lines = capsys.readouterr().err.splitlines()
    assert 1 < len(lines) <= 6
    assert set(lines) == {"episodes: 4 of 8 (50 %) after 0 min, about 0 min left"}
    with Progress(8, 2, "episodes", True):
        time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_the_time_that_is_left_counts_what_was_played_now_and_what_is_still_wanted() -> None:
    progress = Progress(1024, 100, "episodes", None)
    assert progress._line(60) == "episodes: 100 of 1024 (10 %) after 1 min"
    progress.add(220)
    # 220 in 720 s; 704 more take 2304 s.
    assert progress._line(720) == "episodes: 320 of 1024 (31 %) after 12 min, about 38 min left"
    progress.limit(540)
    assert progress._line(720) == "episodes: 320 of 540 (59 %) after 12 min, about 12 min left"


class Undefined(Toy):
    """A task whose number is not one."""

    def outcome(self, state: Talk) -> Outcome:
        return Outcome(False, {"left": 0.0, "right": 0.0}, metrics={"ratio": float("nan")})


def test_a_tasks_number_that_is_not_finite_is_refused_by_its_name_and_no_results_are_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "one", task=f"{__file__}:Undefined", **SHORT)
    path = roster(tmp_path)
    with pytest.raises(TaskError, match=r"ratio.* is nan"):
        evaluate([run], path, tmp_path / "out", problems=2, decodings=["greedy"])
    assert not (tmp_path / "out" / "results.json").exists()
    assert not (tmp_path / "out" / "store").exists()  # it was refused before anything was played


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"records": [{"metrics": {"a": 1.0, "b": float("inf")}}]}, "records.0.metrics.b is inf"),
        ([1, (2, float("nan"))], "1.1 is nan"),
        (float("-inf"), "the value is -inf"),
    ],
    ids=["results", "list", "number"],
)
def test_json_is_valid_or_the_number_is_named(value: object, place: str) -> None:
    with pytest.raises(ValueError, match=f"^{place}: expected a finite number"):
        to_json(value)
    assert json.loads(to_json({"b": [1.5, None, "NaN"]})) == {"b": [1.5, None, "NaN"]}


def test_a_line_is_read_the_same_with_and_without_its_checksum(tmp_path: Path) -> None:
    line = {"problem": "p", "solved": True, "turns": [], "text": 'a", "crc32": "00000000"}'}
    file = JsonLinesFile(tmp_path / "lines.jsonl")
    file.append([line])
    file.close()
    written = (tmp_path / "lines.jsonl").read_bytes()
    assert b'"crc32": "' in written and parse_line(written) == parse_line(written.decode()) == line
    assert parse_line(to_json(line)) == line
    assert EpisodeRecord.read(line).solved
