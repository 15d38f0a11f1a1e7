"""`llm-sra watch`: what it reads again and what not, what it draws, and that foreign text stays text."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import ROOT

from llm_sra import runs
from llm_sra.episodes import EpisodeRecord
from llm_sra.runs import RunError
from recipes.cli import main
from recipes.commands import watch as watching
from recipes.commands.watch import Watched, watch
from recipes.terminal import duration, sparkline
from recipes.watching.frame import History
from recipes.watching.tail import BLOCK, Tail, newest_episode

HEROES = {"first": "first", "second": "second"}
LINE = {
    "solve_rate": 0.5,
    "play/first/first/return": 0.25,
    "play/second/second/return": 0.75,
    "play/first/first/effort": 1.0,
    "play/second/adversary-of-first/effort": 9.0,
    "play/first/first/reply_tokens_p50": 6.0,
    "policy/adversary-of-first/kl_to_partner": 2.5,
    "policy/first/entropy": 0.125,
    "time/generate": 2.0,
    "time/train": 1.0,
}
END = {"train_runtime": 30.0, "train_loss": 0.1}


def episode(step: int, *texts: str, **more: Any) -> dict[str, Any]:
    """Seats in turn; whoever speaks pays 0.1, and the last turn pays everyone 1."""
    seats = list(HEROES)
    turns = [{"seat": seats[i % 2], "step": i, "text": text} for i, text in enumerate(texts)]
    last = len(texts) - 1
    rewards = {
        seat: [[float(i == last), 0.0, 0.1 * (seats[i % 2] == seat)] for i in range(len(texts))] for seat in seats
    }
    return {
        "step": step, "problem": "3+2+5", "match": "m", "policies": HEROES, "turns": turns, "rewards": rewards,
        "returns": {seat: sum(team - cost for team, _, cost in rewards[seat]) for seat in seats},
        "solved": True, **more,
    }  # fmt: skip


def log(folder: Path, *lines: Mapping[str, Any]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def say(folder: Path, said: Mapping[str, Any]) -> None:
    (folder / "episodes").mkdir(exist_ok=True)
    (folder / "episodes" / f"step-{said['step']:06d}.jsonl").write_text(
        json.dumps(episode(said["step"], "an earlier one")) + "\n" + json.dumps(said) + "\n"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has begun."""
    made = tmp_path / "study" / "srpo"
    made.mkdir(parents=True)
    runs.write_config(made, {"arm": "srpo", "max_steps": 10, "num_train_epochs": 1.0, "seed": 0}, HEROES)
    return made


def shown(folder: Path, width: int = 100, encoding: str = "utf-8") -> str:
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    watch(folder, Console(file=screen, width=width, highlight=False), once=True)
    screen.flush()
    return screen.buffer.getvalue().decode(encoding)


def row(text: str, title: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(title + " ")]
    return line.removeprefix(title).split()


def test_a_frame_has_a_row_for_each_number_and_says_how_long_it_still_takes(folder: Path) -> None:
    for step in range(1, 5):
        log(folder, {"step": step, **LINE, "solve_rate": step / 4, "time/train": float(step)})
    log(folder, {"step": 4, "eval_self_play": 0.75, "eval_worst_partner": 0.5})
    text = shown(folder)
    # Steps took 3, 4, 5 and 6 seconds: six more, of 4.5 each.
    assert text.startswith("study/srpo   srpo, step 4 of 10, 27 s left (without evaluations), logged 0 s ago\n")
    assert row(text, "solve rate") == ["▁▃▆█", "1", "0.25", "to", "1"]
    assert row(text, "seconds per step") == ["▁▃▆█", "6", "3", "to", "6"]
    assert row(text, "return first")[1] == "0.25" and row(text, "return second")[1] == "0.75"
    assert row(text, "effort first")[1] == "1" and "effort second" not in text  # 9 is the adversary's
    assert row(text, "KL adversary-of-first")[1] == "2.5" and row(text, "entropy first")[1] == "0.125"
    assert row(text, "reply tokens first")[1] == "6" and row(text, "worst partner (dev)")[1] == "0.5"
    titles = [line.split()[0] for line in text.splitlines()[1:]]
    assert titles == ["solve", "with", "worst", "return", "return", "effort", "KL", "entropy", "reply", "seconds"]


