"""The problems of Hanabi: orders of the deck, and the split of each order."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from llm_sra.task import Problem
from tasks.hanabi.cards import COLOURS, Card, full_deck
from tasks.hanabi.words import card_text

# For each split: the buckets of its orders, and its number of problems.
SPLITS: Mapping[str, tuple[range, int]] = {
    "train": (range(0, 70), 4096),
    "dev": (range(70, 85), 512),
    "test": (range(85, 100), 512),
}
MAX_SHUFFLES = 300  # so many shuffles miss a rare split once in 10^21 times, unless the deck has very few orders


@lru_cache(maxsize=16)
def all_problems(colours: int, ranks: int, split: str) -> tuple[Problem, ...]:
    """All problems of a split by index, such as `3x3-dev-0`: `{"deck": ["red 1", ...]}`, the first card on top.

    A generator seeded with the id shuffles until an order of the split comes up. Each order belongs to one split,
    whatever its index. An order that came up at an earlier index is left out, which happens only in tiny games.

    Raises:
        ValueError: If the deck has so few orders that none is in the split.
    """
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
    """A number from 0 to 99 that depends only on the order."""
    return int.from_bytes(hashlib.sha256(",".join(order).encode()).digest()[:8], "big") % 100
