"""Numbers about replies, by hand."""

import math

import pytest

from llm_sra.episodes import percentiles, reported
from llm_sra.evaluation.records import reply_numbers
from llm_sra.evaluation.store import EpisodeRecord
from llm_sra.task import Episode, Outcome, Problem, Reply, Turn


def said(*replies: tuple[str, str, tuple[float, ...]]) -> EpisodeRecord:
    """An episode of seat, text and log-probabilities."""
    turns = tuple(
        Turn(seat, f"{seat}'s", step, (), (), Reply(text, tuple(range(len(logprobs))), logprobs))
        for step, (seat, text, logprobs) in enumerate(replies)
    )
    policies = {seat: f"{seat}'s" for seat in ("model", "script")}
    rewards = {seat: () for seat in policies}
    return EpisodeRecord.of(Episode(Problem("p", None), "match", 0, policies, turns, rewards, Outcome(True)))


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
