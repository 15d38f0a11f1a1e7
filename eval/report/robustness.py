"""What robustness curves show: one partner perturbed more and more, and partners ever further from the usual one."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.results import Results
from llm_sra.rosters import Entry

DIVERGENCE = "divergence/"  # how names of such numbers begin
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


@dataclass(frozen=True)
class Distance:
    """How an agent did with a partner that is so far from the one that it was trained beside.

    Attributes:
        run: The agent's run.
        seat: Its seat.
        partner: Name of the partner, or of another run.
        nats: KL of what the partners in all other seats say from what the usual ones would, per episode.
        solved: Share of problems solved, or the task's headline.
    """

    run: str
    seat: str
    partner: str
    nats: float
    solved: float


def distances(results: Results) -> list[Distance]:
    """Whatever `llm-sra eval --divergence` measured, nearest first."""
    found = []
    for record in (*results.records, *results.cross_play):
        nats = [value for name, value in record.metrics.items() if name.startswith(DIVERGENCE)]
        if nats:
            found.append(Distance(record.run, record.seat, record.partner, sum(nats), record.solve_rate))
    return sorted(found, key=lambda distance: distance.nats)


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