def test_the_newest_episode_is_shown_by_seat_with_rewards(folder: Path) -> None:
    log(folder, {"step": 2, **LINE})
    for step in (1, 2):
        say(folder, episode(step, f"3+2={step}", "pass"))
    text = shown(folder)
    assert "step 2, problem 3+2+5, match m" in text and "an earlier one" not in text
    assert row(text, "first (first)") == ["3+2=2", "-0.10"] and row(text, "second (second)") == ["pass", "+0.90"]
    assert "solved   returns: first +0.90, second +0.90" in text


def test_what_a_partner_says_is_shown_and_never_sent_to_the_terminal(folder: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07[bold]NO[/bold]\u202e\r\x9b31m\x00"
    log(folder, {"step": 1, **LINE})
    say(folder, episode(1, evil, "pass", problem=f"p{evil}", policies={"first": f"n{evil}", "second": "s"}))
    screen = io.StringIO()
    watch(folder, Console(file=screen, width=300, force_terminal=True, color_system=None), once=True)
    assert not [c for c in screen.getvalue() if not c.isprintable() and c != "\n"]
    spelled = "\\x1b[2J\\x1b]0;owned\\x07[bold]NO[/bold]\\u202e\\r\\x9b31m\\x00"
    assert screen.getvalue().count(spelled) == 1
    assert screen.getvalue().count(spelled.replace("\\r", " ")) == 2  # names are one line


def test_long_replies_and_episodes_are_cut_and_it_is_said(folder: Path) -> None:
    log(folder, {"step": 1, **LINE})
    say(folder, episode(1, *[f"turn {i}" for i in range(19)], "x" * 100_000))
    text = shown(folder)
    assert "8 earlier turns" in text and "turn 7" not in text and "turn 8" in text
    assert text.count("x") == 400 and "[...]" in text


@pytest.mark.parametrize("width", [20, 40, 63, 64, 200])
def test_no_line_is_wider_than_the_terminal_and_the_last_values_are_there(folder: Path, width: int) -> None:
    log(folder, *[{"step": step, **LINE, "solve_rate": 0.015625} for step in range(1, 300)])
    say(folder, episode(299, "3+2=5", "pass"))
    text = shown(folder, width)
    assert max(map(len, text.splitlines())) <= width
    assert "3+2=5" in text
    assert "0.0156" in text or width < 28


def test_a_terminal_without_unicode_gets_plain_characters(folder: Path) -> None:
    log(folder, {"step": 1, **LINE, "solve_rate": 0.0}, {"step": 2, **LINE, "solve_rate": 1.0})
    assert row(shown(folder, encoding="ascii"), "solve rate")[0] == "_@"


def test_a_short_terminal_shows_the_last_turns_alone(folder: Path) -> None:
    log(folder, {"step": 1, **LINE})
    say(folder, episode(1, *[f"turn {i}" for i in range(10)]))
    console = Console(file=io.StringIO(), width=80, height=8 + 6 + 3)  # rows, what is around, three turns
    console.print(Watched(folder).look().draw(console))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "7 earlier turns" in text and "turn 6" not in text and "turn 7" in text


# -- runs that have not begun, are finished, or go on ----------------------------------------------------------------


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path: Path, folder: Path) -> None:
    waiting = "waiting for the run to begin: no config.yaml there yet"
    assert waiting in shown(tmp_path / "later") and not (tmp_path / "later").exists()
    assert "begun" in shown(folder) and "waiting for the first step to be logged" in shown(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--once", str(tmp_path)]) == 2
    assert "RunError" in capsys.readouterr().err
    with pytest.raises(RunError, match="is a file"):
        shown(folder / "config.yaml")


def test_a_finished_run_is_shown_once_and_it_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching.time, "sleep", lambda _: pytest.fail("it waited"))
    log(folder, {"step": 10, **LINE}, {"step": 10, **END})
    screen = io.StringIO()
    watch(folder, Console(file=screen, width=100))
    assert screen.getvalue().startswith("study/srpo   srpo, step 10 of 10, finished\n")


def test_an_untrained_run_is_finished_as_soon_as_it_has_adapters(folder: Path) -> None:
    assert not Watched(folder).look().ended
    (folder / "adapters").mkdir()
    assert Watched(folder).look().ended and "nothing was logged" in shown(folder)


def test_a_running_one_is_followed_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([{"step": 1, **LINE}, {"step": 2, **LINE}, {"step": 2, **END}])
    monkeypatch.setattr(watching.time, "sleep", lambda _: log(folder, next(steps)))
    screen = io.StringIO()
    watch(folder, Console(file=screen, width=100, height=40, force_terminal=True, color_system=None))
    assert "waiting for the first step" in screen.getvalue()
    assert "step 1 of 10, 27 s left" in screen.getvalue() and "step 2 of 10, finished" in screen.getvalue()


