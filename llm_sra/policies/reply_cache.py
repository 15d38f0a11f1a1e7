"""Replies that were paid for, on disk: an evaluation that was interrupted does not ask for them again."""

import threading
from pathlib import Path

from llm_sra.files import JsonLinesFile, read_json_lines


class ReplyCache:
    """Texts by key, in memory and in a file of one JSON object per line, to which lines are only ever appended.

    Args:
        path: Made when the first text is put; None: in memory alone.

    Raises:
        OSError: If the file is there and cannot be read, or cannot be written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = Path(path) if path is not None else None
        self._file: JsonLinesFile | None = None
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}
        if self._path is not None and self._path.exists():
            for _, item in read_json_lines(self._path):
                if item and isinstance(item.get("key"), str) and isinstance(item.get("text"), str):
                    self._texts[item["key"]] = item["text"]

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def __getitem__(self, key: str) -> str:
        return self._texts[key]

    def put(self, key: str, text: str, **about: int | str) -> None:
        """Keep a text.

        Args:
            key: Key of the request.
            text: Text of the reply.
            about: What else the line says, for its readers.
        """
        with self._lock:
            self._texts[key] = text
            if self._path is None:
                return
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = JsonLinesFile(self._path)
            self._file.append([{"key": key, "text": text, **about}])

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
