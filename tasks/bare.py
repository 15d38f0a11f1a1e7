"""A reply's words without what models put around them: quotes, brackets, stops, bullets, emoji. It reads nothing."""

import unicodedata


def bare(text: str) -> str:
    """A text from its first letter or digit to its last one, full-width characters as usual ones; empty without any."""
    text = unicodedata.normalize("NFKC", text)
    first = next((at for at, character in enumerate(text) if character.isalnum()), len(text))
    last = next((at for at in range(len(text), first, -1) if text[at - 1].isalnum()), first)
    return text[first:last]
