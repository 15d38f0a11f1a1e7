"""Loads the data set from a folder or the hub. It knows neither the rules nor our splits."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import load_dataset

from llm_sra.task import Problem
from tasks.gsm8k.answers import final_answer

HUB, CONFIG = "openai/gsm8k", "main"
PARTS = ("train", "test")
EXPECTED = 'one problem per line, {"question": "...", "answer": "... #### number"}'


class DataError(ValueError):
    """The data set cannot be used: missing, or not of the expected form."""


class Source:
    """The two parts of the data set, each loaded when it is first asked for.

    Args:
        folder: Holds `train.jsonl` and `test.jsonl`, or parquet files whose names begin with `train` and `test`; None
            for the hub.

    Raises:
        DataError: If the folder or one of its files is missing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._parts: dict[str, tuple[Problem, ...]] = {}
        if folder is None:
            return
        self._files = {part: _files_of(folder, part) for part in PARTS}
        if missing := [f"{part}.jsonl" for part, files in self._files.items() if not files]:
            what = f"no {' and no '.join(missing)} in it" if folder.is_dir() else "no such folder"
            raise DataError(
                f"gsm8k option `data_path`: {what} ({folder.absolute()}); expected a folder with train.jsonl and "
                f"test.jsonl, {EXPECTED}, or with train*.parquet and test*.parquet; without `data_path` they are taken "
                f"from the hub ({HUB})"
            )

    def part(self, name: str) -> tuple[Problem, ...]:
        """The problems of `train` or `test` in the order of the file, each question once.

        Raises:
            DataError: If they cannot be loaded, or one of them is not of the expected form.
        """
        if name not in self._parts:
            rows = _from_hub(name) if self._folder is None else _from_files(self._files[name])
            problems = [problem_of(row, f"{self._folder or HUB}, {name}, row {i}") for i, row in enumerate(rows, 1)]
            self._parts[name] = tuple({problem.id: problem for problem in problems}.values())
        return self._parts[name]


def problem_of(row: Mapping[str, Any], place: str) -> Problem:
    """A row of the data set as a problem. Its id is a hash of the question, so it does not depend on the rows' order.

    Args:
        row: A row with `question` and `answer`.
        place: Where the row is, for the error.

    Raises:
        DataError: If the row is not of the expected form.
    """
    question, answer = row.get("question"), row.get("answer")
    reference = final_answer(answer, strict=True) if isinstance(answer, str) else None
    if not isinstance(question, str) or reference is None:
        raise DataError(f"{place}: expected {EXPECTED}, got {str(dict(row))[:300]}")
    digest = hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()
    return Problem(digest[:16], {"question": question, "answer": str(reference)})


def _files_of(folder: Path, part: str) -> list[Path]:
    jsonl = folder / f"{part}.jsonl"
    return [jsonl] if jsonl.is_file() else sorted(folder.glob(f"{part}*.parquet"))


def _from_files(paths: Sequence[Path]) -> Iterable[Mapping[str, Any]]:
    kind, files = ("json" if paths[0].suffix == ".jsonl" else "parquet"), [str(path) for path in paths]
    # Read through a temporary folder, so that nothing is left in, or taken from, the user's cache.
    with tempfile.TemporaryDirectory() as cache:
        try:
            return list(load_dataset(kind, data_files=files, split="train", cache_dir=cache, keep_in_memory=True))
        except Exception as error:  # `datasets` does not document what it raises here
            raise DataError(f"cannot read {', '.join(files)}: expected {EXPECTED}: {error}") from error


def _from_hub(name: str) -> Iterable[Mapping[str, Any]]:
    try:
        loaded: Iterable[Mapping[str, Any]] = load_dataset(HUB, CONFIG, split=name)
        return loaded
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot load {HUB} from the hub: {error}. To do without it, put train.jsonl and test.jsonl into a "
            "folder and name it in the option `data_path`"
        ) from error
