"""How many of a model's replies count before it is trained: `python -m benchmarks.legal --model FOLDER`.

A task whose replies are hardly ever legal teaches a model nothing: all its episodes end alike. Replies are sampled at
temperature 1, from all tokens, at the first turn of a few problems, with the rules in words and lenient reading. In
training, tasks with `choices` let a model say only its words; here they do not.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_sra.engines import EngineOptions, Request, make_engine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.registry import load_task
from llm_sra.task import Sampling, Task
from tasks.gsm8k.answers import final_answer
from tasks.hanabi.rules import legal_moves
from tasks.hanabi.words import read_move as hanabi_move
from tasks.kitchen.grid import MOVES as KITCHEN
from tasks.moves import named_move
from tasks.tag.world import MOVES as TAG
from tasks.worksheet.sheet import PASS, read_line

REPLIES, PROBLEMS = 64, 4
SHOWN = 5  # replies that are printed, the most frequent ones
_SUM = re.compile(r"[0-9]+\+[0-9]+=[0-9]+")


@dataclass(frozen=True)
class Legal:
    """How replies of a task are judged.

    Attributes:
        options: Of the task.
        counts: Whether a reply is legal: of the task, the state before it and the reply.
        tokens: Most tokens of a reply.
    """

    options: Mapping[str, Any]
    counts: Callable[[Task, Any, str], bool]
    tokens: int = 16


TOLD = {"explain": True, "strict": False}
LEGAL: Mapping[str, Legal] = {
    "effort": Legal(TOLD, lambda task, state, reply: reply.strip(" .*").casefold() in task.legal_replies()),
    "wordlist": Legal({}, lambda task, state, reply: state.add(reply).verdicts[-1] in ("pass", "new")),
    "worksheet": Legal(
        TOLD, lambda task, state, reply: read_line(reply) == PASS or bool(_SUM.fullmatch(read_line(reply)))
    ),
    "kitchen": Legal(TOLD, lambda task, state, reply: named_move(reply, KITCHEN, strict=False) is not None),
    "tag": Legal(TOLD, lambda task, state, reply: named_move(reply, TAG, strict=False) is not None),
    "hanabi": Legal(TOLD, lambda task, state, reply: hanabi_move(reply, strict=False) in legal_moves(state), 32),
    "gsm8k": Legal(
        {"strict": True, "explain": True}, lambda task, state, reply: final_answer(reply, strict=True) is not None, 256
    ),
}


@dataclass(frozen=True)
class Row:
    """A task's line of the table.

    Attributes:
        task: Its name.
        prompt: Tokens of the longest prompt.
        legal: Share of legal replies, in [0, 1].
        replies: How many.
        often: The most frequent replies, and how often each came.
    """

    task: str
    prompt: int
    legal: float
    replies: int
    often: tuple[tuple[str, int], ...]


def measure(model: str, tasks: Sequence[str], replies: int, gsm8k: Path | None = None) -> Iterator[Row]:
    """A row for each task.

    Args:
        model: Folder or name.
        tasks: Names.
        replies: Replies a task, over `PROBLEMS` problems.
        gsm8k: Folder of GSM8K's data; None fetches it from the hub.
    """
    base, tokenizer = load_model(model, dtype="float32")
    renderer = Renderer(tokenizer)
    engine = make_engine(EngineOptions(), AdapterBank(base), renderer)
    for name in tasks:
        given = {"data_path": str(gsm8k)} if name == "gsm8k" and gsm8k else {}
        task = load_task(name, {**LEGAL[name].options, **given})
        states = [task.start(problem, random.Random(0)) for problem in task.problems("train", PROBLEMS)]
        asked = []
        for number in range(replies):
            state = states[number % len(states)]
            prompt = renderer.render(task.view(state, task.actors(state)[0]))
            asked.append((state, Request(prompt, None, Sampling(), LEGAL[name].tokens, task.stop, seed=number)))
        said = [done.text for done in engine.generate([request for _, request in asked])]
        good = [LEGAL[name].counts(task, state, text) for (state, _), text in zip(asked, said, strict=True)]
        longest = max(len(request.prompt_ids) for _, request in asked)
        often = Counter(text.strip()[:60] for text in said).most_common(SHOWN)
        yield Row(name, longest, sum(good) / len(good), len(good), tuple(often))


def table(rows: Sequence[Row]) -> str:
    """The table, as Markdown."""
    lines = ["| task | prompt, tokens | legal replies | most frequent |", "|---|---|---|---|"]
    for row in rows:
        often = ", ".join(f"`{text}` {count}" for text, count in row.often).replace("\n", " ").replace("|", "\\|")
        lines.append(f"| {row.task} | {row.prompt} | {row.legal:.2f} of {row.replies} | {often} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("legal", description=__doc__)
    parser.add_argument("--model", required=True, help="folder or hub name")
    parser.add_argument("--tasks", nargs="+", choices=tuple(LEGAL), default=[name for name in LEGAL if name != "gsm8k"])
    parser.add_argument("--replies", type=int, default=REPLIES, help="for each task (default: %(default)s)")
    parser.add_argument("--gsm8k", type=Path, help="folder of GSM8K's data, for that task")
    args = parser.parse_args(argv)
    if args.replies < 1:
        parser.error(f"--replies must be 1 or more, got {args.replies}")
    rows = []
    for row in measure(args.model, args.tasks, args.replies, args.gsm8k):
        rows.append(row)
        print(f"{row.task}: {row.legal:.2f}", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
