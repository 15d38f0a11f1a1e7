"""Episodes as they are kept: what a line holds, that lines of earlier versions are read, and numbers about replies."""

import json
import math
from pathlib import Path

import pytest

from llm_sra.episodes import EpisodeRecord, TurnRecord, read_training_episodes, write_training_episodes
from llm_sra.episodes.reply_numbers import percentiles, reported
from llm_sra.evaluation.records import EvaluatedEpisode, reply_numbers
from llm_sra.task import Episode, Outcome, Problem, Reply, Reward, Turn


def said(*replies: tuple[str, str, tuple[float, ...]]) -> EpisodeRecord:
    """An episode of seat, text and log-probabilities."""
    turns = tuple(
        Turn(seat, f"{seat}'s", step, (), (), Reply(text, tuple(range(len(logprobs))), logprobs))
        for step, (seat, text, logprobs) in enumerate(replies)
    )
    policies = {seat: f"{seat}'s" for seat in ("model", "script")}
    rewards = {seat: () for seat in policies}
    return EpisodeRecord.of(Episode(Problem("p", None), "match", 0, policies, turns, rewards, Outcome(True)))


PLAYED = Episode(
    Problem("1+2", 1),
    "adversary-of-first",
    2,
    {"first": "agent", "second": "lazy"},
    (Turn("first", "agent", 0, (), (1, 2, 3), Reply("1+2=3", (7, 8), (-0.5, -0.25001), "length")),),
    {"first": (Reward(1.0, 0.5, 0.1),), "second": (Reward(1.0),)},
    Outcome(True, {"first": 1}, {"x": 2}),
)
LINE = {
    "problem": "1+2",
    "match": "adversary-of-first",
    "index": 2,
    "policies": {"first": "agent", "second": "lazy"},
    "turns": [
        {"seat": "first", "step": 0, "text": "1+2=3", "finish": "length", "tokens": 2, "mean_logprob": -0.375}
    ],  # (-0.5 - 0.25001) / 2, four digits
    "rewards": {"first": [[1.0, 0.5, 0.1]], "second": [[1.0, 0.0, 0.0]]},
    "returns": {"first": 1.4, "second": 1.0},
    "solved": True,
    "effort": {"first": 1},
    "metrics": {"x": 2.0},
}


# -- one form --------------------------------------------------------------------------------------------------------


def test_an_episode_is_kept_with_its_words_rewards_and_mean_log_probabilities() -> None:
    played = EpisodeRecord.of(PLAYED)
    assert played.line() == LINE
    assert played.turns == (TurnRecord("first", 0, "1+2=3", "length", 2, -0.375),)
    shown = EpisodeRecord.of(PLAYED, widths=[(3, 2)], more_metrics={"y": 3})
    assert shown.turns == (TurnRecord("first", 0, "1+2=3", "length", 2, -0.375, (-0.5, -0.25), (3, 2)),)
    assert shown.metrics == {"x": 2.0, "y": 3.0}
    assert EpisodeRecord.read(json.loads(json.dumps(shown.line()))) == shown
    assert (played.total("first"), played.team_reward("first")) == (1.4, 1.0)
    assert (played.total("first"), played.team_reward("first")) == (PLAYED.total("first"), PLAYED.team_reward("first"))


