"""Runs the trainings of a comparison, some at a time, each in a process of its own, and says how long all will take.

A finished one is kept, an interrupted one goes on from its newest checkpoint. Where there are GPUs, each training has
one of them to itself as far as they go round.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import FrameType, TracebackType
from typing import IO, Any, NoReturn, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from llm_sra.errors import UserError
from llm_sra.runs import read_metrics
from llm_sra.trainer.progress import summary
from llm_sra.trainer.speed import read_speed
from recipes.comparing.cells import Cell, state_of
from recipes.terminal import GOES_ON, duration

ROOT = Path(__file__).resolve().parents[2]  # of the packages: a clone, or where a wheel is installed
# -P: a folder's own `tasks.py` must not hide ours.
PROGRAM = (sys.executable, "-P", "-m", "llm_sra")
PAUSE = 0.5  # seconds between two looks at the trainings
GRACE = 10.0  # seconds that a training has to end by itself


class TrainingError(UserError):
    """Trainings failed; names each with its log."""


@dataclass
class Running:
    """A training that runs.

    Attributes:
        cell: Which.
        process: Its process.
        log: Its output.
        began: When, in seconds of the monotonic clock.
        since: When, in seconds of the time of day.
        bar: Its bar.
    """

    cell: Cell
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    began: float
    since: float
    bar: TaskID


class Trainings:
    """Trains the cells of a comparison.

    Args:
        cells: In the order in which they are begun.
        out: Folder of the comparison: run folders, and beside each its log.
        steps: By a cell's name, the number of its steps; 0 if that is not known before it runs.
        jobs: How many are trained at a time.
        console: Where to show how far they are; None: standard output.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        out: Path,
        steps: Mapping[str, int],
        jobs: int = 1,
        console: Console | None = None,
    ) -> None:
        self._out, self._steps, self._jobs = out, dict(steps), jobs
        self._cells = list(cells)
        self._waiting = [cell for cell in cells if not state_of(out / cell.name).finished]
        self._running: dict[int, Running] = {}
        self._failed: list[Cell] = []
        self._starts: list[float] = []  # seconds that the trainings took beside their steps
        self._console = console or Console(highlight=False)
        self._gpus = _gpus()

    def run(self) -> None:
        """Train what is missing.

        Raises:
            TrainingError: If a training failed. The others were trained all the same.
        """
        if not self._waiting:
            return
        self._out.mkdir(parents=True, exist_ok=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        numbers = TextColumn("{task.fields[numbers]}", markup=False)
        with _EndingAll(self._running), Progress(*columns, numbers, console=self._console, transient=True) as progress:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._jobs:
                    self._start(progress)
                time.sleep(PAUSE)
                self._look(progress)
        if self._failed:
            names = "; ".join(f"{cell.name}: {_last_words(self._log(cell))}" for cell in self._failed)
            raise TrainingError(
                f"{len(self._failed)} of {len(self._cells)} trainings failed, the others are kept. {names}"
            )

    def show_states(self) -> None:
        """Show how far each of them is."""
        for cell in self._cells:
            self._console.print(f"  {cell.name}: {state_of(self._out / cell.name).words}", markup=False)

    @property
    def time_left(self) -> str:
        """About how long the missing ones take, in words; empty if none is missing."""
        if not self._waiting:
            return ""
        seconds = self.seconds_left()
        return "the first training that is done tells how long" if seconds is None else f"about {duration(seconds)}"

    def _log(self, cell: Cell) -> Path:
        return self._out / f"{cell.name}.log"

    def _start(self, progress: Progress) -> None:
        cell = self._waiting.pop(0)
        slot = next(number for number in range(self._jobs) if number not in self._running)
        log = self._log(cell).open("ab")
        process = subprocess.Popen(
            [*PROGRAM, *cell.command(self._out)],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment(slot),
        )  # fmt: skip
        bar = progress.add_task(cell.name, total=self._steps.get(cell.name) or None, numbers="starts")
        self._running[slot] = Running(cell, process, log, time.monotonic(), time.time(), bar)

    def _environment(self, slot: int) -> dict[str, str]:
        """Of a training: its share of the processor, its GPU, and where to find these packages."""
        added = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._jobs))}
        added |= {name: os.environ[name] for name in added if name in os.environ}  # what the user said
        if self._gpus:
            added["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        if ROOT.name not in ("site-packages", "dist-packages"):
            added["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        return {**os.environ, **added}

    def _look(self, progress: Progress) -> None:
        """Show how far the trainings are, and take leave of those that have ended."""
        for slot, running in list(self._running.items()):
            name = running.cell.name
            steps = [line for line in _new_metrics(self._out / name, running.since) if "solve_rate" in line]
            if steps:
                progress.update(running.bar, completed=steps[-1]["step"], numbers=summary(steps[-1]))
            code = running.process.poll()
            if code is None:
                continue
            running.log.close()
            progress.remove_task(running.bar)
            del self._running[slot]
            seconds = time.monotonic() - running.began
            took = duration(seconds)
            if code:
                self._failed.append(running.cell)
                progress.console.print(f"failed: {name} after {took}; its log: {self._log(running.cell)}", markup=False)
            else:
                if speed := read_speed(self._out / name):
                    self._starts.append(max(seconds - speed.hours * 3600 * speed.measured / speed.steps, 0.0))
                progress.console.print(f"trained: {name} in {took}{self._outlook()}", markup=False)

    def _outlook(self) -> str:
        """How many are left, and about how long they take; empty after the last."""
        left = len(self._waiting) + len(self._running)
        if not left:
            return ""
        seconds = self.seconds_left()
        about = "" if seconds is None or seconds < 1 else f", about {duration(seconds)}"
        return f"; {left} of {len(self._cells)} left{about}"

    def seconds_left(self) -> float | None:
        """About how long the missing trainings take, by others of their setting; None if nothing is known."""
        rates = {cell.name: read_speed(self._out / cell.name) for cell in self._cells}
        known = {name: speed.hours * 3600 / speed.steps for name, speed in rates.items() if speed}
        if not known:
            return None
        left = []
        for cell in (*self._waiting, *(running.cell for running in self._running.values())):
            alike = [
                known[other.name] for other in self._cells if other.name in known and other.setting == cell.setting
            ]
            state = state_of(self._out / cell.name)
            steps = self._steps.get(cell.name) or next(speed.steps for speed in rates.values() if speed)
            rate = known.get(cell.name) or fmean(alike or known.values())
            left.append(rate * max(steps - state.steps_done, 0))
        start = fmean(self._starts or [0.0])
        left = [one + start * (index < len(self._waiting)) for index, one in enumerate(left)]
        return max(sum(left) / self._jobs, max(left, default=0.0))


class _EndingAll:
    """Ends all trainings when its block is left, by whatever; a signal that ends the program leaves it, too.

    Args:
        running: The trainings.
    """

    def __init__(self, running: Mapping[int, Running]) -> None:
        self._running = running
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                self._before[number] = signal.signal(number, _leave)
            except ValueError:  # not in the main thread, which has the signals
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for running in self._running.values():
            running.process.terminate()
        deadline = time.monotonic() + GRACE
        for running in self._running.values():
            try:
                running.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.log.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    print(f"llm-sra: stopped; {GOES_ON}", file=sys.stderr)
    raise SystemExit(128 + number)


def _new_metrics(folder: Path, since: float) -> list[dict[str, Any]]:
    """What a run has logged if it did so since a time: before that, it is what an earlier training left."""
    path = folder / "metrics.jsonl"
    return read_metrics(path) if path.is_file() and path.stat().st_mtime >= since - 1 else []


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _last_words(log: Path) -> str:
    """The error in a log, or its last line; and where it is."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("llm-sra: ")]
    said = (ours or lines or ["it said nothing"])[-1].removeprefix("llm-sra: ")
    return f"{said[:500]} (its log: {log})"
