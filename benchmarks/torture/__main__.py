"""Runs the campaign and prints its table; ends with 1 if anything did not survive, or was not tried in time."""

import argparse
import logging
import os
import pickle
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

from benchmarks.torture.children import Child, Work, run
from benchmarks.torture.disks import can_mount, fill_disks
from benchmarks.torture.evaluations import kill_evaluations
from benchmarks.torture.files import send_files
from benchmarks.torture.flips import flip_bits
from benchmarks.torture.kills import kill_trainings, preload
from benchmarks.torture.tally import Limit, Tally, failures, table
from benchmarks.torture.texts import add_tests, try_texts
from recipes.stopping import SIGNALS

MARK = "> "  # of a line that tells how far a part is
COUNTS = {"kills": 102, "evaluations": 20, "texts": 10_000, "files": 280, "flips": 3_000, "disks": 20}
Part = Callable[[Limit], Iterator[Tally]]


def parts(folder: Path, model: Path, seed: int) -> dict[str, Part]:
    """The parts of the campaign by name.

    Args:
        folder: For what they write.
        model: The base model's folder.
        seed: Of all that is random.
    """
    return {
        "kills": lambda limit: kill_trainings(folder / "kills", model, seed, limit),
        "evaluations": lambda limit: kill_evaluations(folder / "evaluations", model, seed, limit),
        "disks": lambda limit: fill_disks(folder / "disks", model, seed, limit),
        "files": lambda limit: send_files(folder / "files", model, seed, limit),
        "flips": lambda limit: flip_bits(folder / "flips", model, seed, limit),
        "texts": lambda limit: try_texts(seed, limit),
    }


def make_model(folder: Path) -> None:
    """A tiny random model, made in a process of its own: who forks has made nothing."""

    def work() -> int:
        from support import qwen2, qwen2_tokenizer, save_model

        tokenizer = qwen2_tokenizer()
        save_model(qwen2(tokenizer), tokenizer, folder)
        return 0

    ended = run(work, folder.with_suffix(".log"))
    if ended.code:
        raise RuntimeError(ended.log)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    args = _parser().parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="llm-sra-torture-"))
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["XDG_STATE_HOME"] = str(folder / "state")  # the key that marks runs as one's own
    began = time.monotonic()
    until = began + 60 * args.minutes
    add_tests()
    preload()
    logging.getLogger("llm_sra").setLevel(logging.ERROR)
    make_model(folder / "model")
    wanted = {name: part for name, part in parts(folder, folder / "model", args.seed).items() if name in args.part}
    limits = {name: Limit(max(1, round(COUNTS[name] * args.share)), until) for name in wanted}
    tallies = list(_at_a_time(wanted, limits, folder, args.jobs, began))
    shown = f"{table(tallies)}\n\n{_facts(args.seed, (time.monotonic() - began) / 60)}\n"
    print(shown, *failures(tallies), sep="\n")
    if args.page:
        args.page.write_text(f"{PAGE}\n{shown}", encoding="utf-8")
    if all(tally.held for tally in tallies):
        shutil.rmtree(folder)
        return 0
    print(f"logs: {folder}")
    return 1


def _at_a_time(
    wanted: Mapping[str, Part], limits: Mapping[str, Limit], folder: Path, jobs: int, began: float
) -> Iterator[Tally]:
    """Run some parts at a time, each in a process of its own; the counts come in the order of the parts."""
    waiting, running = list(wanted), dict[str, Child]()
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            work = _counting(wanted[name], limits[name], folder / f"{name}.pickle", began)
            running[name] = Child(work, folder / f"{name}.log")
        for name, child in list(running.items()):
            ended = child.wait(0.2)
            if ended is not None:
                del running[name]
                print(ended.log if ended.code else _said(ended.log), flush=True)
    for name in wanted:
        path = folder / f"{name}.pickle"
        if path.is_file():
            yield from pickle.loads(path.read_bytes())
        else:
            yield Tally(name, "all", "the part comes to its end", 1, 1, 0, [f"see {folder / name}.log"])


def _counting(part: Part, limit: Limit, path: Path, began: float) -> Work:
    """Run one part, say how far it is, and keep its counts in a file."""

    def work() -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        tallies, last = [], time.monotonic()
        for tally in part(limit):
            now = time.monotonic()
            tally.minutes, last = (now - last) / 60, now
            tallies.append(tally)
            counts = f"{tally.part}, {tally.what}: {tally.survived} of {tally.tried}"
            print(f"{MARK}{(now - began) / 60:5.1f} min  {counts} in {tally.minutes:.1f} min  {tally.note}", flush=True)
        path.write_bytes(pickle.dumps(tallies))
        return 0

    return work


def _said(log: str) -> str:
    """How far a part was, without what the libraries said in between."""
    return "\n".join(line.removeprefix(MARK) for line in log.splitlines() if line.startswith(MARK))


PAGE = """# Faults: what was tried and what survived

`make torture` writes this page: processes killed at random moments, full disks, flipped bits, and what strangers could
send. Everything is drawn from a seed; models are tiny and random, so that a training takes seconds. Written by the
command; change nothing here.
"""


def _facts(seed: int, minutes: float) -> str:
    disks = "small file systems in memory" if can_mount() else "limits on the size of files"
    load = os.getloadavg()[2]
    return (
        f"{date.today():%Y-%m-%d}, seed {seed}, {minutes:.0f} minutes on {os.cpu_count()} cores (mean load of the last "
        f"15 minutes {load:.1f}), "
        f"Python {platform.python_version()}; disks were {disks}."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.torture", description="Try faults, and count what survives.")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="after which no more is tried (default %(default)s)")
    parser.add_argument("--part", nargs="+", choices=list(COUNTS), default=list(COUNTS), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="parts at a time (default %(default)s)")
    parser.add_argument("--page", type=Path, help="Markdown file for the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
