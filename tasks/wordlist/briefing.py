"""Wordlist's rules in words and worked examples, for models that were not taught them.

Neutral, and the same for every seat and arm. The examples' words differ from problem to problem, so that training
favours none of them.
"""

import random
from collections.abc import Sequence

from llm_sra.task import Message
from tasks.wordlist.listing import PASS, Listing, write
from tasks.wordlist.words import category

_RULES = """\
Two writers fill one list in turns, {turns} turns in all. Both get 1 point if {wanted} different {words} of the kind \
that is asked for stand{s} on it at the end. Each word that is written costs its writer {cost:g} points; pass costs \
nothing. Answer with one word that is not on the list yet, or with pass."""
EXAMPLE_WORDS = 5  # that the examples of one problem need
LONGEST = 6  # letters of such a word: the shorter, the more usual


def rules(*, wanted: int, turns: int, cost: float) -> str:
    """The rules as system text; the numbers are those of the task's options."""
    one = wanted == 1
    return _RULES.format(turns=turns, wanted=wanted, words="word" if one else "words", s="s" if one else "", cost=cost)


def draw_words(name: str, rng: random.Random) -> list[str]:
    """Words of a category for the examples of one problem, in any order: short ones."""
    return rng.sample([word for word in category(name).words if len(word) <= LONGEST and word.isalpha()], EXAMPLE_WORDS)


def examples(name: str, words: Sequence[str]) -> list[Message]:
    """Four short lists and a right reply to each, as user and assistant turns: two words and two `pass`.

    Both are shown beside an empty list and beside one that is not, so that the examples do not say when to rest. Their
    order depends on the words: a model that has just seen a word is more ready to pass, and the other way round.
    """
    a, b, c, d, e = words
    shown = [((), PASS), ((a,), b), ((c, d), PASS), ((), e)]
    random.Random(" ".join(words)).shuffle(shown)
    return [
        message
        for entries, reply in shown
        for message in (
            Message("user", write(Listing(name, len(entries) + 1, tuple(entries)), first=True)),
            Message("assistant", reply),
        )
    ]
