"""The problems of Hanabi: orders of the deck, and the split that each belongs to."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from llm_sra.task import Problem
from tasks.hanabi.cards import COLOURS, Card, full_deck
from tasks.hanabi.words import card_text

# By split: the buckets whose orders belong to it, and how many indices it has.
SPLITS: Mapping[str, tuple[range, int]] = {
    "train": (range(0, 70), 4096),
    "dev": (range(70, 85), 512),
    "test": (range(85, 100), 512),
}
MAX_SHUFFLES = 300  # an order of a rare split is missed this often once in 10^21 times, unless there are very few


@lru_cache(maxsize=16)
def all_problems(colours: int, ranks: int, split: str) -> tuple[Problem, ...]:
    """All problems of a split in order of index, like `3x3-dev-0`: `{"deck": ["red 1", ...]}`, the first card on top.

    The generator is seeded with the id and shuffles until an order of the split comes up. An order belongs to one
    split, whatever its index; one that came up at an earlier index is left out, which happens in tiny games only.

    Raises:
        ValueError: If there is no such split, or the deck has so few orders that the split has none.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    buckets, count = SPLITS[split]
    cards = [card_text(card) for card in full_deck(colours, ranks)]
    found: dict[tuple[str, ...], str] = {}
    for index in range(count):
        problem_id = f"{colours}x{ranks}-{split}-{index}"
        order = _draw_order(cards, problem_id, buckets)
        if order is not None:
            found.setdefault(order, problem_id)
    if not found:
        raise ValueError(f"no order of these {len(cards)} cards is in the {split} split: use more colours or ranks")
    return tuple(Problem(problem_id, {"deck": list(order)}) for order, problem_id in found.items())


def read_deck(texts: Sequence[str]) -> tuple[Card, ...]:
    """The cards of a problem.

    Raises:
        ValueError: If one is not like `red 1`.
    """
    cards = []
    for text in texts:
        colour, _, rank = text.partition(" ")
        if colour not in COLOURS or not rank.isdecimal():
            raise ValueError(f"a card is like 'red 1', got {text!r}")
        cards.append(Card(colour, int(rank)))
    return tuple(cards)


def _draw_order(cards: Sequence[str], problem_id: str, buckets: range) -> tuple[str, ...] | None:
    rng, order = random.Random(problem_id), list(cards)
    for _ in range(MAX_SHUFFLES):
        rng.shuffle(order)
        if _bucket(order) in buckets:
            return tuple(order)
    return None


def _bucket(order: Sequence[str]) -> int:
    """A number from 0 to 99 that depends on the order alone."""
    return int.from_bytes(hashlib.sha256(",".join(order).encode()).digest()[:8], "big") % 100
