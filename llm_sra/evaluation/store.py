"""The store: an evaluation's episodes on disk, appended when played, found by a hash of all that they depend on.

A folder holds one file of JSON lines for each process that plays, and `about.json`. Lines are only ever appended, each
with a checksum: one that a kill cut off, or that changed on the disk, is noticed, skipped and never joined to the next.
Lines of earlier versions have no checksum. Who plays with whom is not decided here.
"""

import fcntl
import json
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_sra.episodes import EpisodeRecord
from llm_sra.files import JsonLinesFile, WriteError, read_json_lines, write_whole, writing
from llm_sra.partners.identity import digest
from llm_sra.task import Problem

FORMAT = 1  # raised when equal settings no longer give equal episodes, or lines read otherwise
logger = logging.getLogger(__name__)


class StoreError(ValueError):
    """A folder of episodes cannot be used; says why, and what to do."""


def episode_key(setting: Mapping[str, Any], match: str, seats: Mapping[str, str], problem: Problem) -> str:
    """The key of an episode: a hash of everything that it depends on.

    Args:
        setting: `Setting.facts()`.
        match: Its name, which is part of every reply's seed.
        seats: By seat, the identity of the policy in it.
        problem: What is played; its data counts, too.
    """
    return digest([FORMAT, setting, match, seats, problem.id, digest(problem.data)])


class Store:
    """The episodes in a folder.

    Args:
        folder: Made if missing.
        task: Name of the task; a folder is of one.
        process: Number of the process that writes, each to a file of its own.

    Raises:
        StoreError: If the folder is of another task or format, or another evaluation writes there now.
        OSError: If it cannot be read or written.
    """

    def __init__(self, folder: Path, task: str, process: int = 0) -> None:
        self._folder = folder
        _check_about(folder, {"format": FORMAT, "task": task})
        self._path = folder / f"process-{process}.jsonl"
        with writing("the store of episodes", self._path):
            self._file = JsonLinesFile(self._path)
        try:
            # Some network file systems have no locks: without one, two evaluations at a time are the user's to avoid.
            with suppress(OSError):
                _lock(self._file.descriptor, self._path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others write here."""
        self._file.close()

    def read(self, wanted: Collection[str]) -> dict[str, EpisodeRecord]:
        """The wanted episodes that are there, by key; unreadable lines are logged and passed over."""
        found: dict[str, EpisodeRecord] = {}
        for path in sorted(self._folder.glob("process-*.jsonl")):
            unreadable = []
            for number, item in read_json_lines(path):
                try:
                    if item is None:
                        raise ValueError("no JSON object")
                    if item["key"] in wanted:
                        found.setdefault(item["key"], EpisodeRecord.read(item))
                except (ValueError, KeyError, TypeError):
                    unreadable.append(str(number))
            if unreadable:
                numbers = ", ".join(unreadable[:5]) + ", ..." * (len(unreadable) > 5)
                logger.warning(
                    "%s: %d unreadable (line %s): cut off by a kill, or changed on the disk. These episodes are played "
                    "again if they are wanted, all others are kept", path, len(unreadable), numbers,
                )  # fmt: skip
        return found

    def append(self, played: Mapping[str, EpisodeRecord]) -> None:
        """Keep episodes by their keys; they are on the disk when this returns.

        Raises:
            OSError: If the disk does not take them.
            ValueError: If a number of one is not finite; names it.
        """
        try:
            self._file.append(({"key": key, **one.line()} for key, one in played.items()), sync=True)
        except OSError as error:
            kept = "every whole line is kept, and the same command goes on from there"
            raise WriteError(
                error.errno, f"cannot write episodes: {error.strerror}; {kept}", str(self._path)
            ) from error


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(
            f"another evaluation writes to {path} now: wait until it has ended, or choose another folder"
        ) from None


def _check_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Check that a folder belongs to this task, and make it if it is new."""
    path = folder / "about.json"
    if not path.is_file():
        with writing("the store of episodes", path):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(about) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(
            f"{path} is not JSON ({error}): expected {json.dumps(about)}. Choose another folder"
        ) from error
    if found != about:
        raise StoreError(
            f"{folder} holds episodes of {json.dumps(found)}, and these would be of {json.dumps(about)}: choose "
            "another folder"
        )
