"""Evaluation: who meets whom, on which problems, how it is counted, and what is left on disk."""

import errno
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluation_support import SHORT, pick, roster, said, scripted
from support import (
    make_run,
    qwen2_folder,
)

import llm_sra.evaluation.play_missing
from llm_sra import evaluate
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import read_episodes
from llm_sra.playing import EpisodeSpec, play
from llm_sra.runs import Run
from llm_sra.task import Episode, Task
from tasks.worksheet import Worksheet

FIELDS = (
    "run",
    "arm",
    "seat",
    "partner",
    "decoding",
    "n",
    "solve_rate",
    "solve_rate_ci95",
    "team_reward",
    "own_return",
    "effort_own",
    "effort_partner",
    "metrics",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents on the worksheet that write nonsense."""
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", **SHORT)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "two", seed=1, arm="srpo", **SHORT)


@pytest.fixture(scope="module")
def evaluated(run: Run, other: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Path]:
    """Both runs with three scripted partners on four problems."""
    folder = tmp_path_factory.mktemp("evaluated")
    path = roster(folder, *scripted("diligent", "lazy", "half"))
    return evaluate([run, other.path], path, folder / "out", problems=4), folder / "out"


def test_there_is_one_record_per_run_seat_partner_and_decoding(evaluated: tuple[list[Record], Path]) -> None:
    cells = [(r.run, r.arm, r.seat, r.partner, r.decoding) for r in evaluated[0]]
    expected = {
        (name, arm, seat, partner, decoding)
        for name, arm in (("study/one", "ippo"), ("study/two", "srpo"))
        for seat in ("first", "second")
        for partner in ("self-play", "diligent", "lazy", "half")
        for decoding in ("greedy", "sampled")
    }
    assert len(cells) == len(expected) == 32 and set(cells) == expected
    assert {record.n for record in evaluated[0]} == {4}


def test_what_is_written_is_what_is_returned_with_exactly_the_documented_fields(
    evaluated: tuple[list[Record], Path],
) -> None:
    records, out = evaluated
    written = json.loads((out / "results.json").read_text())["records"]
    assert {tuple(record) for record in written} == {FIELDS}
    assert [Record(**{**record, "solve_rate_ci95": tuple(record["solve_rate_ci95"])}) for record in written] == records
    assert sorted(path.name for path in out.iterdir()) == ["episodes.jsonl", "results.json", "store"]


def test_rates_rewards_and_efforts_with_scripted_partners_are_those_counted_by_hand(
    evaluated: tuple[list[Record], Path],
) -> None:
    # The agent writes three wrong lines, 0.1 each; diligent solves every sheet with two lines, lazy never.
    for seat in ("first", "second"):
        diligent = pick(evaluated[0], run="study/one", seat=seat, partner="diligent", decoding="greedy")
        assert (diligent.solve_rate, diligent.team_reward) == (1, 1)
        assert diligent.own_return == pytest.approx(0.7)
        assert (diligent.effort_own, diligent.effort_partner) == (3, 2)
        assert diligent.solve_rate_ci95 == pytest.approx((4 / (4 + 1.959964**2), 1))  # Wilson: n / (n + z²)
        lazy = pick(evaluated[0], run="study/one", seat=seat, partner="lazy", decoding="greedy")
        assert (lazy.solve_rate, lazy.team_reward) == (0, 0)
        assert lazy.own_return == pytest.approx(-0.3)
        assert (lazy.effort_own, lazy.effort_partner) == (3, 0)
        assert lazy.solve_rate_ci95 == pytest.approx((0, 1.959964**2 / (4 + 1.959964**2)))


def solved_by_hand(problem: str, said: Sequence[tuple[str, str]]) -> bool:
    """Whether the chain of partial sums stands in order among the lines."""
    numbers = [int(number) for number in problem.split("+")]
    total, chain = numbers[0], []
    for number in numbers[1:]:
        chain.append(f"{total}+{number}={total + number}")
        total += number
    for _, text in said:
        if chain and text.split("\n")[0] == chain[0]:
            chain.pop(0)
    return not chain


def test_solve_rates_are_those_counted_from_what_was_said(evaluated: tuple[list[Record], Path]) -> None:
    records, out = evaluated
    counts: Counter[tuple[str, ...]] = Counter()
    for line in read_episodes(out):
        cell = line.key
        counts[cell] += solved_by_hand(line.episode.problem, said(line.episode))
        assert line.episode.solved == solved_by_hand(line.episode.problem, said(line.episode))
    assert {(r.run, r.seat, r.partner, r.decoding): r.solve_rate * 4 for r in records} == dict(counts)
    assert {r.solve_rate for r in records if r.partner == "half"} & {0.25, 0.5, 0.75}


def test_each_token_has_its_log_probability_and_characters_and_what_no_model_said_has_none(
    evaluated: tuple[list[Record], Path],
) -> None:
    checked = 0
    for line in read_episodes(evaluated[1]):
        for turn in line.episode.turns:
            if turn.seat != line.seat and line.partner != "self-play":
                assert (turn.tokens, turn.mean_logprob, turn.logprobs, turn.widths) == (0, None, (), ())
                continue
            assert len(turn.logprobs) == len(turn.widths) == turn.tokens
            assert sum(turn.widths) == len(turn.text)
            assert sum(turn.logprobs) / turn.tokens == pytest.approx(turn.mean_logprob, abs=0.006)  # two digits each
            checked += 1
    assert checked


def test_every_cell_of_every_run_is_played_on_the_same_held_out_problems(
    evaluated: tuple[list[Record], Path],
) -> None:
    played: dict[tuple[str, ...], list[str]] = {}
    for line in read_episodes(evaluated[1]):
        played.setdefault(line.key, []).append(line.episode.problem)
    test = [problem.id for problem in Worksheet().problems("test", 4, seed=0)]
    assert len(played) == 32 and all(problems == test for problems in played.values())


def test_a_partners_chance_is_the_same_for_every_run(evaluated: tuple[list[Record], Path]) -> None:
    # The coins of `half` do not depend on what the run's agent writes, only its lines do.
    def rests(name: str) -> list[list[bool]]:
        return [
            [text == "pass" for who, text in said(line.episode) if who != line.seat][:1]
            for line in read_episodes(evaluated[1])
            if (line.run, line.partner) == (name, "half")
        ]

    assert rests("study/one") == rests("study/two") and [True] in rests("study/one") and [False] in rests("study/one")


def test_the_agent_plays_in_its_seat_and_the_partner_in_all_others(evaluated: tuple[list[Record], Path]) -> None:
    for line in read_episodes(evaluated[1]):
        assert [turn.seat for turn in line.episode.turns] == ["first", "second"] * 3
        if line.partner == "lazy":
            assert {text == "pass" for who, text in said(line.episode) if who != line.seat} == {True}
            assert {text == "pass" for who, text in said(line.episode) if who == line.seat} == {False}


def test_self_play_is_played_once_and_counted_for_each_seat(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matches: Counter[str] = Counter()

    def counted(task: Task, specs: Sequence[EpisodeSpec], *args: Any, **kwargs: Any) -> list[Episode]:
        matches.update(spec.match.name for spec in specs)
        return play(task, specs, *args, **kwargs)

    monkeypatch.setattr(llm_sra.evaluation.play_missing, "play", counted)
    records = evaluate([run], roster(tmp_path, *scripted("lazy")), problems=2, decodings=["sampled"])
    assert matches == {"self-play/sampled": 2, "first/lazy/sampled": 2, "second/lazy/sampled": 2}
    first, second = (pick(records, seat=seat, partner="self-play") for seat in ("first", "second"))
    assert (first.effort_own, first.effort_partner) == (second.effort_partner, second.effort_own)


def test_the_same_seed_gives_the_same_results_and_another_seed_other_ones(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("half"))
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        evaluate([run], path, tmp_path / name, problems=3, decodings=["sampled"], seed=seed)
    text = {name: (tmp_path / name / "episodes.jsonl").read_text() for name in ("one", "two", "three")}
    assert text["one"] == text["two"] != text["three"]


def test_greedy_and_sampled_are_how_every_model_at_the_table_is_decoded(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, f"name: base, kind: model, policy: {qwen2_folder()}")
    for seed in (0, 1):
        evaluate([run], path, tmp_path / str(seed), problems=27, seed=seed)
    texts: dict[tuple[str, ...], set[str]] = {}
    for line in (*read_episodes(tmp_path / "0"), *read_episodes(tmp_path / "1")):
        cell = (line.seat, line.partner, line.decoding, line.episode.problem)
        texts.setdefault(cell, set()).add(str(said(line.episode)))
    twice = {cell: found for cell, found in texts.items() if len(found) > 1}
    assert {decoding for _, _, decoding, _ in texts} == {"greedy", "sampled"}
    assert {decoding for _, _, decoding, _ in twice} == {"sampled"}


def test_replies_are_as_long_as_in_training(run: Run, tmp_path: Path) -> None:
    long = make_run(tmp_path / "study" / "long", max_completion_length=None)
    path = roster(tmp_path, *scripted("lazy"))

    def longest(run: Run, name: str) -> int:
        evaluate([run], path, tmp_path / name, problems=2, decodings=["greedy"])
        return max(len(turn.text) for line in read_episodes(tmp_path / name) for turn in line.episode.turns)

    assert longest(run, "short") < longest(long, "long")


def test_results_that_could_not_be_written_whole_leave_the_earlier_ones(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = roster(tmp_path, *scripted("lazy")), tmp_path / "out"
    evaluate([run], path, out, problems=2, decodings=["greedy"])
    before = (out / "results.json").read_bytes()
    write = Path.write_bytes

    def full_disk(self: Path, data: bytes) -> int:
        write(self, data[:100])
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        evaluate([run], path, out, problems=3, decodings=["greedy"])
    assert (out / "results.json").read_bytes() == before
