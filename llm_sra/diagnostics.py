"""How long replies are and how sure their writers were, turn by turn; the same rules for training and evaluation.

The task's own numbers (accuracy, flips, repetition, ...) are in its outcome; here is what any task's replies have.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from llm_sra.task import Episode

PERCENTILES = (50, 95)
MOST_TURNS = 8  # of a seat that are reported one by one: the rounds of a debate, not the steps of a walk


def reported(turns: Iterable[int]) -> list[int]:
    """The turns, counted from 0, that are reported one by one; without -1, which stands for no turn."""
    return sorted({turn for turn in turns if 0 <= turn < MOST_TURNS})


def percentiles(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """`NAME_p50` and `NAME_p95` of each name's values."""
    return {
        f"{name}_p{percent}": float(np.percentile(numbers, percent))
        for name, numbers in values.items()
        for percent in PERCENTILES
    }


def reply_numbers(episodes: Iterable[Episode]) -> dict[str, float]:
    """What an evaluation says about a seat's replies, over all of them and by turn, counted from 0.

    Returns:
        For every seat, `reply_chars/SEAT_p50` and `_p95`, lengths in characters. Of models, `surprise/SEAT`: nats per
        token that the model itself gave to what it said, which estimates its entropy if it was sampled, and is below
        it if it was not. `reply_chars/TURN/SEAT_...` and `surprise/TURN/SEAT` are those of one turn.
    """
    lengths: dict[str, list[float]] = defaultdict(list)
    nats: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for seat in episode.policies:
            replies = [turn.reply for turn in episode.turns_of(seat)]
            alone = reported(range(len(replies)))
            for number, reply in enumerate(replies):
                for name in (seat, *[f"{number}/{seat}"][: number in alone]):
                    lengths[f"reply_chars/{name}"].append(float(len(reply.text)))
                    nats[f"surprise/{name}"].extend(-logprob for logprob in reply.logprobs)
    means = {name: float(np.mean(values)) for name, values in nats.items() if values}
    return percentiles(lengths) | means
