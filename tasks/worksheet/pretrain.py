"""Makes the two embedded models from nothing on a CPU: `python -m tasks.worksheet.pretrain --out DIR`.

Supervised learning on the lines of one seat on simulated worksheets, with their end-of-turn tokens. At first only on
lines that a diligent seat would have written, which teaches the model to read the sheet and to add up. Then on all
lines, which teaches it the habits that it should have. Only problems of the train split are used.
"""

import random
from collections.abc import Sequence
from functools import partial

import torch
from transformers import PreTrainedTokenizerFast

from tasks import starting_model
from tasks.starting_model import Encoded, Made
from tasks.worksheet.blueprints import BLUEPRINTS, Blueprint
from tasks.worksheet.lessons import Habit, Lesson, lessons
from tasks.worksheet.task import Worksheet

BATCH = 48
EXEMPLARY = 0.7  # share of the steps that learn only from exemplary lines
DILIGENT = Habit(right=0.75, rest=0.15)  # the learner's habit in these steps


def encode(tokenizer: PreTrainedTokenizerFast, batch: Sequence[Lesson], only_exemplary: bool) -> Encoded:
    """Token ids, attention mask and labels, each (batch, tokens); only what should be learned has labels."""
    learned = [lesson.exemplary for lesson in batch] if only_exemplary else None
    return starting_model.encode(tokenizer, [lesson.conversation for lesson in batch], learned)


def pretrain(blueprint: Blueprint, steps: int | None = None, seed: int = 0) -> Made:
    """Make and train one model, for the blueprint's number of steps if None is given.

    The same seed and number of threads give the same model.
    """
    total = steps or blueprint.steps
    torch.manual_seed(seed + blueprint.seed)
    rng = random.Random(seed + blueprint.seed)
    task = Worksheet()
    problems = task.problems("train")
    tokenizer = blueprint.tokenizer()
    model = blueprint.model(tokenizer)

    def batch(step: int) -> Encoded:
        first = step <= EXEMPLARY * total
        taught = lessons(task, problems, DILIGENT if first else blueprint.habit, BATCH, rng)
        return encode(tokenizer, taught, only_exemplary=first)

    starting_model.learn(model, total, batch)
    return model, tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    makers = {name: partial(pretrain, blueprint) for name, blueprint in BLUEPRINTS.items()}
    starting_model.make(__doc__, makers, arguments)


if __name__ == "__main__":
    main()
