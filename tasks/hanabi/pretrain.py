"""Makes the embedded model from nothing on a CPU: `python -m tasks.hanabi.pretrain --out DIR`.

Supervised learning on what a beginner would do (`lessons`), in the game of the paper, without the rules in the view.
Only problems of the train split are used.
"""

import random
import re
from collections.abc import Sequence
from itertools import chain, combinations, product
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tasks import starting_model
from tasks.hanabi.cards import Card, Known, Setup
from tasks.hanabi.lessons import BEGINNER, Lesson, games
from tasks.hanabi.rules import Move
from tasks.hanabi.task import Hanabi
from tasks.hanabi.words import card_text, known_text, move_text, told_text
from tasks.starting_model import Encoded, Made

HIDDEN, LAYERS = 64, 2
STEPS = 2500
GAMES = 4  # a step, of some 18 moves each
LABELS = ("Discards: ", "Tokens: ", "Lives: ", "Deck: ", "Turns left: ", "Your cards: ", "Last moves:", "Your moves:")
SIGNS = (", ", "none", ": none", ": play ", ": discard ", ", right", ", wrong")
Batch = tuple[Encoded, torch.Tensor]
T = TypeVar("T")


def phrases(setup: Setup) -> list[str]:
    """The parts of views and moves: cards, everything that can be known of a card, moves, labels.

    A move in the list of legal moves, or in a reply, is another phrase than the same move in the last moves.
    """
    told = [*setup.palette, *range(1, setup.ranks + 1)]
    places, away = range(1, setup.hand + 1), range(1, setup.players)
    known = [
        known_text(Known(colours, ranks), setup)
        for colours, ranks in product(_some(setup.palette), _some(range(1, setup.ranks + 1)))
    ]
    hints = [move_text(Move("hint", at, what)) for at, what in product(away, told)]
    return [
        *(move_text(Move("play", at)) for at in places),
        *(move_text(Move("discard", at)) for at in places),
        *hints,
        *(f": {hint}" for hint in [*hints, *(f"hint you {told_text(what)}" for what in told)]),
        *(card_text(Card(colour, rank)) for colour, rank in product(setup.palette, range(setup.ranks + 1))),
        *(f" {text}" for text in known),
        *(f" ({text})" for text in known),
        *(f"Player {at}: " for at in away),
        *(f"{label} of {most}" for label, most in (("", setup.information), ("", setup.lives))),
        f"Stacks, up to {setup.ranks}: ",
        *LABELS,
        *SIGNS,
    ]


def _some(items: Sequence[T]) -> list[tuple[T, ...]]:
    """All parts of a sequence except the empty one."""
    return list(chain.from_iterable(combinations(items, size) for size in range(1, len(items) + 1)))


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that has every phrase of the game of the paper as one token. ChatML.

    Added tokens would not work: text of other speakers is never encoded with them.
    """
    known = phrases(Hanabi().setup)
    longest_first = sorted(known, key=len, reverse=True)
    pieces = "|".join([*map(re.escape, longest_first), starting_model.WORDS])
    return starting_model.byte_level_tokenizer([*starting_model.ROLES, *known], size=4096, pieces=pieces)


def batch_of(tokenizer: PreTrainedTokenizerFast, lessons: Sequence[Lesson]) -> Batch:
    """The lessons' tensors from `encode`, and the probabilities (lessons, vocabulary) of a reply's first token.

    That token is the whole move, because every legal move is one of the phrases.
    """
    moves = {move for lesson in lessons for move in lesson.chances}
    token = {move: tokenizer(move, add_special_tokens=False)["input_ids"][0] for move in moves}
    chances = torch.zeros(len(lessons), len(tokenizer))
    for row, lesson in zip(chances, lessons, strict=True):
        for move, chance in lesson.chances.items():
            row[token[move]] = chance
    return starting_model.encode(tokenizer, [lesson.messages for lesson in lessons]), chances


def habit_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Cross-entropy of a reply's tokens, in nats per token. The move's target is the habit's distribution, not a draw.

    One draw says little about a random habit: from equally many draws a model hardly learned to tell cards that fit
    from those that do not.
    """
    (ids, mask, labels), chances = batch
    rows, columns = (labels != starting_model.IGNORED).nonzero(as_tuple=True)
    hidden = model.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state[rows, columns - 1]
    targets = torch.nn.functional.one_hot(labels[rows, columns], chances.shape[1]).to(chances.dtype)
    is_first = torch.cat([torch.ones(1, dtype=torch.bool), rows[1:] != rows[:-1]])
    targets[is_first] = chances
    logits: torch.Tensor = model.get_output_embeddings()(hidden)
    return -(targets * logits.log_softmax(dim=-1)).sum(dim=-1).mean()


def pretrain(steps: int | None = None, seed: int = 0) -> Made:
    """Make and train the model, for `STEPS` steps if None is given.

    The same seed and number of threads give the same model.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    task = Hanabi(explain=False)
    problems = task.problems("train")
    made = tokenizer()
    model = starting_model.llama(made, HIDDEN, LAYERS)

    def batch(step: int) -> Batch:
        return batch_of(made, games(task, problems, BEGINNER, GAMES, rng))

    starting_model.learn(model, steps or STEPS, batch, habit_loss)
    return model, made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    starting_model.make(__doc__, {"player": pretrain}, arguments)


if __name__ == "__main__":
    main()
