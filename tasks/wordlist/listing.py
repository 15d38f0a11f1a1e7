"""What stands on a list and what it is worth: the one writing and reading that rules, metrics and partners share.

This module does not know seats, rewards or policies.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from tasks.wordlist.words import Category, categories, category, fold

PASS = "pass"
MAX_ENTRY_CHARS = 40
AROUND = string.whitespace + string.punctuation + "“”‘’«»…–—•"  # what does not stand around an entry
_NAME, _ALREADY, _EMPTY = "Name ", "On the list already: ", "The list is empty."
_SHOWN = re.compile(rf"(?:{_NAME}([a-z ]+)\. )?(?:{_EMPTY}|{_ALREADY}(.*)\.)")
_ASKED = {category(name).one: name for name in categories()}
_PASSES = (PASS, "i pass")

Verdict = Literal["pass", "new", "repeated", "wrong"]


@dataclass(frozen=True)
class Listing:
    """A list and all that was said.

    Attributes:
        category: Name of the category.
        wanted: How many different words complete the list, 1 or more.
        said: Oldest first, each as `read` made it: a word, `pass`, or what was written instead.
        replies: The same as they came.
        shown: The words of the problem's examples.
    """

    category: str
    wanted: int
    said: tuple[str, ...] = ()
    replies: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    def add(self, reply: str) -> "Listing":
        """The list after one more reply."""
        return replace(self, said=(*self.said, read(reply, self.kind)), replies=(*self.replies, reply))

    def until(self, turn: int) -> "Listing":
        """The list as it stood before a turn, counted from 0."""
        return replace(self, said=self.said[:turn], replies=self.replies[:turn])

    @property
    def kind(self) -> Category:
        """The category."""
        return category(self.category)

    @property
    def entries(self) -> tuple[str, ...]:
        """What stands on the list: all that was said but `pass`."""
        return tuple(entry for entry in self.said if entry != PASS)

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What each saying is worth.

        `new`: a word of the category that did not stand there yet; `repeated`: one that did; `wrong`: everything else
        but `pass`.
        """
        verdicts: list[Verdict] = []
        there: set[str] = set()
        for entry in self.said:
            word = None if entry == PASS else self.kind.find(entry)
            if entry == PASS:
                verdicts.append("pass")
            elif word is None:
                verdicts.append("wrong")
            else:
                verdicts.append("repeated" if word in there else "new")
                there.add(word)
        return tuple(verdicts)

    @property
    def words(self) -> tuple[str, ...]:
        """The different words of the category on the list, in the order in which they came."""
        pairs = zip(self.said, self.verdicts, strict=True)
        return tuple(word for entry, verdict in pairs if verdict == "new" and (word := self.kind.find(entry)))

    @property
    def complete(self) -> bool:
        """Whether as many different words of the category stand there as are wanted."""
        return self.verdicts.count("new") >= self.wanted


def read(reply: str, kind: Category) -> str:
    """What a reply puts on the list.

    Args:
        reply: Untrusted. Its first line that is not blank counts; the rest is not read.
        kind: The category of the list.

    Returns:
        `pass`, if it says so (`Pass.`, `**pass**`, `I pass`); a word of the category in its usual spelling, if it is
        one by `Category.find`; or what it says instead, cut at 40 characters, on one line and without commas, so that
        it stands there as one entry.
    """
    line = next((line for line in reply.splitlines() if line.strip()), "")
    if fold(line) in _PASSES:
        return PASS
    return kind.find(line) or _entry(line)


def _entry(line: str) -> str:
    """A text as one entry: never `pass`, nor anything that ends the list or looks like two entries."""
    one = " ".join(line.replace(",", " ").split())[:MAX_ENTRY_CHARS].strip(AROUND)
    return one if one.casefold() not in ("", PASS) else f"({one})"


def write(listing: Listing, first: bool) -> str:
    """The list as a seat sees it, such as `Name an animal. On the list already: fox, cow.` where it is asked for first.

    Args:
        listing: The list.
        first: Whether to ask for a word of the category: in the first message about a list.
    """
    so_far = f"{_ALREADY}{', '.join(listing.entries)}." if listing.entries else _EMPTY
    return f"{_NAME}{listing.kind.one}. {so_far}" if first else so_far


@dataclass(frozen=True)
class Sight:
    """A list as its messages show it.

    Attributes:
        category: Of the list.
        entries: What stands on it.
        turn: How often the seat has replied about this list.
    """

    category: str
    entries: tuple[str, ...]
    turn: int


def look(messages: Sequence[Mapping[str, str]]) -> Sight:
    """The list that a seat's messages end with; lists of examples before it do not count.

    Raises:
        ValueError: If they show no list of this task.
    """
    turn = 0
    entries: tuple[str, ...] | None = None
    for message in reversed(messages):
        if message["role"] == "assistant":
            turn += 1
            continue
        match = _SHOWN.fullmatch(message["content"])
        if match is None:
            break
        if entries is None:
            entries = tuple(match[2].split(", ")) if match[2] is not None else ()
        if match[1] in _ASKED:
            return Sight(_ASKED[match[1]], entries, turn)
    shown = messages[-1]["content"] if messages else ""
    raise ValueError(
        f"a word list looks like 'Name an animal. On the list already: fox, cow.', got {shown[:80]!r}: the partners of "
        "wordlist play word lists only"
    )
