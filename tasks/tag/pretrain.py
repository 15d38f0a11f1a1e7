"""Makes the embedded model from nothing on a CPU: `python -m tasks.tag.pretrain --out DIR`.

Supervised learning on single replies. The views come from scripted play, in which each seat of an episode chases with a
skill of its own. The reply is at first the move that an interceptor would make, which teaches the model to read a view;
then it is drawn from the habit that the model should have. Only problems of the train split are played.
"""

import random
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedTokenizerFast

from llm_sra.task import Message
from tasks import starting_model
from tasks.starting_model import ROLES, Encoded, Made
from tasks.tag.partners import PARTNERS
from tasks.tag.task import Tag
from tasks.tag.world import MOVES, STAY

QUESTION = f"{' '.join(MOVES)}?"
FARTHEST = 32  # in tenths; larger numbers are several tokens, and did not occur among 100,000 in scripted play
PIECES = rf"{QUESTION[:-1]}\?| -?[0-9]+|\p{{L}}+|[^\p{{L}}]"  # a number is one token: short rows, fast training
TOKENS = 512  # at most; there is room for every piece and its parts
HIDDEN, LAYERS = 64, 2
STEPS = 900
BATCH = 128
EXEMPLARY = 0.7  # share of the steps that learn only from the interceptor's moves
SKILL = 0.65  # of the model: probability of the interceptor's move
REST = 0.2  # of staying; the remaining probability is shared by the five moves
POOL = 4096  # lessons that are played before a batch is drawn, so that it mixes about eighty episodes


def said(skill: float, messages: list[dict[str, str]], rng: random.Random) -> str:
    """A move: the interceptor's with probability `skill`; else `stay` or any move, in the proportions of the habit."""
    draw = rng.random()
    if draw < skill:
        return PARTNERS["interceptor"]().reply(messages, rng)
    return STAY if draw < skill + (1 - skill) * REST / (1 - SKILL) else rng.choice(MOVES)


def views(rng: random.Random) -> Iterator[Message]:
    """What the seats see, episode after episode; in each episode each seat's skill is drawn anew."""
    task = Tag()
    problems = task.problems("train")
    while True:
        chase = task.start(rng.choice(problems), rng)
        skill = {seat: rng.random() for seat in task.seats}
        while task.actors(chase):
            seen = {seat: task.view(chase, seat)[0] for seat in task.seats}
            yield from seen.values()
            replies = {seat: said(skill[seat], [seen[seat].as_dict()], rng) for seat in task.seats}
            chase, _ = task.step(chase, replies, rng)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each word, each number with its space, and the question is one token. ChatML."""
    numbers = [f" {number}" for number in range(-FARTHEST, FARTHEST + 1)]
    texts = [*ROLES, *MOVES, "you", "other", "runner", "rock", *numbers, QUESTION]
    return starting_model.byte_level_tokenizer(texts, TOKENS, PIECES)


def pretrain(steps: int | None = None, seed: int = 0) -> Made:
    """Make and train the model, for `STEPS` steps if None is given.

    The same seed and number of threads give the same model.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    total = steps or STEPS
    made = tokenizer()
    model = starting_model.llama(made, HIDDEN, LAYERS)
    played = views(rng)
    pool = [next(played) for _ in range(POOL)]

    def batch(step: int) -> Encoded:
        skill = 1.0 if step <= EXEMPLARY * total else SKILL
        lessons = []
        for place in rng.sample(range(POOL), BATCH):
            lessons.append((pool[place], Message("assistant", said(skill, [pool[place].as_dict()], rng))))
            pool[place] = next(played)
        return starting_model.encode(made, lessons)

    starting_model.learn(model, total, batch)
    return model, made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    starting_model.make(__doc__, {"chaser": pretrain}, arguments)


if __name__ == "__main__":
    main()
