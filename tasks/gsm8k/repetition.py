"""How much a text repeats itself: a diagnostic of both protocols."""


def repetition(text: str, n: int = 4) -> float:
    """Share of a text's n-grams of words that occur earlier in it, in [0, 1]; 0 for a text of fewer than n words."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
