"""What commands share: curves, errors in one line, flags of playing, and those that let a run execute something."""

import argparse
import dis
import logging
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TextIO

from llm_sra.errors import UserError
from llm_sra.untrusted import one_line

if TYPE_CHECKING:
    from rich.console import Console

REPORT = (
    "this is an error of llm-sra itself, not of yours. Please report it with everything above and the command "
    "that you ran"
)
COLOURS = ("cyan", "magenta", "green", "yellow", "blue")
BLOCKS = "▁▂▃▄▅▆▇█"
READER_GONE = 141  # exit code of a program that SIGPIPE ends
LONGEST = 4000  # characters of an error, which may hold what a stranger wrote
GOES_ON = "the same command goes on from here"
PLAIN_WIDTH = 100  # where the output is no terminal
PLAIN_BLOCKS = "_.-=+*#@"  # where the terminal cannot show the others


def trust_flags(parser: argparse.ArgumentParser, roster: bool = False) -> None:
    """Add the flags that allow a run to execute something: the only place where that is given.

    Args:
        parser: Of a command that reads runs.
        roster: Whether it plays the partners of a roster, too.
    """
    of, says = ("a run's or a roster's model", "they say") if roster else ("a run's model", "the run says")
    parser.add_argument(
        "--trust_remote_code", action="store_true",
        help=f"run Python that comes with {of}; what {says} about it does not count",
    )  # fmt: skip
    if roster:
        roster_flag(parser)
    parser.add_argument(
        "--trust_task", action="store_true",
        help="run the file of a run's task, though somebody else trained the run; your own runs need no flag",
    )  # fmt: skip


def roster_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that allows a roster to execute scripts."""
    parser.add_argument(
        "--trust_scripts", action="store_true",
        help="run the roster's scripted partners that do not ship with llm-sra (policy: file.py:Class)",
    )  # fmt: skip


def jobs_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that says how many trainings run at a time."""
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time on this machine (default %(default)s)")


def response_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that train best responses and play them, whose `--seed` is the trainings'."""
    jobs_flag(parser)
    parser.add_argument("--again", action="store_true", help="replace trainings and results in --out")
    playing_flags(parser)
    parser.add_argument(
        "--play_seed", type=int, default=0,
        help="of the problems and replies, as --seed of llm-sra eval; --seed is the trainings' (default %(default)s)",
    )  # fmt: skip


def playing_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is played with each partner, and how."""
    parser.add_argument("--problems", type=int, default=64, help="problems with each partner (default %(default)s)")
    parser.add_argument("--split", default="test", choices=("dev", "test"), help="of the task (default %(default)s)")
    parser.add_argument(
        "--decoding", nargs="+", default=["greedy", "sampled"], choices=("greedy", "sampled"), help="(default both)"
    )


@contextmanager
def said_once(name: str) -> Iterator[None]:
    """Inside the block, what a logger says again in the same words is not shown."""
    logger, said = logging.getLogger(name), set[str]()

    def new(record: logging.LogRecord) -> bool:
        known = record.getMessage() in said
        said.add(record.getMessage())
        return not known

    logger.addFilter(new)
    try:
        yield
    finally:
        logger.removeFilter(new)


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """A curve in one line, the lowest value as the lowest block.

    Args:
        values: In order.
        width: Characters; more values than that are averaged over equal shares of them.
        blocks: From low to high.
    """
    if len(values) > width:
        cuts = [index * len(values) // width for index in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((value - low) * scale)] for value in values)


def console() -> "Console":
    """Where a command shows tables: as wide as the terminal; elsewhere as wide as tables may be."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def duration(seconds: float) -> str:
    """In the two largest units: `2 h 05 min`, `3 min 20 s`, `8 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def _is_for_the_user(error: Exception) -> bool:
    """Whether an error was raised on purpose, in words: not by a look-up or a call that failed."""
    if isinstance(error, UserError | OSError | NotImplementedError):
        return True
    if not isinstance(error, ValueError | KeyError):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"


def run_command(command: Callable[..., Any], *args: Any) -> int:
    """Run a command; what the user can fix is one line on stderr and exit code 2.

    An error of ours is its traceback and a line that asks for a report, and exit code 1. If the reader of the output
    goes away, as `head` does, the command ends without a word, and exit code 141.
    """
    try:
        command(*args)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError) or _reader_gone():  # the first is how rich answers it
            return READER_GONE
        raise
    except Exception as error:
        if (isinstance(error, BrokenPipeError) or _is_broken(sys.stderr)) and _reader_gone():
            return READER_GONE  # nobody could read the error either
        if not _is_for_the_user(error):
            traceback.print_exc()
            print(f"llm-sra: {REPORT}", file=sys.stderr)
            return 1
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"llm-sra: {type(error).__name__}: {one_line(message)[:LONGEST]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"llm-sra: interrupted{''.join(f'; {how}' for how in stopped.args)}", file=sys.stderr)
        return 130
    return READER_GONE if _reader_gone(failed=False) else 0


@contextmanager
def kept_if_stopped() -> Iterator[None]:
    """Say at an interruption inside the block that nothing is lost: the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        raise KeyboardInterrupt(GOES_ON) from stopped


def _reader_gone(failed: bool = True) -> bool:
    """Whether nobody reads the output any more; if so, what is still to be written goes nowhere.

    Args:
        failed: Whether something could not be written; if not, it counts whether something is left that cannot.
    """
    gone = [stream for stream in (sys.stdout, sys.stderr) if _cannot_flush(stream) or (failed and _is_broken(stream))]
    for stream in gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # Python flushes once more when it ends
        os.close(nowhere)
    return bool(gone)


def _cannot_flush(stream: TextIO) -> bool:
    try:
        stream.flush()
    except BrokenPipeError:
        return True
    return False


def _is_broken(stream: TextIO) -> bool:
    """Whether a stream is a pipe that has no reader."""
    try:
        descriptor = stream.fileno()
    except OSError:  # it is none of the system's
        return False
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLERR)
    return any(events & select.POLLERR for _, events in poll.poll(0))