def test_ctrl_c_ends_it_with_the_cursor_back_and_no_error(folder: Path) -> None:
    log(folder, {"step": 1, **LINE})
    handled = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # ignored where tests run in the background
    program = f"import signal, sys; from recipes.cli import main; {handled}; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program, "watch", str(folder)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        seen = ""
        while "seconds per step" not in seen:
            seen += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors and "\x1b[?25h" in rest


# -- reading ---------------------------------------------------------------------------------------------------------


def test_each_line_is_read_once_and_one_that_is_being_written_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == ([], False)
    path.write_text('{"step": 1}\nnot json\n{"step"')
    assert tail.read() == ([{"step": 1}], False)
    assert tail.read() == ([], False)
    with path.open("a") as file:
        file.write(": 2}\n")
    assert tail.read() == ([{"step": 2}], False)


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' * 100_000)
    tail = Tail(path)
    assert len(tail.read()[0]) == 100_000
    sizes = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            sizes.append(len(read := super().read(size)))
            return read

    monkeypatch.setattr(Path, "open", lambda self, mode: Counted(self))
    with open(path, "a") as file:
        file.write('{"step": 2}\n')
    assert tail.read() == ([{"step": 2}], False) and sum(sizes) == 12


def test_a_resumed_and_an_overwritten_run_begin_anew(folder: Path) -> None:
    watched = Watched(folder)
    log(folder, *[{"step": step, **LINE} for step in (1, 2, 3)])
    history = watched.look().history
    assert history is not None and [step for step, _ in history.curves["solve rate"]] == [1, 2, 3]
    kept = (folder / "metrics.jsonl").read_text().splitlines()[:2]
    (folder / "new").write_text("".join(f"{line}\n" for line in kept))
    (folder / "new").replace(folder / "metrics.jsonl")  # as a resumed training does
    history = watched.look().history
    assert history is not None and [step for step, _ in history.curves["solve rate"]] == [1, 2]
    (folder / "metrics.jsonl").unlink()
    history = watched.look().history
    assert history is not None and not history.curves and history.step is None


def test_the_newest_episode_is_the_last_whole_line_of_the_newest_step_that_counts(tmp_path: Path) -> None:
    read = EpisodeRecord.read
    assert newest_episode(tmp_path / "episodes") is None
    for step in (2, 9, 10):
        say(tmp_path, episode(step, f"in step {step}"))
    assert newest_episode(tmp_path / "episodes") == read(episode(10, "in step 10"))
    assert newest_episode(tmp_path / "episodes", 9) == read(episode(9, "in step 9"))
    (tmp_path / "episodes" / "step-000011.jsonl").write_text("")
    assert newest_episode(tmp_path / "episodes") == read(episode(10, "in step 10"))
    whole = [episode(12, "x" * size) for size in (10, 3 * BLOCK)]
    lines = "".join(json.dumps(line) + "\n" for line in whole)
    (tmp_path / "episodes" / "step-000012.jsonl").write_text(lines + '{"step": 12, "tur')
    assert newest_episode(tmp_path / "episodes") == read(whole[-1])


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 4, ""),
        ([3.0], 4, "▁"),
        ([0.0, 1.0], 4, "▁█"),
        ([0.0, 0.5, 1.0, 0.0], 4, "▁▅█▁"),  # 0.5 x 7 = 3.5, which rounds to the even 4
        ([0.0, 2.0, 7.0, 7.0], 2, "▁█"),
        ([0.0, 0.0, 1.0, 2.0, 7.0, 7.0], 3, "▁▃█"),  # means 0, 1.5, 7
    ],
)
def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_in_the_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_no_number_is_left_out_and_epochs_tell_the_steps() -> None:
    history = History(HEROES)
    history.add({"step": 5, "epoch": 0.5, "solve_rate": float("nan"), "play/first/first/return": None})
    assert history.curves == {} and history.seconds_left(10) is None
    assert history.steps({"max_steps": -1, "num_train_epochs": 3.0}) == 30
    assert history.steps({"max_steps": 7, "num_train_epochs": 3.0}) == 7


def test_looking_again_at_a_long_run_is_cheap(folder: Path) -> None:
    log(folder, *[{"step": step, **LINE} for step in range(1, 5001)])
    watched = Watched(folder)
    console = Console(file=io.StringIO(), width=100)
    watched.look()
    start = time.process_time()
    for _ in range(5):
        console.print(watched.look().draw(console))
    assert (time.process_time() - start) / 5 < 0.5
