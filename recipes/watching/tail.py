"""Reads files that a training is writing: the new lines of its metrics, the last line of its episodes."""

import time
from pathlib import Path
from typing import Any

from llm_sra.episodes import EpisodeRecord
from llm_sra.files import parse_line, regular_file

BLOCK = 1 << 16  # bytes


class Tail:
    """The lines of a jsonl file, each read once.

    Args:
        path: Path of the file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._file = path, 0, (0, 0)

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """The lines since the last time, and whether the file was replaced since then.

        A line that is still being written waits for its end. A resumed training replaces the file, and one that
        overwrites a run begins a new one: all lines are then given again.
        """
        try:
            regular_file(self._path)
            file = self._path.open("rb")
        except FileNotFoundError:
            anew = self._offset > 0
            self._offset = 0
            return [], anew
        with file:
            stat = self._path.stat()
            known, self._file = self._file, (stat.st_dev, stat.st_ino)
            anew = self._offset > 0 and (known != self._file or stat.st_size < self._offset)
            if anew:
                self._offset = 0
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [line for line in map(parse_line, whole.splitlines()) if line is not None], anew

    def age(self) -> float | None:
        """Seconds since something was written; None if nothing was."""
        try:
            return max(time.time() - self._path.stat().st_mtime, 0.0)
        except FileNotFoundError:
            return None


def newest_episode(folder: Path, latest: int | None = None) -> EpisodeRecord | None:
    """The last episode of the newest step.

    Args:
        folder: Folder of a run's episodes.
        latest: Later steps do not count: a resumed training has yet to play them again; None: all do.

    Returns:
        None if there is none yet.

    Raises:
        ValueError: If the line holds no episode.
    """
    if not folder.is_dir():
        return None
    steps = {int(name): path for path in folder.iterdir() if (name := path.stem.removeprefix("step-")).isdigit()}
    counting = [step for step in steps if latest is None or step <= latest]
    for step in sorted(counting, reverse=True)[:2]:  # the newest may be empty yet
        if (line := _last_line(steps[step])) is not None:
            try:
                return EpisodeRecord.read(line)
            except ValueError as error:
                raise ValueError(f"{steps[step]}, last line: {error}") from error
    return None


def _last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line of a file, read from its end."""
    try:
        regular_file(path)
        with path.open("rb") as file:
            start = file.seek(0, 2)
            read = b""
            while start > 0 and read.rstrip(b"\n").count(b"\n") < 2:
                size = min(BLOCK, start)
                start = file.seek(start - size)
                read = file.read(size) + read
    except FileNotFoundError:
        return None
    lines = read[: read.rfind(b"\n") + 1].splitlines()
    return parse_line(lines[-1]) if lines else None
