"""Categories and their words: what counts as a word of a category, by one rule.

`words/CATEGORY.txt` has one word a line, further spellings and irregular plurals behind a comma. This module does not
know lists, seats or rewards.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tasks.bare import bare

FOLDER = Path(__file__).parent / "words"
_HYPHENS = re.compile("[-\u2010\u2011]")
_ARTICLE = re.compile(r"(?:an?|the) (?=.)")
_ENDINGS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"))
ONE: Mapping[str, str] = {  # how rules and questions call one word of a category
    "animals": "animal",
    "fruit": "fruit",
    "colours": "colour",
    "countries": "country",
    "trades": "job",
    "sports": "sport",
    "clothes": "piece of clothing",
    "vegetables": "vegetable",
    "instruments": "musical instrument",
}


@dataclass(frozen=True)
class Category:
    """A category.

    Attributes:
        name: `animals`.
        words: Each word as it is usually written, sorted.
        forms: Every spelling, folded, to its word.
    """

    name: str
    words: tuple[str, ...]
    forms: Mapping[str, str]

    @property
    def one(self) -> str:
        """One of its words with an article: `an animal`."""
        noun = ONE[self.name]
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"

    def find(self, text: str) -> str | None:
        """The word of the category that a text is; None if it is none, or more than one word.

        Capitals do not matter, nor do white space and punctuation around it, an article before it, a hyphen in place
        of a space, nor whether it stands in the plural (`s`, `es`, `ies` for `y`, `ves` for `f` or `fe`).
        """
        folded = fold(text)
        stems = [folded.removesuffix(end) + put for end, put in _ENDINGS if folded.endswith(end)]
        return next((self.forms[form] for form in (folded, *stems) if form in self.forms), None)


def fold(text: str) -> str:
    """A text as it is compared: small letters, single spaces for white space and hyphens, nothing around it."""
    spaced = " ".join(_HYPHENS.sub(" ", bare(text).casefold()).split())
    return _ARTICLE.sub("", spaced, count=1) if _ARTICLE.match(spaced) else spaced


def categories() -> tuple[str, ...]:
    """The names of all categories, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))


@cache
def category(name: str) -> Category:
    """A category by its name.

    Raises:
        ValueError: If two of its lines have a spelling in common.
    """
    words, forms = [], dict[str, str]()
    for line in (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        word, *others = line.split(", ")
        words.append(word)
        for form in map(fold, (word, *others)):
            if form in forms:
                raise ValueError(f"wordlist: {form!r} stands twice among the {name}, as {forms[form]!r} and {word!r}")
            forms[form] = word
    return Category(name, tuple(sorted(words)), forms)
