"""Episodes in which people played, kept with their consent: what was said, and the name that each of them chose.

A line of the file is an episode's (`EpisodeRecord.line()`) with three more keys: `task`, the class that was played;
`people`, by seat the chosen name; `seen`, for each turn of a person what the seat saw, so that it can be replayed and
learnt from. Nothing else of a person is kept: no time, no address. How consent is asked for is the caller's part.
"""

import errno
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_sra.episodes import EpisodeRecord, TurnRecord
from llm_sra.files import JsonLinesFile, read_json_lines, writing
from llm_sra.task import Episode, Message, merge_roles
from llm_sra.untrusted import checked, printable, shown

LONGEST_NAME = 40  # characters
KEPT = "the episodes of people"
WHAT_IS_KEPT = (
    "the name that you choose, the problems, what every seat saw and said, and the scores; no time, no address, "
    "nothing else"
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeopleEpisode:
    """An episode in which at least one seat was a person's.

    Attributes:
        record: The episode, as all episodes are kept.
        task: Name of the class that was played.
        people: By seat, the name that the person in it chose.
        seen: For each turn of a person, in the order in which they were spoken, what the seat saw.
    """

    record: EpisodeRecord
    task: str
    people: Mapping[str, str]
    seen: tuple[tuple[Message, ...], ...]

    @classmethod
    def of(cls, episode: Episode, task: str, people: Mapping[str, str]) -> "PeopleEpisode":
        """What is kept of an episode.

        Args:
            episode: As it was played.
            task: Name of the class that was played.
            people: By seat, the name that the person in it chose.
        """
        record = EpisodeRecord.of(episode)
        seen = tuple(merge_roles(turn.view) for turn in episode.turns if turn.seat in people)
        return cls(replace(record, policies={**record.policies, **people}), task, dict(people), seen)

    def line(self) -> dict[str, Any]:
        """As JSON has it."""
        seen = [[message.as_dict() for message in view] for view in self.seen]
        return {**self.record.line(), "task": self.task, "people": dict(self.people), "seen": seen}

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "PeopleEpisode":
        """From a line's JSON object.

        Raises:
            ValueError: If it holds no episode, or none in which a person played.
        """
        if "people" not in item:
            raise ValueError(
                "it holds no episode of a person, as `llm-sra play --keep` writes them. A file of replies needs `field`"
            )
        record = EpisodeRecord.read(item)
        people = {
            seat: checked("people", name, str) for seat, name in checked("people", item["people"], Mapping).items()
        }
        try:
            seen = tuple(tuple(_message(one) for one in view) for view in item["seen"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"`seen` holds no messages: {type(error).__name__} {error}") from error
        spoken = sum(turn.seat in people for turn in record.turns)
        if len(seen) != spoken:
            raise ValueError(f"`seen` holds {len(seen)} views, but people spoke {spoken} times")
        return cls(record, checked("task", item.get("task", ""), str), people, seen)

    def turns(self, who: str | None = None) -> Iterator[tuple[int, TurnRecord, tuple[Message, ...]]]:
        """What people said: the number of the turn among its seat's own, from 0; the turn; what the seat saw.

        Args:
            who: Only the person of this name; None: all of them.
        """
        views, spoken = iter(self.seen), dict.fromkeys(self.people, 0)
        for turn in self.record.turns:
            if turn.seat in self.people:
                number, view = spoken[turn.seat], next(views)
                spoken[turn.seat] += 1
                if who in (None, self.people[turn.seat]):
                    yield number, turn, view


class PeopleFile:
    """Appends episodes of people to a file, a line each: whole, or noticed as torn. Its owner alone may read it.

    It is made with the first episode, so that nothing is there before something is kept.

    Args:
        path: Its folder must exist.
        task: Name of the class that is played.

    Raises:
        WriteError: If it cannot be written, as far as that can be seen without writing.
        ValueError: If it holds something else, or episodes of another task.
    """

    def __init__(self, path: Path, task: str) -> None:
        self._path, self._task = path, task
        self._file: JsonLinesFile | None = None
        with writing(KEPT, path):
            _check_writable(path)
        if path.exists():
            check_task(path, read_people(path), task)

    def append(self, episode: Episode, people: Mapping[str, str]) -> None:
        """Keep an episode; it is on the disk when this returns.

        Args:
            episode: As it was played.
            people: By seat, the name that the person in it chose; all of them have agreed.

        Raises:
            WriteError: If the disk does not take it.
        """
        with writing(KEPT, self._path):
            if self._file is None:
                self._path.touch(mode=0o600)
                self._file = JsonLinesFile(self._path)
            self._file.append([PeopleEpisode.of(episode, self._task, people).line()], sync=True)

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()


def _check_writable(path: Path) -> None:
    """Raise OSError if a file can be seen not to be writable."""
    place = path if path.exists() else path.absolute().parent
    if not place.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "expected a file", str(path))
    if not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def read_people(path: Path) -> list[PeopleEpisode]:
    """The episodes in a file of people; a line that was cut off, or changed on the disk, is logged and passed over.

    Raises:
        ValueError: If a line holds something else, or no line can be read; names the file and the line.
        OSError: If it cannot be read.
    """
    found, damaged = [], []
    for number, item in read_json_lines(path):
        if item is None:
            damaged.append(number)
            continue
        try:
            found.append(PeopleEpisode.read(item))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if damaged and not found:
        raise ValueError(f"{path}, line {damaged[0]}: it is no episode of a person, or is cut off")
    if damaged:
        logger.warning("%s: line %s is cut off, or changed on the disk, and passed over", path, damaged[0])
    return found


def check_task(path: Path, episodes: Iterable[PeopleEpisode], task: str) -> None:
    """Check that episodes are of a task.

    Args:
        path: Their file.
        episodes: What it holds.
        task: Name of its class.

    Raises:
        ValueError: If one is of another task.
    """
    if odd := sorted({one.task for one in episodes} - {task}):
        raise ValueError(f"{path} holds episodes of {odd[0]}, expected {task}: name another file or task")


def chosen_name(text: str) -> str:
    """The name that a person chose, in one line.

    Raises:
        ValueError: If it is empty, longer than `LONGEST_NAME`, or holds what cannot be seen.
    """
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME or printable(name) != name:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} visible characters, got {shown(text, 80)}")
    return name


def _message(item: Mapping[str, Any]) -> Message:
    if item["role"] not in ("system", "user", "assistant"):
        raise ValueError(f"`seen` names the role {str(item['role'])[:40]!r}: expected system, user or assistant")
    return Message(item["role"], checked("seen", item["content"], str))
