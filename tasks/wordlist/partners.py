"""Scripted partners for word lists. Each reads the list from its messages alone and keeps no memory."""

import random
from collections.abc import Callable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.wordlist.listing import PASS, Listing, Sight, look
from tasks.wordlist.words import categories, category, fold

WANTED, TURNS = 2, 4  # the task's defaults
SLIP = 0.3  # how often the sloppy one errs


class _Reader(ScriptedPartner):
    """Reads the list, and says what `say` makes of it.

    Args:
        wanted: How many words complete the list.
        turns: Turns of an episode, both seats together.
    """

    def __init__(self, wanted: int = WANTED, turns: int = TURNS) -> None:
        self.wanted, self.turns = wanted, turns

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sight = look(messages)
        return self.say(sight, Listing(sight.category, self.wanted, sight.entries), rng)

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        """What to say about a list."""
        raise NotImplementedError


class Diligent(_Reader):
    """Writes a new word of the category until the list is complete; then passes."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return PASS if listing.complete else new_word(listing, rng)


class Lazy(_Reader):
    """Always passes."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return PASS


class Late(Diligent):
    """Passes until its own last turn, then writes a new word: at most one."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return super().say(sight, listing, rng) if sight.turn >= self.turns // 2 - 1 else PASS


class Sloppy(Diligent):
    """As the diligent one, but three times in ten it misspells the word, or writes one of another category."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        word = super().say(sight, listing, rng)
        if word == PASS or rng.random() >= SLIP:
            return word
        return rng.choice((misspelt, off_topic_word))(listing, rng)


class Repeater(_Reader):
    """Writes once more what was written last; passes while the list is empty."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return sight.entries[-1] if sight.entries else PASS


class OffTopic(_Reader):
    """Always writes a word of another category."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return off_topic_word(listing, rng)


class Saboteur(_Reader):
    """Fills the list with look-alikes: misspelt words of the category, which count for nothing."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return misspelt(listing, rng)


class Half(Diligent):
    """At each turn, with probability 0.5, as the diligent one; else passes."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return super().say(sight, listing, rng) if rng.random() < 0.5 else PASS


class Starter(Diligent):
    """Writes a new word at its own first turn; then passes."""

    def say(self, sight: Sight, listing: Listing, rng: random.Random) -> str:
        return super().say(sight, listing, rng) if sight.turn == 0 else PASS


def new_word(listing: Listing, rng: random.Random) -> str:
    """A word of the category that is not on the list yet; `pass` if all are."""
    left = [word for word in listing.kind.words if word not in listing.words]
    return rng.choice(left) if left else PASS


def off_topic_word(listing: Listing, rng: random.Random) -> str:
    """A word of another category that is none of the list's category, too (`orange`)."""
    others = [word for name in categories() if name != listing.category for word in category(name).words]
    return rng.choice([word for word in others if listing.kind.find(word) is None])


def misspelt(listing: Listing, rng: random.Random) -> str:
    """A word of the category with two neighbouring letters swapped or one doubled, so that it is none."""
    while True:
        word = rng.choice(listing.kind.words)
        at = rng.randrange(len(word) - 1)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        changed = rng.choice((swapped, word[: at + 1] + word[at:]))
        if "," not in changed and fold(changed) and listing.kind.find(changed) is None:
            return changed


PARTNERS: Mapping[str, Callable[..., ScriptedPartner]] = {
    "diligent": Diligent,
    "lazy": Lazy,
    "late": Late,
    "sloppy": Sloppy,
    "repeater": Repeater,
    "off_topic": OffTopic,
    "saboteur": Saboteur,
    "half": Half,
    "starter": Starter,
}
