"""What a reply quotes from its prompt, the question or the instructions, is no answer of its own.

The same for debate and relay. It does not know what an answer is worth.
"""

import re
from collections.abc import Sequence

SHORTEST = 20  # characters of a quote: a shorter text may be the reply's own
MOST = 50  # marks of a reply that are looked at, from its end, as the reader does

_MARK = re.compile(r"####[ \t]*[-+$]{0,2}[0-9]+(?:[.,][0-9]+)*")


def without_quotes(text: str, quotes: Sequence[str]) -> str:
    """A reply without what it quotes word for word.

    A whole quote becomes a line break; so does the part of one that holds a `#### number`, the example of the
    instructions, if the prompt has the 20 characters that end with that number.

    Args:
        text: The reply.
        quotes: The question, and the instructions or the stretches of them.
    """
    quotes = [quote for quote in quotes if len(quote) >= SHORTEST]
    for quote in quotes:
        text = text.replace(quote, "\n")
    for mark in reversed(list(_MARK.finditer(text))[-MOST:]):
        for quote in quotes:
            start, end = _quoted(text, quote, mark.end())
            if start < end:
                text = f"{text[:start]}\n{text[end:]}"
                break
    return text


def _quoted(text: str, quote: str, end: int) -> tuple[int, int]:
    """The stretch around a place, up to the end of its line, that a quote has, too; empty if it is not long enough."""
    start = end - SHORTEST
    at = quote.find(text[start:end]) if start >= 0 else -1
    if at < 0:
        return end, end
    after = at + SHORTEST
    while start > 0 and at > 0 and text[start - 1] == quote[at - 1]:
        start, at = start - 1, at - 1
    while end < len(text) and after < len(quote) and text[end] == quote[after] != "\n":
        end, after = end + 1, after + 1
    return start, end