def test_trainings_and_evaluations_write_the_same_line_and_add_what_they_alone_know(tmp_path: Path) -> None:
    write_training_episodes(tmp_path, [PLAYED, PLAYED], step=7, per_match=1)
    [line] = (tmp_path / "step-000007.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 7, **LINE}
    assert EpisodeRecord.read(json.loads(line)) == EpisodeRecord.of(PLAYED, step=7)
    whose = {"run": "study/one", "arm": "srpo", "seat": "first", "partner": "lazy", "decoding": "sampled"}
    evaluated = EvaluatedEpisode(*whose.values(), EpisodeRecord.of(PLAYED))
    assert evaluated.line() == {**whose, **LINE}
    assert EvaluatedEpisode.read(json.loads(json.dumps(evaluated.line()))) == evaluated


@pytest.mark.parametrize("line", [{}, {**LINE, "turns": [3]}, {**LINE, "rewards": 3}, {"problem": "p", "solved": True}])
def test_a_line_that_holds_no_episode_is_an_error(line: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="holds no episode"):
        EpisodeRecord.read(line)


def test_a_damaged_line_of_a_training_is_named(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.jsonl"
    path.write_text(json.dumps(LINE) + '\n{"step": 1, "pro')
    with pytest.raises(ValueError, match=r"step-000001\.jsonl, line 2: a line holds no episode"):
        list(read_training_episodes(path))


# -- lines of earlier versions ---------------------------------------------------------------------------------------


def test_a_store_of_an_earlier_version_is_read_with_tokens_and_without() -> None:
    head = (
        '{"key": "a0", "problem": "1+2", "players": {"first": "one:first"}, "solved": true, "effort": {"first": 2.0}, '
    )
    tail = '"metrics": {"x": 2.0}, "rewards": {"first": [[1.0, 0.0, 0.1]]}}'
    turns = '"turns": [["first", 0, "1+2=3", 6, -0.0047, "stop", [-0.01, 0.0], [5, 0]]], '
    before = '"turns": [["first", 0, "1+2=3", 6, -0.0047, "stop"]], '
    expected = EpisodeRecord(
        problem="1+2",
        policies={"first": "one:first"},
        solved=True,
        effort={"first": 2},
        metrics={"x": 2.0},
        turns=(TurnRecord("first", 0, "1+2=3", "stop", 6, -0.0047, (-0.01, 0.0), (5, 0)),),
        rewards={"first": (Reward(1.0, 0.0, 0.1),)},
    )
    assert EpisodeRecord.read(json.loads(head + turns + tail)) == expected
    [turn] = EpisodeRecord.read(json.loads(head + before + tail)).turns
    assert turn == TurnRecord("first", 0, "1+2=3", "stop", 6, -0.0047)


def test_a_training_of_an_earlier_version_is_read_and_its_sums_of_log_probabilities_become_means() -> None:
    line = (
        '{"step": 1, "problem": "6+5", "match": "adversary-of-first", "index": 3, "policies": {"first": "first", '
        '"second": "adversary-of-first"}, "turns": [{"seat": "first", "step": 0, "text": "pass", "finish": "stop", '
        '"tokens": 2, "logprob": -0.7988}, {"seat": "second", "step": 1, "text": "", "finish": "context", "tokens": 0, '
        '"logprob": 0}], "rewards": {"first": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], "second": [[0.0, 0.0, 0.0], '
        '[1.0, 0.0, 0.25]]}, "returns": {"first": 1.0, "second": 0.75}, "solved": true, "effort": {"first": 0.0, '
        '"second": 1.0}, "metrics": {}}'
    )
    read = EpisodeRecord.read(json.loads(line))
    assert (read.step, read.match, read.index) == (1, "adversary-of-first", 3)
    assert read.policies == {"first": "first", "second": "adversary-of-first"}
    assert read.turns == (
        TurnRecord("first", 0, "pass", "stop", 2, -0.3994),  # -0.7988 / 2
        TurnRecord("second", 1, "", "context"),
    )
    assert read.returns == {"first": 1.0, "second": 0.75}


def test_an_evaluation_of_an_earlier_version_is_read_also_from_before_rewards_and_tokens_were_kept() -> None:
    whose = '{"run": "q/ippo", "arm": "ippo", "seat": "first", "partner": "lazy", "decoding": "greedy", '
    first = whose + '"problem": "1+2", "solved": false, "own_return": 0.75, "effort": {"first": 1.0}, '
    said = '"metrics": {"x": 1.0}, "said": [["first", "1+2=4"], ["second", "pass"]]'
    later = (
        ', "steps": [0, 1], "tokens": [6, 0], "logprobs": [-0.0047, null], "token_logprobs": [[-0.01, 0.0], []], '
        '"token_widths": [[5, 0], []], "rewards": {"first": [[0.0, 0.0, 0.25], [1.0, 0.0, 0.0]], "second": '
        "[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]}"
    )
    read = EvaluatedEpisode.read(json.loads(first + said + later + "}"))
    assert read.key == ("q/ippo", "first", "lazy", "greedy") and read.arm == "ippo"
    assert read.episode.turns == (
        TurnRecord("first", 0, "1+2=4", "", 6, -0.0047, (-0.01, 0.0), (5, 0)),
        TurnRecord("second", 1, "pass", ""),
    )
    assert read.episode.returns == {"first": 0.75, "second": 1.0}
    assert (read.episode.solved, read.episode.metrics) == (False, {"x": 1.0})
    oldest = EvaluatedEpisode.read(json.loads(first + said + "}")).episode
    assert oldest.turns == (TurnRecord("first", 0, "1+2=4", ""), TurnRecord("second", 0, "pass", ""))
    assert oldest.returns == {"first": 0.75} and not oldest.rewards
    assert EpisodeRecord.read(json.loads(json.dumps(oldest.line()))) == oldest  # written anew, it is read alike


# -- numbers about replies -------------------------------------------------------------------------------------------


def test_lengths_and_surprise_are_told_by_seat_and_by_turn() -> None:
    half, quarter = math.log(0.5), math.log(0.25)
    numbers = reply_numbers(
        [
            said(("model", "ab", (half, half)), ("script", "x" * 10, ()), ("model", "abcd", (quarter, quarter))),
            said(("model", "abcdef", (half, quarter)), ("script", "x" * 20, ())),
        ]
    )
    assert numbers["reply_chars/model_p50"] == 4  # of 2, 4, 6
    assert numbers["reply_chars/0/model_p50"] == 4 and numbers["reply_chars/1/model_p50"] == 4
    assert numbers["reply_chars/0/model_p95"] == pytest.approx(5.8)  # 2 + 0.95 * (6 - 2)
    assert numbers["reply_chars/0/script_p50"] == 15
    assert numbers["surprise/0/model"] == pytest.approx(1.25 * math.log(2), abs=1e-4)  # per token: 1, 1, 1 and 2 bits
    assert numbers["surprise/1/model"] == pytest.approx(2 * math.log(2), abs=1e-4)
    assert numbers["surprise/model"] == pytest.approx(1.5 * math.log(2), abs=1e-4)
    assert not any("surprise" in name and "script" in name for name in numbers)  # it has no probabilities


def test_of_a_long_walk_the_first_turns_alone_are_told_one_by_one() -> None:
    numbers = reply_numbers([said(*[("model", "up", ())] * 50)])
    assert {name.split("/")[1] for name in numbers if name.count("/") == 2} == {str(turn) for turn in range(8)}
    assert reported([9, -1, 3, 0, 3]) == [0, 3]


def test_percentiles_have_the_names_that_logs_use() -> None:
    assert percentiles({"a": [1.0, 3.0]}) == {"a_p50": 2.0, "a_p95": pytest.approx(2.9)}
