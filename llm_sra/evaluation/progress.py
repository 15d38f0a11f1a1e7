"""Shows how far an evaluation is: a bar in a terminal, elsewhere a line a minute. What is played is not known here."""

import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 60.0  # from line to line, where there is no terminal


class Progress:
    """Counts episodes.

    Args:
        total: How many there are.
        done: How many of them are there already.
        name: What is counted.
        disable: Whether to show nothing; None: a bar in a terminal, elsewhere lines.
    """

    def __init__(self, total: int, done: int, name: str, disable: bool | None) -> None:
        self._bar = tqdm(total=total, initial=done, desc=name, unit=" episodes", disable=disable)
        self._name, self._total, self._before, self._done = name, total, done, done
        self._began = time.monotonic()
        self._over = threading.Event()
        # A thread of its own: a single batch may take longer than a minute.
        self._writer = threading.Thread(target=self._write_lines, daemon=True)
        self._writes = disable is None and self._bar.disable

    def __enter__(self) -> "Progress":
        if self._writes:
            self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._writes:
            self._writer.join()
        self._bar.close()

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        self._bar.update(count)

    def limit(self, total: int) -> None:
        """There are only so many now."""
        self._total = self._bar.total = total
        self._bar.refresh()

    def _write_lines(self) -> None:
        while not self._over.wait(LINE_SECONDS):
            print(self._line(time.monotonic() - self._began), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        """Such as `episodes: 320 of 1024 (31 %) after 12 min, about 27 min left`."""
        share = f"{self._done / self._total:.0%}".replace("%", " %") if self._total else "100 %"
        line = f"{self._name}: {self._done} of {self._total} ({share}) after {seconds / 60:.0f} min"
        if played := self._done - self._before:
            line += f", about {seconds / played * (self._total - self._done) / 60:.0f} min left"
        return line
