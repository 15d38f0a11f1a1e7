"""`llm-sra watch`: the live curves of a run and its newest episode, in the terminal.

This module follows the run's files, reads only what is new, and redraws; `recipes.watching.frame` draws.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from llm_sra.runs import Run, RunError, check_metrics
from recipes.watching.frame import Frame, History
from recipes.watching.tail import Tail, newest_episode

POLL = 1.0  # seconds


class Watched:
    """Follows a run.

    Args:
        folder: Folder of the run; it may not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tail = Tail(folder / "metrics.jsonl")
        self._run: Run | None = None
        self._history: History | None = None

    def look(self) -> Frame:
        """What there is to see now.

        Raises:
            RunError: If the folder holds something and is not a run.
        """
        if self._folder.exists() and not self._folder.is_dir():
            raise RunError(f"{self._folder} is a file: expected a run folder")
        begun = (self._folder / "config.yaml").is_file()
        if not begun and (not self._folder.is_dir() or all(p.name.startswith(".") for p in self._folder.iterdir())):
            return Frame(str(self._folder), None, None, None)
        lines, anew = self._tail.read()
        if anew or self._run is None or self._history is None:
            self._run = Run.open(self._folder)
            self._history = History(self._run.heroes)
        for line in lines:
            check_metrics(str(self._folder / "metrics.jsonl"), line)
            self._history.add(line)
        step = self._history.step
        if step is None and not lines and (self._folder / "adapters").is_dir():
            self._history.finished = True  # the arm `untrained` logs nothing
        episode = newest_episode(self._folder / "episodes", None if step is None else step + 1)
        return Frame(str(self._folder), self._run, self._history, episode, self._tail.age())


def main(argv: Sequence[str] | None = None) -> None:
    """Show a run until it has ended, or until ctrl-C.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        RunError: If the folder is not a run's.
    """
    args = parser().parse_args(argv)
    watch(args.run, Console(highlight=False), args.once)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra watch",
        description="Show the curves and the newest episode of a run; ends with the training, or ctrl-C.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder; one that is not there yet is waited for")
    parser.add_argument("--once", action="store_true", help="print what there is now, and end")
    return parser


def watch(folder: Path, console: Console, once: bool = False) -> None:
    """See `main`."""
    watched = Watched(folder)
    frame = watched.look()
    if once or frame.ended:
        console.print(frame.draw(console, whole=True))
        return
    try:
        with Live(frame.draw(console), console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while not frame.ended:
                time.sleep(POLL)
                frame = watched.look()
                live.update(frame.draw(console), refresh=True)
    except KeyboardInterrupt:
        return  # the usual way to leave; the last frame stays on the screen
