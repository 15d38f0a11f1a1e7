"""A lock on a folder: one process writes there, and whoever comes second learns who it is.

The system releases the lock when its holder ends, however it ends. Where the file system has no locks, the recorded
process is asked for instead.
"""

import errno
import json
import logging
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from llm_sra.files import writing

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_held: set[int] = set()  # descriptors of this process
logger = logging.getLogger(__name__)


class LockedError(RuntimeError):
    """Another process writes to the folder; the message says which."""


class FolderLock:
    """Held by the one process that writes to a folder.

    Args:
        folder: Must exist.

    Raises:
        LockedError: If another process, or another training of this process, holds it; nothing is then written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        while True:
            with writing("the lock of the folder", self._path):
                # A link could name any file of this user's, which would then be emptied.
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NO_LINKS, 0o644)
            try:
                self._take()
            except BaseException:
                os.close(self._descriptor)
                raise
            if self._is_current():
                break
            os.close(self._descriptor)  # its holder has just deleted it
        self._pid = os.getpid()
        _held.add(self._descriptor)
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now().isoformat(" ", "seconds")}
        try:
            with writing("the lock of the folder", self._path):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others have the folder."""
        if self._pid != os.getpid():
            return  # a fork never had it
        self._path.unlink(missing_ok=True)  # while it is held, so that nobody else's is deleted
        _held.discard(self._descriptor)
        os.close(self._descriptor)

    def _take(self) -> None:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no locks")
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise LockedError(self._refusal(read_holder(self._path))) from error
            if error.errno not in _NO_LOCKS:
                raise
            holder = read_holder(self._path)
            if holder and _may_live(holder):
                raise LockedError(
                    f"{self._refusal(holder)}. This file system has no locks: if that process is dead, delete "
                    f"{self._path}"
                ) from error
            logger.warning(
                "%s: the file system has no locks, so a training on another machine that starts in the same moment is "
                "not noticed",
                self._path.parent,
            )

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _refusal(self, holder: dict[str, Any]) -> str:
        who = "another process"
        if holder:
            who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        return f"{self._path.parent} is in use: {who} writes to it. Wait until it ends, or choose another --output_dir"


def read_holder(path: Path) -> dict[str, Any]:
    """Who wrote a lock file: `host`, `pid` and `since`; empty if that cannot be read."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _may_live(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock file may still run; one on another machine may."""
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _forget() -> None:
    """Let a forked process not hold its parent's locks: it may outlive it."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
