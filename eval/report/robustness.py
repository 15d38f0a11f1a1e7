"""What robustness curves show: one partner perturbed more and more, and partners by their KL from the usual one."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.grid import Grid
from eval.report.gather import Gathered
from eval.stats import Estimate, mean_interval
from eval.table import name_of
from llm_sra.evaluation.matches import DECODINGS
from llm_sra.evaluation.results import DIVERGENCE, Results
from llm_sra.partners.rosters import Entry

PERTURBED, TEMPERATURE = "perturbed", "temperature"
PROBABILITY = "probability"
ALWAYS = 1.0  # the probability where the roster names none
APART = ("of", PROBABILITY, "seed")


@dataclass(frozen=True)
class Series:
    """One partner, perturbed more and more in one way.

    Attributes:
        partner: Name of the partner that is perturbed.
        how: How its replies are changed.
        over: What grows: the `probability` that a reply is changed, or the `temperature` of all replies.
        points: That number and the partner's name in the results, in ascending order.
    """

    partner: str
    how: str
    over: str
    points: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Distance:
    """How an agent did with a partner, and how far that partner is from its training partner.

    Attributes:
        run: The agent's run.
        seat: Its seat.
        partner: Name of the partner, or of another run.
        nats: KL per episode between what the partners in all other seats say and what the usual partners would say. An
            estimate, so it can fall below 0 by chance.
        solved: Share of problems solved, or the task's headline metric.
        interval: Of `nats`, Student's t over the problems; None if there are fewer than 2.
    """

    run: str
    seat: str
    partner: str
    nats: float
    solved: float
    interval: Estimate | None = None


def distances(results: Results) -> list[Distance]:
    """What `llm-sra eval --divergence` measured, the nearest partner first."""
    found = []
    for record in (*results.records, *results.cross_play):
        nats = [value for name, value in record.metrics.items() if name.startswith(DIVERGENCE)]
        if nats:
            each = results.nats.get(record.key, ())
            interval = mean_interval(each) if len(each) > 1 else None
            found.append(Distance(record.run, record.seat, record.partner, sum(nats), record.solve_rate, interval))
    return sorted(found, key=lambda distance: distance.nats)


def series(roster: Sequence[Entry], played: Sequence[str], decoding: str = "sampled") -> list[Series]:
    """Curves of two points or more. If the unperturbed partner was played, it is the first point.

    Args:
        roster: The entries of the roster.
        played: Names of the partners that results hold.
        decoding: Decoding of the unperturbed partner, which gives its temperature.
    """
    found: dict[tuple[str, ...], dict[float, str]] = {}
    for entry in roster:
        if entry.kind == PERTURBED and entry.name in played:
            over = _over(entry)
            found.setdefault(_key(entry), {}).setdefault(float(entry.options.get(over, ALWAYS)), entry.name)
    whole = {_identity(entry): entry.name for entry in roster if entry.kind != PERTURBED and entry.name in played}
    made = []
    for key, points in found.items():
        if key[0] in whole:
            plain = DECODINGS[decoding].temperature if key[3] == TEMPERATURE else 0.0
            points.setdefault(plain, whole[key[0]])
        if len(points) > 1:
            made.append(Series(whole.get(key[0], key[1]), key[2], key[3], tuple(sorted(points.items()))))
    return made


def perturbed_grid(gathered: Gathered, found: Sequence[Series]) -> Grid:
    """Every curve's points, a column for each setting."""
    known = gathered.known
    rows = [
        (f"{curve.partner}: {curve.how}", f"{much:g}", *(f"{gathered.rate(group, name):.2f}" for group in known))
        for curve in found
        for much, name in curve.points
    ]
    return Grid(
        f"{gathered.results.measure.capitalize()}, mean over runs and seats",
        ("partner", " or ".join(sorted({curve.over for curve in found})), *(group.label for group in known)),
        (tuple(rows),),
    )


def distances_grid(gathered: Gathered, found: Sequence[Distance]) -> Grid:
    """A row for each agent and partner."""
    rows = tuple(
        (f"{name_of(gathered.results, d.run)}, {d.seat}", d.partner, _nats(d), f"{d.solved:.2f}") for d in found
    )
    return Grid(
        "How far partners are from the training partner, and what they solve together, sampled",
        ("agent", "partner", "KL, nats per episode", gathered.results.measure),
        (rows,),
        (
            "KL between the partner's replies and the training partner's, nearest first. It is estimated from the "
            "replies in these episodes, so it can fall below 0 by chance; 95 % interval: Student's t over problems.",
        ),
    )


def _nats(distance: Distance) -> str:
    ends = distance.interval
    return f"{distance.nats:z.2f}" + (f" [{ends.low:z.2f}, {ends.high:z.2f}]" if ends and ends.has_width else "")


def _key(entry: Entry) -> tuple[str, ...]:
    """What identifies a curve: what is perturbed, its name, how, the other options, and what grows."""
    inner: Entry = entry.options["of"]
    over = _over(entry)
    rest = sorted((name, value) for name, value in entry.options.items() if name not in (*APART, "how", over))
    how = str(entry.options["how"]) + "".join(f", {name} {value!r}" for name, value in rest)
    return _identity(inner), inner.policy or inner.kind, how, over


def _over(entry: Entry) -> str:
    """What grows: the temperature if all replies are drawn at it, else the probability."""
    always = entry.options.get(PROBABILITY, ALWAYS) == ALWAYS
    return TEMPERATURE if entry.options["how"] == TEMPERATURE and always else PROBABILITY


def _identity(entry: Entry) -> str:
    """An entry without its name: equal for equal partners."""
    options = {key: _identity(value) if isinstance(value, Entry) else value for key, value in entry.options.items()}
    return repr((entry.kind, entry.policy, sorted(options.items(), key=lambda pair: pair[0])))
