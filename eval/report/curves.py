"""Which numbers of a training are drawn, and under what names `metrics.jsonl` has them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from eval.report.figures import Line, Picture, curves
from eval.report.gather import Gathered
from llm_sra.untrusted import is_number

Panels = Mapping[str, list[Line]]


@dataclass(frozen=True)
class Number:
    """A number per seat.

    Attributes:
        name: Name of its pictures.
        title: Title of its pictures.
        unit: Unit of the number, for the axis.
        key: Its name in `metrics.jsonl`, given the seat and the hero's adapter.
    """

    name: str
    title: str
    unit: str
    key: Callable[[str, str], str]


NUMBERS = (
    Number("return", "Return", "per episode", lambda seat, hero: f"play/{seat}/{hero}/return"),
    Number("effort", "Effort", "task's unit, per episode", lambda seat, hero: f"play/{seat}/{hero}/effort"),
    Number("entropy", "Entropy", "nats per token", lambda seat, hero: f"policy/{hero}/entropy"),
    Number("length", "Length of replies", "tokens per episode", lambda seat, hero: f"play/{seat}/{hero}/tokens"),
)
KL = "/kl_to_partner"


def training_pictures(gathered: Gathered) -> list[Picture]:
    """Return, effort, the adversaries' KL, entropy and length; those that were logged."""
    made = [_pictures(gathered, number) for number in NUMBERS]
    return [*made[0], *made[1], *_kl_pictures(gathered), *made[2], *made[3]]


def _pictures(gathered: Gathered, number: Number) -> list[Picture]:
    """A number per seat; nothing if no run has it."""
    wanted = {
        (f"seat {seat}", run.name): number.key(seat, hero) for run in gathered.runs for seat, hero in run.heroes.items()
    }
    panels = _panels(gathered, wanted)
    return curves(number.name, number.title, number.unit, panels, gathered.groups) if panels else []


def _kl_pictures(gathered: Gathered) -> list[Picture]:
    """The KL of each adversary to the partner whose seat it takes."""
    wanted: dict[tuple[str, str], str] = {}
    for run in gathered.runs:
        keys = dict.fromkeys(key for line in gathered.metrics[run.name] for key in line if key.endswith(KL))
        wanted |= {(key.removeprefix("policy/").removesuffix(KL), run.name): key for key in keys}
    panels = _panels(gathered, wanted)
    return curves("kl", "KL to the partner", "nats per episode", panels, gathered.groups) if panels else []


def _panels(gathered: Gathered, wanted: Mapping[tuple[str, str], str]) -> Panels:
    """Curves by panel, of the runs that logged them.

    Args:
        gathered: Holds the metrics.
        wanted: For each panel and run, a name in `metrics.jsonl`.
    """
    panels: dict[str, list[Line]] = {}
    for (panel, run), key in wanted.items():
        found = [(line["step"], line[key]) for line in gathered.metrics[run] if is_number(line.get(key))]
        if found:
            group = next(i for i, group in enumerate(gathered.groups) if run in group.runs.values())
            panels.setdefault(panel, []).append(
                Line(group, ([step for step, _ in found], [value for _, value in found]))
            )
    return panels
