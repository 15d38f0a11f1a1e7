"""A small part of `make torture`, which tries all of it; and that the campaign notices what does not hold."""

import random
import signal
import time

import pytest
from support import qwen2_folder

from benchmarks.torture import __main__ as campaign
from benchmarks.torture import evaluations, files, kills, texts
from benchmarks.torture.children import Child, Ended, run, training, within_step
from benchmarks.torture.flips import flip_bits
from benchmarks.torture.tally import Limit, Tally, failures, table
from llm_sra.files import json_lines

PLACES = [
    "prompts of seven families", "replies and what is kept of them", "names and replies in the terminal",
    "names in Markdown", "names in pictures", "names and replies in the page",
]  # fmt: skip
STOPPED = "llm-sra: stopped by SIGTERM; resume with: llm-sra train --resume_from_checkpoint true\n"


def test_hostile_texts_are_text_wherever_they_are_shown():
    tallies = list(texts.try_texts(1, Limit(60)))
    assert [tally.what for tally in tallies] == PLACES
    assert failures(tallies) == [] and all(tally.held and tally.tried == 60 for tally in tallies)


def test_the_terminals_check_finds_a_forged_turn(monkeypatch):
    from rich.text import Text

    from recipes.commands import play

    check = texts.terminal()
    forged = f"hello\n{'right (x)':>28}  apple"
    assert check(forged) is None
    monkeypatch.setattr(play, "turn_line", lambda seat, name, text, cut, _: Text(f"{f'{seat} ({name})':>28}  {text}"))
    assert "forges a turn" in str(texts.terminal()(forged))


def test_the_terminals_check_finds_a_name_that_makes_a_line(monkeypatch):
    from rich.table import Table

    name = "x" * 21 + "right (x)"  # folded at 28 columns, it would stand below as another's turn
    assert texts.terminal()(name) is None
    whole = Table.add_column
    monkeypatch.setattr(
        Table, "add_column", lambda table, **how: whole(table, **{**how, "no_wrap": False, "overflow": "fold"})
    )
    assert "as a name makes a line" in str(texts.terminal()(name))


def test_the_pages_check_reads_two_surrogates_as_a_script_does():
    check = texts.page()
    assert check("\x1e".join(["\ud800\udfff", "\ud800", "\udfff\ud800", "\x7f\x85\n"])) is None


def test_the_pages_check_finds_what_is_lost(monkeypatch):
    from eval.report import episodes

    whole = episodes.script_json
    monkeypatch.setattr(episodes, "script_json", lambda value: whole(value).replace("u007f", "u0020"))
    assert "not read as they were" in str(texts.page()("a\x7fb"))


def test_flipped_bits_of_the_store_are_never_read_as_something_else(tmp_path):
    flips = flip_bits(tmp_path / "flips", tmp_path, 1, Limit(300))  # a third of them are for checkpoints
    tally = next(flips)
    flips.close()
    assert (tally.tried, tally.survived, failures([tally])) == (200, 200, [])


def test_what_was_not_tried_or_failed_without_a_count_has_not_survived():
    held, short, lost = (Tally("part", what, "promise", 2) for what in ("held", "short", "lost"))
    held.add(None, 2)
    short.add(None)
    lost.add(None, 2)
    lost.add("differs", 0)
    assert [tally.held for tally in (held, short, lost)] == [True, False, False]
    assert failures([held, short, lost]) == ["part, short: only 1 of 2 were tried", "part, lost: differs"]
    held.note, held.minutes = "1 within a step", 0.25
    assert table([held, short]).splitlines()[2:] == [
        "| part: held | promise | 2 | 2 | 0.2 | 1 within a step |",
        "| part: short | promise | 1 of 2 | 1 | 0.0 |  |",
    ]


@pytest.mark.parametrize(
    ("number", "code", "log", "wrong"),
    [
        (signal.SIGTERM, 143, STOPPED, None),
        (signal.SIGINT, 130, STOPPED, None),
        (signal.SIGKILL, -9, "", None),
        (signal.SIGINT, 143, STOPPED, "SIGINT ended it with 143, not 130"),
        (signal.SIGTERM, 143, STOPPED + "Traceback (most recent call last):\n", "SIGTERM was not one line"),
        (signal.SIGHUP, 143, "llm-sra: stopped by SIGHUP\n", "SIGHUP was not one line"),
        (signal.SIGKILL, 0, "", "SIGKILL ended it with 0"),
    ],
)
def test_a_stopped_training_says_in_one_line_how_to_go_on(number, code, log, wrong):
    found = kills._wrong(Ended(code, log, 0.0), number)
    assert found is None if wrong is None else wrong in str(found)


