"""Files that survive a kill: written whole or not at all, and JSON lines that are only ever appended.

What a kill left of a line is noticed, skipped and never joined to the next one. A line that `JsonLinesFile` writes ends
with a checksum of all that stands before it, so that one which changed on the disk is noticed, too. What is written is
valid JSON: a number that JSON does not have is refused by its name. A failure to write is one line.
"""

import errno
import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

LONGEST_LINE = 64 << 20  # bytes
CHECKSUM = "crc32"  # key of a line's checksum, always its last
_CHECKED = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\s*')


# What new files are not permitted; it can be read by setting it only, which other threads must not see.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def remove_partial(folder: Path) -> None:
    """Remove what `write_whole` left below a folder when its process was killed; nobody may be writing there.

    Raises:
        OSError: If a file cannot be removed.
    """
    for path in folder.rglob(".*.partial"):
        if path.is_file() or path.is_symlink():
            path.unlink()


def readable_as_others(folder: Path) -> None:
    """Give weights below a folder the permissions that a new file has: safetensors makes files for their owner alone.

    Raises:
        OSError: If a file cannot be changed.
    """
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~_UMASK)


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
        sync_file(partial)
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def to_json(value: Any, *, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """A value as JSON.

    Args:
        value: What JSON can hold.
        indent: See `json.dumps`.
        ensure_ascii: The same.

    Raises:
        ValueError: If it holds NaN or an infinity, which JSON does not have; says where.
    """
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, allow_nan=False)
    except ValueError:
        if (found := _not_finite(value)) is None:
            raise
        place, number = found
        raise ValueError(
            f"{place} is {number}: expected a finite number, as JSON has no other. Leave out a number that an episode "
            "does not have"
        ) from None


def json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as lines of JSON, each ended by a newline.

    Raises:
        ValueError: If one holds NaN or an infinity; says where.
    """
    return "".join(to_json(record) + "\n" for record in records)


def parse_line(line: str | bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None for an empty or damaged one: cut off by a kill, or not as its checksum says."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if CHECKSUM in record:
        content = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line
        at = content.rfind(b", ")
        found = _CHECKED.fullmatch(content, at) if at >= 0 else None
        if found is None or int(found[1], 16) != zlib.crc32(content[:at]):
            return None
        del record[CHECKSUM]
    return record


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of a file that are not empty, with their numbers from 1; None stands for a damaged or endless one.

    Raises:
        OSError: If it cannot be read, or is a pipe or a device, which might never end.
    """
    regular_file(path)
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if line is None or line.strip():
                yield number, None if line is None else parse_line(line)


def regular_file(path: Path) -> None:
    """Raise OSError if a path is there and is neither a file nor a folder."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "a pipe or a device, expected a file", str(path))


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines up to `LONGEST_LINE`; None for a longer one."""
    while line := file.readline(LONGEST_LINE):
        if len(line) < LONGEST_LINE or line.endswith(b"\n"):
            yield line
            continue
        while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass
        yield None


def _checked_line(record: Mapping[str, Any]) -> bytes:
    """A line of JSON with its checksum; lines without anything to check have none."""
    if not record:
        return b"{}\n"
    content = to_json(record).encode("utf-8", "backslashreplace")[:-1]
    return content + b', "%s": "%08x"}\n' % (CHECKSUM.encode(), zlib.crc32(content))


def _not_finite(value: Any, place: str = "") -> tuple[str, float] | None:
    """The first number in a value that is not finite, and the keys that lead to it."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (place or "the value", value)
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        parts = enumerate(value)
    found = (_not_finite(part, f"{place}.{key}" if place else str(key)) for key, part in parts)
    return next((one for one in found if one), None)


class JsonLinesFile:
    """Appends JSON objects to a file, one a line, each with a checksum.

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
            ValueError: If a record holds NaN or an infinity; nothing is written then.
        """
        content = b"".join(map(_checked_line, records))
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


class WriteError(OSError):
    """Something could not be written; the message says what, where and why."""


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn a failure to write inside the block into one line that names the path.

    Args:
        what: For people, such as `the metrics`.
        path: What is written; an error that names another file takes precedence.

    Raises:
        WriteError: If the system, safetensors or torch could not write.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        reason = _write_failure(error)
        if reason is None:
            raise
        there = Path(str(getattr(error, "filename", None) or path))
        raise WriteError(f"cannot write {what} to {there}: {reason}; {_free(there)}") from error


def _write_failure(error: Exception) -> str | None:
    """Why a file could not be written; None for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = " ".join(str(error).split())
    if type(error).__name__ == "SafetensorError" and "I/O error" in text:
        return text
    if "(os error 28)" in text:  # tokenizers raises plain exceptions
        return text
    # torch's writer of zip files says nothing of the disk; its message tells positions in the file.
    if isinstance(error, RuntimeError) and any(mark in text for mark in ("inline_container", "PytorchStreamWriter")):
        return "the file could not be written to its end"
    return None


def _free(path: Path) -> str:
    folder = next((parent for parent in (path, *path.absolute().parents) if parent.is_dir()), None)
    try:
        free = shutil.disk_usage(folder).free if folder else 0
    except OSError:
        return "make room or check the disk"
    return f"{free / 2**20:.1f} MiB are free there"


def sync_file(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():
            return  # a system on which folders cannot be opened
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until everything below a folder is on the disk."""
    for path in sorted(folder.rglob("*")):
        sync_file(path)
    sync_file(folder)


def publish_folder(staged: Path, target: Path) -> None:
    """Give a finished folder its final name, on the disk; one that had the name is deleted only after that."""
    replaced = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    staged.rename(target)
    sync_file(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)
