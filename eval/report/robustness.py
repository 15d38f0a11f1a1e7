"""Which partners of a roster are one partner, perturbed more and more: the points of a robustness curve."""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_sra.rosters import Entry

PERTURBED = "perturbed"
ALWAYS = 1.0  # the probability where the roster names none
APART = ("of", "probability", "seed")


@dataclass(frozen=True)
class Series:
    """One partner, perturbed in one way with several probabilities.

    Attributes:
        partner: What is perturbed, as a name.
        how: The way.
        points: Probability that a reply is changed, and the partner's name in results; by probability.
    """

    partner: str
    how: str
    points: tuple[tuple[float, str], ...]


def series(roster: Sequence[Entry], played: Sequence[str]) -> list[Series]:
    """Curves of two points or more; where the partner itself was played too, it is the point at probability 0.

    Args:
        roster: Its entries.
        played: Names of the partners that results hold.
    """
    found: dict[tuple[str, ...], dict[float, str]] = {}
    for entry in roster:
        if entry.kind == PERTURBED and entry.name in played:
            probability = float(entry.options.get("probability", ALWAYS))
            found.setdefault(_key(entry), {}).setdefault(probability, entry.name)
    whole = {_identity(entry): entry.name for entry in roster if entry.kind != PERTURBED and entry.name in played}
    made = []
    for key, points in found.items():
        if key[0] in whole:
            points.setdefault(0.0, whole[key[0]])
        if len(points) > 1:
            made.append(Series(whole.get(key[0], key[1]), key[2], tuple(sorted(points.items()))))
    return made


def _key(entry: Entry) -> tuple[str, ...]:
    """What is perturbed, its name, how, and with which other options."""
    inner: Entry = entry.options["of"]
    rest = sorted((name, value) for name, value in entry.options.items() if name not in (*APART, "how"))
    how = str(entry.options["how"]) + "".join(f", {name} {value!r}" for name, value in rest)
    return _identity(inner), inner.policy or inner.kind, how


def _identity(entry: Entry) -> str:
    """What an entry is, whatever it is called."""
    options = {key: _identity(value) if isinstance(value, Entry) else value for key, value in entry.options.items()}
    return repr((entry.kind, entry.policy, sorted(options.items(), key=lambda pair: pair[0])))
