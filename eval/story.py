"""A comparison in short: one sentence that says what it found, and one table with a row for each setting."""

from collections.abc import Callable, Sequence
from statistics import fmean

from eval.grid import Grid
from eval.groups import Group
from eval.report.gather import Gathered
from eval.report.headline import (
    among_seeds,
    comparisons,
    main_pairs,
    partners_told,
    rest_sentence,
    said,
    work,
)
from eval.stats import ArmDifference, Summary, summarise
from eval.table import NOTHING, difference
from llm_sra.partners.rosters import SELF_PLAY

ROWS = 4  # most settings in the table
DIFFERENCES = 2  # most of them whose difference is said


def story(gathered: Gathered) -> str:
    """What a comparison found, a sentence for each base model: who rests, and what that costs beside one that rests.

    Where the task has no effort, or its resting partner was not played, it says how the settings do with others.
    """
    named: Sequence[Sequence[Group]] = main_pairs(gathered) or [gathered.known[:1]]
    return " ".join(_story(gathered, groups) for groups in named)


def _story(gathered: Gathered, named: Sequence[Group]) -> str:
    told = rest_sentence(gathered, named, work(gathered, gathered.decoding))
    if told:
        return told
    parts = [_with_others(gathered, group) for group in named]
    seeds = max(len(group.runs) for group in named)
    over = f" (means over {seeds} seeds)" if seeds > 1 else ""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}{over}: {gathered.results.measure}, {gathered.decoding}."


def settings_grid(gathered: Gathered) -> Grid:
    """A row for each setting: alone, with partners, with the worst one, with one that rests, with other runs."""
    idle, partners = gathered.results.idle, gathered.results.partners
    columns: dict[str, Callable[[Group], str]] = {"setting": lambda group: group.label}
    columns["self-play"] = lambda group: _mean(gathered, group, lambda s: s.self_play)
    if partners:
        columns[partners_told(len(partners))] = lambda group: _mean(gathered, group, lambda s: s.mean)
        columns["worst"] = lambda group: _worse(gathered, group, lambda s: s.worst)
    if idle and idle in partners:
        columns[idle] = lambda group: _worse(gathered, group, lambda s: s.partners[idle])
    if gathered.results.cross_play:
        columns["other seeds"] = lambda group: _crossed(gathered, group)
    if any(_shared(seats) for group in gathered.known for seats in _runs(gathered, group)):
        columns["least work"] = lambda group: _worse(gathered, group, lambda s: s.contribution_share)
    shown = gathered.known[:ROWS]
    worse = [str(name) for name in ("worst", idle, "least work") if name in columns]
    notes = [f"{', '.join(worse)}: the worse seat of each run; else means over seats. "] if worse else []
    notes += [f"{len(gathered.known) - ROWS} more settings are in the report."] if len(gathered.known) > ROWS else []
    return Grid(
        f"{gathered.results.measure.capitalize()}, {gathered.decoding}",
        tuple(columns),
        (tuple(tuple(column(group) for column in columns.values()) for group in shown),),
        ("".join(notes), *_differences(gathered)),
    )


def _differences(gathered: Gathered) -> list[str]:
    """How the first settings differ from the one that others are compared with, over all partners of the roster."""
    found, _ = comparisons(gathered, gathered.decoding)
    return [
        f"{c.later.label} - {c.first.label} with the {partners_told(c.partners)}: "
        f"{difference(c.difference.problems_and_seeds)} ({_ways(c.difference)})"
        for c in found
        if c.what != SELF_PLAY
    ][:DIFFERENCES]


def _ways(found: ArmDifference) -> str:
    if found.over_seeds is None:
        return "95 % interval over problems"
    return f"95 % interval; Student's t over the seeds {difference(found.over_seeds)}"


def _runs(gathered: Gathered, group: Group) -> list[list[Summary]]:
    """By run of a group, its agents' summaries."""
    names = gathered.evaluated(group).values()
    every = [s for s in summarise(gathered.results.records, gathered.results.idle) if s.decoding == gathered.decoding]
    return [[s for s in every if s.run == name] for name in names]


def _shared(seats: Sequence[Summary]) -> bool:
    """Whether somebody worked."""
    return any(s.contribution_share is not None for s in seats)


def _mean(gathered: Gathered, group: Group, of: Callable[[Summary], float | None]) -> str:
    values = [value for seats in _runs(gathered, group) for s in seats if (value := of(s)) is not None]
    return f"{fmean(values):.2f}" if values else NOTHING


def _worse(gathered: Gathered, group: Group, of: Callable[[Summary], float | None]) -> str:
    """The worse seat of each run, mean over runs."""
    values = [[v for s in seats if (v := of(s)) is not None] for seats in _runs(gathered, group)]
    least = [min(each) for each in values if each]
    return f"{fmean(least):.2f}" if least else NOTHING


def _crossed(gathered: Gathered, group: Group) -> str:
    """With the agents of the setting's other seeds."""
    found = among_seeds(gathered, group)
    return NOTHING if found is None or found.cross_play is None else f"{found.cross_play:.2f}"


def _with_others(gathered: Gathered, group: Group) -> str:
    text = f"{said(group.label)} reaches {_mean(gathered, group, lambda s: s.self_play)} in self-play"
    if gathered.results.partners:
        many = partners_told(len(gathered.results.partners))
        return f"{text} and {_mean(gathered, group, lambda s: s.mean)} with the roster's {many}"
    crossed = _crossed(gathered, group)
    return text if crossed == NOTHING else f"{text} and {crossed} with other seeds' agents"