def test_a_training_that_ends_otherwise_is_told_by_its_files():
    whole = {"metrics.jsonl": ["{}"], "adapters/left": b"a", "left behind": []}
    assert kills.differences(whole, whole) is None
    assert kills.differences(whole | {"left behind": [".x"]}, whole) == (
        "differs from the undisturbed training: left behind"
    )
    assert "adapters/left" in str(kills.differences({"metrics.jsonl": ["{}"], "left behind": []}, whole))


def test_an_evaluation_that_keeps_an_episode_twice_or_says_otherwise_has_not_survived(tmp_path):
    for name in ("whole", "again"):
        (tmp_path / name / "store").mkdir(parents=True)
        for file in evaluations.WRITTEN:
            (tmp_path / name / file).write_text("same")
    store = tmp_path / "again" / "store" / "process-0.jsonl"
    store.write_text(json_lines([{"key": "a"}, {"key": "b"}]) + '{"key": "torn')
    assert evaluations._differences(tmp_path, "again", evaluations.WRITTEN) is None
    store.write_text(json_lines([{"key": "a"}, {"key": "b"}, {"key": "a"}]))
    assert evaluations._differences(tmp_path, "again", evaluations.WRITTEN) == "1 of 2 episodes are kept more than once"
    played = tmp_path / "again.played"
    played.write_text("1")  # of two that are kept now one was there before
    store.write_text(json_lines([{"key": "a"}, {"key": "b"}]))
    assert evaluations._too_much(tmp_path / "again", 1, played) is None
    played.write_text("2")
    assert evaluations._too_much(tmp_path / "again", 1, played) == "1 were kept, 1 missing; it played 2"
    (tmp_path / "again" / "table.md").write_text("other")
    assert str(evaluations._differences(tmp_path, "again", evaluations.WRITTEN)).endswith("evaluation: table.md")


@pytest.mark.parametrize(
    ("code", "late", "wrong"), [(0, 1.9, None), (0, 2.1, "2.1 s besides"), (2, 2.1, "2.1 s besides")]
)
def test_a_hostile_file_has_two_seconds_besides_the_commands_own(tmp_path, code, late, wrong):
    sender = files._Sender(files.Kind("k", "f", lambda folder: lambda: 0), tmp_path, tmp_path / "try", random.Random(0))
    found = sender._wrong(Ended(code, "llm-sra: RosterError: x\n" * (code == 2), 60.0), late, "bomb")
    assert found is None if wrong is None else wrong in str(found)


def test_a_kill_is_counted_as_within_a_step_by_what_the_training_wrote(tmp_path):
    from training_support import FLAGS

    steps, flags = tmp_path / "steps", {**FLAGS, "max_steps": 1, "arm": "ippo", "output_dir": tmp_path / "run"}
    words = [str(part) for key, value in flags.items() for part in (f"--{key}", value)]
    words += ["--model_name_or_path", str(qwen2_folder())]
    assert not within_step(steps)
    ended = run(training(words, steps), tmp_path / "log")
    assert ended.code == 0, ended.log
    assert steps.read_bytes() == b"0" and not within_step(steps)
    steps.write_bytes(b"1")
    assert within_step(steps)


def test_a_part_that_dies_is_a_failure_of_the_campaign(tmp_path):
    def dies(limit: Limit):
        raise RuntimeError("x")

    [tally] = campaign._at_a_time({"texts": dies}, {"texts": Limit(1)}, tmp_path, 1, time.monotonic())
    assert not tally.held and "texts.log" in failures([tally])[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_campaign_in_the_background_still_kills_by_every_signal(tmp_path, number):
    def work() -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        time.sleep(30)
        return 0

    before = signal.signal(number, signal.SIG_IGN)
    try:
        child = Child(work, tmp_path / "log")
    finally:
        signal.signal(number, before)
    child.kill(number)
    assert child.end(20).code == {signal.SIGINT: 1, signal.SIGHUP: -signal.SIGHUP}[number]  # a traceback, or the signal
