"""Makes the embedded model from nothing on a CPU: `python -m tasks.kitchen.pretrain --out DIR`.

Supervised learning on single replies: what a seat sees on a random floor, and a move. At first it is the move that a
courier would make, which teaches the model to read the floor and to find its way. Then it is drawn from the habit that
the model should have. No episode is played for this, and there is no partner.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from transformers import PreTrainedTokenizerFast

from llm_sra.task import Message
from tasks import starting_model
from tasks.kitchen.grid import MOVES, OFFSETS, PLACES, POT, SIZE, STAY, Cell
from tasks.kitchen.partners import PARTNERS
from tasks.kitchen.sight import Sight, write
from tasks.starting_model import ROLES, Encoded, Made

CELLS: tuple[Cell, ...] = tuple(cell for cell in product(range(SIZE), range(SIZE)) if cell != POT)
LINES = r"[^\n]+|\n"  # a line of the view is one token: the shorter the rows, the faster the training
TOKENS = 1024  # at most; there is room for every line and its parts
HIDDEN, LAYERS, INTERMEDIATE = 64, 2, 172
STEPS = 450
BATCH = 128
EXEMPLARY = 0.7  # share of the steps that learn only from the courier's moves


@dataclass(frozen=True, slots=True)
class Habit:
    """How a seat chooses its move at one step.

    Attributes:
        courier: Probability of the move that a courier would make.
        rest: Probability of staying. The remaining probability is shared by the four directions.
    """

    courier: float
    rest: float

    def move(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """Draw a move."""
        draw = rng.random()
        if draw < self.courier:
            return PARTNERS["courier"]().reply(messages, rng)
        return STAY if draw < self.courier + self.rest else rng.choice(tuple(OFFSETS))


COURIER = Habit(courier=1.0, rest=0.0)
HABIT = Habit(courier=0.4, rest=0.3)


def any_sight(rng: random.Random) -> Sight:
    """A random floor as a seat sees it, each with the same probability."""
    own, other = rng.sample(CELLS, 2)
    onions = frozenset(place for place in PLACES if rng.random() < 0.5)
    return Sight(own, other, rng.random() < 0.5, rng.random() < 0.5, onions)


def lesson(habit: Habit, rng: random.Random) -> tuple[Message, Message]:
    """What a seat sees, and its reply."""
    seen = Message("user", write(any_sight(rng)))
    return seen, Message("assistant", habit.move([seen.as_dict()], rng))


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each line of a view, and each move, is one token. ChatML."""
    hands = (False, True)
    sights = [Sight(cell, cell, hand, hand, frozenset(PLACES if hand else ())) for cell in CELLS for hand in hands]
    lines = dict.fromkeys(line for sight in sights for line in write(sight).split("\n"))
    return starting_model.byte_level_tokenizer([*ROLES, *MOVES, *lines], TOKENS, LINES)


def pretrain(steps: int | None = None, seed: int = 0) -> Made:
    """Make and train the model, for `STEPS` steps if None is given.

    The same seed and number of threads give the same model.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    total = steps or STEPS
    made = tokenizer()
    model = starting_model.llama(made, HIDDEN, LAYERS, INTERMEDIATE)

    def batch(step: int) -> Encoded:
        habit = COURIER if step <= EXEMPLARY * total else HABIT
        return starting_model.encode(made, [lesson(habit, rng) for _ in range(BATCH)])

    starting_model.learn(model, total, batch)
    return model, made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    starting_model.make(__doc__, {"apprentice": pretrain}, arguments)


if __name__ == "__main__":
    main()
