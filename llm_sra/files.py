"""Files that survive a kill: written whole or not at all, and JSON lines that are only ever appended.

What a kill left of a line is noticed, skipped and never joined to the next one.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the earlier one or the whole new one, never a part.

    Args:
        path: Its folder must exist.
        content: Text is written as UTF-8.

    Raises:
        OSError: If it cannot be written; the earlier file is then as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as lines of JSON, each ended by a newline.

    Raises:
        ValueError: If a record holds NaN or infinity, which JSON does not have; says where in it.
    """
    return "".join(json_text(record, ensure_ascii=False) + "\n" for record in records)


def json_text(value: Any, **how: Any) -> str:
    """A value as JSON that every reader takes.

    Raises:
        ValueError: If it holds NaN or infinity; says where.
    """
    try:
        return json.dumps(value, allow_nan=False, **how)
    except ValueError as error:
        if place := _not_finite(value, ""):
            raise ValueError(f"{place} is not finite, and JSON has no such number: nothing was written") from error
        raise


def _not_finite(value: Any, place: str) -> str:
    """Where in a value the first number stands that JSON does not have; empty if nowhere."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else place or str(value)
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = dict(enumerate(value)).items()
    else:
        return ""
    found = (_not_finite(part, f"{place}/{key}" if place else str(key)) for key, part in parts)
    return next(filter(None, found), "")


def parse_line(line: str | bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None for an empty or damaged one, such as a kill leaves."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of a file that are not empty, with their numbers from 1; None stands for a damaged one."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, parse_line(line)


class JsonLinesFile:
    """Appends JSON objects to a file, one a line.

    Args:
        path: Made if missing; its folder must exist.

    Raises:
        OSError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self.descriptor).st_size
        self._torn = size > 0 and os.pread(self.descriptor, 1, size - 1) != b"\n"

    def append(self, records: Iterable[Mapping[str, Any]], sync: bool = False) -> None:
        """Append records; a torn line before them is ended first.

        Args:
            records: One line each.
            sync: Whether to wait until they are on the disk.

        Raises:
            OSError: If the disk does not take them all; names the file. The next call goes on behind what it took.
        """
        content = json_lines(records).encode("utf-8", "backslashreplace")
        if not content:
            return
        if self._torn:
            content = b"\n" + content
        self._torn = True  # until all of it is there
        try:
            while content:
                content = content[os.write(self.descriptor, content) :]
            if sync:
                os.fsync(self.descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._torn = False

    def close(self) -> None:
        """Release the file."""
        os.close(self.descriptor)
