"""Partners that replay recorded replies: one for each problem, found by the problem's question."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_sra.policies.base import UnavailableError
from llm_sra.task import Message
from llm_sra.untrusted import UntrustedError, read_text, replaced

LARGEST = 1 << 28  # bytes of a file of replies


class Recorded:
    """Says at every turn what was recorded for the problem in question.

    The problem is found by its question, which must stand as recorded in the first user message that the seat sees; of
    several questions in it the first one counts, and of those that begin at the same place the longest.

    Args:
        name: Shown in transcripts and results.
        path: One JSON object per line.
        field: Key of the reply; a dot leads into an object (`6b_finetuning.solution`).
        key: Key of the question.
        rewrite: Regular expressions and what to put in their place, applied to every reply in this order.

    Raises:
        UnavailableError: If the file is missing, or a line of it does not hold a question and a reply; from `reply`, if
            the problem was not recorded.
    """

    def __init__(
        self,
        name: str,
        path: str | Path,
        *,
        field: str,
        key: str = "question",
        rewrite: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self._path = name, Path(path)
        self.recorded: dict[str, str] = {}
        rows = _rows(self._path, name)
        texts = [_text(row, field, place) for place, row in rows]
        try:
            texts = replaced(rewrite.items(), texts) if rewrite else texts
        except UntrustedError as error:
            raise UnavailableError(f"partner {name!r}: {error}") from error
        for (place, row), text in zip(rows, texts, strict=True):
            question = _text(row, key, place)
            if not question.strip():
                raise UnavailableError(f"{place}: the question is empty")
            if self.recorded.setdefault(question, text) != text:
                raise UnavailableError(
                    f"{place}: the question was recorded before with another reply: {question[:80]!r}"
                )
        if not self.recorded:
            raise UnavailableError(f"partner {name!r}: {self._path} holds no recorded reply")

    def reply(self, messages: Sequence[Message], rng: random.Random) -> str:
        """What was recorded for this problem, at every turn the same."""
        first = next((message.content for message in messages if message.role == "user"), "")
        found = [(at, -len(question), question) for question in self.recorded if (at := first.find(question)) >= 0]
        if not found:
            raise UnavailableError(
                f"partner {self.name!r}: none of the {len(self.recorded)} questions in {self._path} stands in what the "
                f"seat was shown: {first[:300]!r}. Evaluate on the split that was recorded"
            )
        return self.recorded[min(found)[2]]


def _rows(path: Path, name: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Every line's object, and where it stands."""
    try:
        text = read_text(path, LARGEST)
    except (OSError, UntrustedError) as error:
        raise UnavailableError(
            f"partner {name!r}: cannot read the recorded replies in {path.absolute()}: {error}"
        ) from error
    rows: list[tuple[str, Mapping[str, Any]]] = []
    for line_number, line in enumerate(text.split("\n"), 1):
        place = f"partner {name!r}: {path}, line {line_number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnavailableError(f"{place} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UnavailableError(f"{place}: expected an object, got {line[:80]}")
        rows.append((place, row))
    return rows


def _text(row: Mapping[str, Any], field: str, place: str) -> str:
    value = _at(row, field)
    if not isinstance(value, str):
        raise UnavailableError(
            f"{place}: expected text at {field!r}, got {json.dumps(value)[:80]}; there are: {', '.join(_paths(row))}"
        )
    return value


def _at(row: Any, field: str) -> Any:
    """The value of a field; None if there is none. Keys may contain dots themselves."""
    if not isinstance(row, Mapping) or field in row:
        return row.get(field) if isinstance(row, Mapping) else None
    dots = [place for place, letter in enumerate(field) if letter == "."]
    return next((_at(row[field[:at]], field[at + 1 :]) for at in dots if field[:at] in row), None)


def _paths(row: Mapping[str, Any], before: str = "") -> list[str]:
    """Where text stands in an object."""
    found = []
    for key, value in row.items():
        if isinstance(value, str):
            found.append(f"{before}{key}")
        elif isinstance(value, Mapping) and not before:
            found += _paths(value, f"{key}.")
    return found
