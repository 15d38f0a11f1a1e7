"""What the tests of GSM8K build on: one problem, made-up data, and a relay played from a list of replies."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from support import play_replies

from llm_sra.task import Outcome, Problem, Reward, Task

RNG = random.Random(0)
QUESTION = "Ada has 3 boxes with 14 pens each. How many pens does she have?"
PENS = Problem("pens", {"question": QUESTION, "answer": "42"})


def made_up_rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Made-up problems in the data set's form; the higher the number, the longer the question."""
    return [
        {
            "question": f"Bo has {n} marbles and finds {n} more" + " in his yard" * (n % 3) + ". How many has he now?",
            "answer": f"He now has {n} + {n} = <<{n}+{n}={2 * n}>>{2 * n} marbles.\n#### {2 * n:,}",
        }
        for n in range(start, start + count)
    ]


def write_data(folder: Path, train_rows: Sequence[object], test_rows: Sequence[object]) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in (("train", train_rows), ("test", test_rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(folder)


def play(task: Task, replies: Sequence[str]) -> tuple[Outcome, dict[str, list[Reward]]]:
    """Play the pens with these replies, all of which must be asked for; the outcome and each seat's rewards."""
    return play_replies(task, PENS, replies, RNG)
