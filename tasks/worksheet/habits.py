"""Measures how an embedded model plays: `python -m tasks.worksheet.habits DIR` prints a table of its habits.

The model has one seat, and partners with random mixed habits have the other, on problems that it was not taught.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llm_sra.task import Message
from tasks.worksheet.lessons import any_habit
from tasks.worksheet.sheet import Sheet
from tasks.worksheet.task import Worksheet

BATCH = 256


@torch.no_grad()
def say(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, views: Sequence[Sequence[Message]], greedy: bool
) -> list[str]:
    """The model's reply to each view, greedy or at temperature 1."""
    tokenizer.padding_side = "left"
    prompts: Any = tokenizer.apply_chat_template(
        [[message.as_dict() for message in view] for view in views],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    )
    sampling = {} if greedy else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    generate: Any = model.generate
    ids = generate(**prompts, do_sample=not greedy, max_new_tokens=Worksheet.max_reply_tokens, **sampling)
    return list(tokenizer.batch_decode(ids[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True))


def play(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seat: str,
    count: int,
    greedy: bool = False,
    seed: int = 0,
) -> list[Sheet]:
    """Play sheets on problems of the dev split (repeated where there are fewer than `count`)."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    task = Worksheet()
    problems = task.problems("dev", seed=seed)
    sheets = [task.start(problems[index % len(problems)], rng) for index in range(count)]
    partners = [any_habit(rng) for _ in sheets]
    for _ in range(task.turns):
        if task.actors(sheets[0]) == (seat,):
            lines = [
                line
                for start in range(0, count, BATCH)
                for line in say(
                    model, tokenizer, [task.view(sheet, seat) for sheet in sheets[start : start + BATCH]], greedy
                )
            ]
        else:
            lines = [partner.line(sheet, rng) for partner, sheet in zip(partners, sheets, strict=True)]
        sheets = [
            task.step(sheet, dict.fromkeys(task.seats, line), rng)[0] for sheet, line in zip(sheets, lines, strict=True)
        ]
    return sheets


def shares(sheets: Sequence[Sheet], turn: int) -> tuple[dict[str, float], float]:
    """What the lines at one turn are worth.

    Args:
        sheets: Finished sheets.
        turn: Index of the line.

    Returns:
        The share of right (`useful`), `pass` and wrong lines on sheets whose chain was not yet complete, and the share
        of `pass` on the others (NaN if there are none).
    """
    is_done = [Sheet(sheet.numbers, sheet.lines[:turn]).complete for sheet in sheets]
    verdicts = [sheet.verdicts[turn] for sheet in sheets]
    open_ones = Counter(verdict for verdict, done in zip(verdicts, is_done, strict=True) if not done)
    done_ones = Counter(verdict for verdict, done in zip(verdicts, is_done, strict=True) if done)
    total = open_ones.total() or 1
    open_shares = {
        "right": open_ones["useful"] / total,
        "pass": open_ones["pass"] / total,
        "wrong": (open_ones["wrong"] + open_ones["repeated"]) / total,
    }
    return open_shares, done_ones["pass"] / done_ones.total() if done_ones else float("nan")


def table(folder: Path, count: int) -> str:
    """Habits at each own turn of both seats, sampled and greedy, as a Markdown table."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        "| seat | own turn | right | pass | wrong | pass when complete | right, greedy |",
        "|---|---|---|---|---|---|---|",
    ]
    for index, seat in enumerate(Worksheet.seats):
        sampled = play(model, tokenizer, seat, count)
        greedy = play(model, tokenizer, seat, count, greedy=True)
        for turn in range(index, len(sampled[0].lines), len(Worksheet.seats)):
            open_shares, done = shares(sampled, turn)
            figures = [*open_shares.values(), done, shares(greedy, turn)[0]["right"]]
            own = turn // len(Worksheet.seats) + 1
            rows.append(f"| {seat} | {own} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a model folder")
    parser.add_argument("--count", type=int, default=1000, help="sheets per seat (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(table(options.folder, options.count))


if __name__ == "__main__":
    main()
