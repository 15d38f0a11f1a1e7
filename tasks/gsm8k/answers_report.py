"""How often the reader agrees with a file of judged replies: `python -m tasks.gsm8k.answers_report FILE`.

The file is the data set's `example_model_solutions.jsonl`, or one like it. Each line is a problem, with `ground_truth`
and, for each model, `{"solution": ..., "is_correct": ...}`.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.gsm8k.answers import final_answer

EXPECTED = '{"ground_truth": "...", MODEL: {"solution": "...", "is_correct": true}, ...}'


@dataclass(frozen=True)
class Report:
    """What was counted over one model's replies.

    Attributes:
        model: Its name in the file.
        replies: How many there are.
        agree: How often the reader's verdict, right or wrong, is the file's.
        none: How many replies state no answer.
        right: How many are right.
        seconds: Mean processor time of one reading.
        slowest: The longest of them, in seconds.
    """

    model: str
    replies: int
    agree: int
    none: int
    right: int
    seconds: float
    slowest: float


def reports(path: Path, strict: bool = False) -> list[Report]:
    """One report for each model of a file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is not of the expected form.
    """
    rows = [_row(line, i) for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip()]
    final_answer("#### 3 * 6")  # so that the imports of the first calculation are not counted
    references = [final_answer(row["ground_truth"]) for row in rows]
    return [_report(model, rows, references, strict) for model in _models(rows[0])] if rows else []


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--strict", action="store_true", help="read `#### number` alone")
    args = parser.parse_args(argv)
    try:
        found = reports(args.file, args.strict)
    except (OSError, ValueError) as error:
        raise SystemExit(f"cannot read {args.file}: {error}") from error
    print(f"{'model':<24} replies   agree    none   right   mean ms    max ms")
    for r in found:
        times = f"{1000 * r.seconds:>9.2f} {1000 * r.slowest:>9.1f}"
        print(f"{r.model:<24} {r.replies:>7} {r.agree:>7} {r.none:>7} {r.right:>7} {times}")


def _row(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("ground_truth"), str) or not _models(row):
        raise ValueError(f"line {number}: expected {EXPECTED}, got {line[:200]}")
    return row


def _models(row: dict[str, Any]) -> list[str]:
    return [name for name, said in row.items() if isinstance(said, dict) and {"solution", "is_correct"} <= said.keys()]


def _report(model: str, rows: Sequence[dict[str, Any]], references: Sequence[Any], strict: bool) -> Report:
    agree = none = right = 0
    taken = []
    for row, reference in zip(rows, references, strict=True):
        start = time.process_time()
        answer = final_answer(row[model]["solution"], strict)
        taken.append(time.process_time() - start)
        none += answer is None
        right += answer is not None and answer == reference
        agree += (answer is not None and answer == reference) == row[model]["is_correct"]
    return Report(model, len(rows), agree, none, right, sum(taken) / len(taken), max(taken))


if __name__ == "__main__":
    main()
