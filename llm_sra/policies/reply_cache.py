"""Replies that were paid for, on disk: an evaluation that was interrupted does not ask for them again."""

import json
import os
import threading
from pathlib import Path


class ReplyCache:
    """Texts by key, in memory and in a file of one JSON object per line, to which lines are only ever appended.

    A line is written in one piece; what a crash left of one is skipped, and never joined to the next.

    Args:
        path: Made when the first text is put; None: in memory alone.

    Raises:
        OSError: If the file is there and cannot be read, or cannot be written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = Path(path) if path is not None else None
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}
        self._torn = False
        if self._path is not None and self._path.exists():
            content = self._path.read_bytes()
            self._torn = bool(content) and not content.endswith(b"\n")
            for line in content.split(b"\n"):
                self._take(line)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def __getitem__(self, key: str) -> str:
        return self._texts[key]

    def put(self, key: str, text: str, **about: int | str) -> None:
        """Keep a text.

        Args:
            key: Of the request.
            text: Of the reply.
            about: What else the line says, for its readers.
        """
        line = json.dumps({"key": key, "text": text, **about}).encode() + b"\n"
        with self._lock:
            self._texts[key] = text
            if self._path is None:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._torn:
                line = b"\n" + line
            self._torn = True  # until the whole line is there
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                while line:  # in one piece, unless the disk takes less
                    line = line[os.write(file, line) :]
                self._torn = False
            finally:
                os.close(file)

    def _take(self, line: bytes) -> None:
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            return
        if isinstance(item, dict) and isinstance(item.get("key"), str) and isinstance(item.get("text"), str):
            self._texts[item["key"]] = item["text"]
