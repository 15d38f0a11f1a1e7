"""Pictures of a report, each drawn once and kept as SVG for the page and as PNG for Markdown. Computes means only."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eval.groups import Group
from eval.labels import as_label
from eval.plots import COLOURS, LINES, draw_arms, draw_runs, running_mean
from eval.report.gather import Gathered
from eval.report.robustness import Distance, Series
from eval.table import name_of
from llm_sra.partners.rosters import SELF_PLAY

DPI = 130
MOST_ROWS = 48  # of the heat map, else one row per group and seat
MOST_POINTS = 300  # of a curve
SMALL = (4.6, 2.9)  # inches; two stand side by side on a desk, one above the other on a phone
SHORT = 28  # characters of a name where there is little room
OVER = {"probability": "probability that a reply is changed", "temperature": "temperature that replies are drawn at"}
NATS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # where an axis of nats, even up to 1, is labelled

Points = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: Name of its file, without the suffix.
        caption: What it shows; also the text for readers who cannot see it.
        svg: Content of its SVG file.
        png: Content of its PNG file.
        wide: Whether it takes a whole row, and scrolls on a phone.
    """

    name: str
    caption: str
    svg: bytes
    png: bytes
    wide: bool = False


@dataclass(frozen=True)
class Line:
    """A curve of one run.

    Attributes:
        group: Index of its group, which is its colour.
        points: Steps and values.
    """

    group: int
    points: Points


def colour(index: int) -> str:
    """A group's colour; with many groups colours repeat."""
    return COLOURS[index % len(COLOURS)]


def overview(gathered: Gathered) -> Picture | None:
    """What each setting solved with each partner; None with more settings than colours.

    With one run of each setting it also shows their effort in training, else every seed.
    """
    known, results = gathered.known, gathered.results
    if not known or len(known) > len(COLOURS):
        return None
    runs = [tuple(gathered.evaluated(group).values()) for group in known]
    colours = [colour(gathered.groups.index(group)) for group in known]
    what = f"{results.measure.capitalize()} with each partner, {gathered.decoding}"
    if all(len(names) == 1 for names in runs):
        figure = draw_runs([gathered.run(name) for (name,) in runs], results, gathered.decoding, colours)
        return _kept(figure, "overview", f"Left: effort in training. Right: {what[0].lower()}{what[1:]}.", wide=True)
    arms = {group.label: gathered.evaluated(group) for group in known}
    figure = draw_arms(results, arms, gathered.decoding, colours)
    return _kept(figure, "overview", f"{what}: mean over the seats, and each run's worse seat.", wide=True)


def heat_map(gathered: Gathered, decoding: str) -> Picture:
    """Share solved by every agent (row) with every partner (column), then with other runs if there was cross-play."""
    results, partners = gathered.results, (SELF_PLAY, *gathered.results.partners)
    whole = len(results.runs) * len(results.seats) > MOST_ROWS
    teams = (
        [(group.label, tuple(gathered.evaluated(group).values())) for group in gathered.known]
        if whole
        else [(name_of(results, run), (run,)) for run in results.runs]
    )
    rows = [(f"{label}, {seat}", runs, seat) for label, runs in teams for seat in results.seats]
    rates = np.array([[results.rate(runs, [seat], [p], decoding) for p in partners] for _, runs, seat in rows])
    columns = list(partners)
    if results.cross_play:
        columns += [label for label, _ in teams]
        met = [[_between(gathered, runs, seat, others, decoding) for _, others in teams] for _, runs, seat in rows]
        rates = np.hstack([rates, met])
    figure = Figure(figsize=(3.2 + 0.62 * len(columns), 1.7 + 0.27 * len(rows)), layout="constrained")
    panel = figure.subplots()
    panel.imshow(rates, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), rate in np.ndenumerate(rates):
        if not np.isnan(rate):
            shade = "black" if rate > 0.55 else "white"
            panel.text(column, row, f"{rate:.2f}", ha="center", va="center", fontsize=8, color=shade)
    panel.set_xticks(
        range(len(columns)), [as_label(name, SHORT) for name in columns], rotation=35, ha="left", rotation_mode="anchor"
    )
    panel.xaxis.tick_top()
    panel.set_yticks(range(len(rows)), [as_label(name) for name, _, _ in rows])
    panel.tick_params(length=0, labelsize=9)
    for edge in {1, len(partners)} - {len(columns)}:
        panel.axvline(edge - 0.5, color="white", linewidth=3)
    step = len(results.seats)
    for edge in range(step, len(rows), step):
        panel.axhline(edge - 0.5, color="white", linewidth=1.5)
    panel.spines[:].set_visible(False)
    caption = f"{gathered.results.measure.capitalize()}, {decoding}: each agent (row) with each partner"
    caption += (" and, on the right, with the agents of each run." if not whole else
                " and, on the right, with other runs of each setting.") if results.cross_play else "."  # fmt: skip
    return _kept(figure, "matrix", caption, wide=True)


def _between(gathered: Gathered, runs: Sequence[str], seat: str, others: Sequence[str], decoding: str) -> float:
    """Mean of some runs' agents in a seat with other runs, or with themselves if alone; nan if not played."""
    pairs = [(run, other) for run in runs for other in others if run != other or (runs == others and len(runs) == 1)]
    met = [gathered.results.between(run, seat, other, decoding) for run, other in pairs]
    return float(np.mean([record.solve_rate for record in met if record is not None] or [np.nan]))


def ranking(gathered: Gathered, decoding: str, partners: Sequence[str]) -> Picture:
    """Share solved with each partner: a dot per run and seat, a bar per group's mean."""
    results, known = gathered.results, gathered.known
    offsets = np.linspace(-0.25, 0.25, len(known)) if len(known) > 1 else np.zeros(1)
    figure = Figure(figsize=(7.2, 1.3 + len(partners) * max(0.36, 0.17 * len(known))), layout="constrained")
    panel = figure.subplots()
    for group, offset in zip(known, offsets, strict=True):
        shade, runs = colour(gathered.groups.index(group)), tuple(gathered.evaluated(group).values())
        for row, partner in enumerate(partners):
            rates = [results.rate([run], [seat], [partner], decoding) for run in runs for seat in results.seats]
            height = row + offset
            heights = [height] * len(rates)
            panel.plot(rates, heights, "o", color=shade, markersize=4, alpha=0.45, markeredgewidth=0, clip_on=False)
            panel.plot([np.mean(rates)] * 2, [height - 0.16, height + 0.16], color=shade, linewidth=3, clip_on=False)
    for row in range(0, len(partners), 2):
        panel.axhspan(row - 0.5, row + 0.5, color="#F3F3F3", zorder=0)
    panel.set_yticks(range(len(partners)), [as_label(name, SHORT) for name in partners])
    panel.set_ylim(len(partners) - 0.5, -0.5)
    panel.set_xlim(-0.02, 1.02)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="#DDDDDD", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.set_xlabel(f"{as_label(gathered.results.measure)} (dot: a run's agent in one seat; bar: mean)")
    _legend(figure, known, gathered.groups)
    return _kept(figure, "partners", f"Partners from hard to easy, {decoding}.", wide=True)


def curves(
    name: str, title: str, unit: str, panels: Mapping[str, Sequence[Line]], groups: Sequence[Group]
) -> list[Picture]:
    """A number over the training: a picture per panel, all with the same axes; thick is each group's mean.

    Args:
        name: Beginning of the files' names.
        title: What the number is.
        unit: Its unit.
        panels: The runs' curves by what a panel shows (a seat, an adversary); not all empty.
        groups: The groups, in the order of their colours.
    """
    lines = [line for panel in panels.values() for line in panel]
    values = [value for line in lines for value in line.points[1]]
    last = max(step for line in lines for step in line.points[0])
    low, high = min(0.0, *values), max(values)
    pad = 0.04 * (high - low or 1.0)
    made = []
    for index, (shown, drawn) in enumerate(panels.items()):
        figure = Figure(figsize=SMALL, layout="constrained")
        panel = figure.subplots()
        _draw_lines(panel, drawn)
        panel.set_xlim(0, last)
        panel.set_ylim(low - pad, high + pad)
        _finish(panel, f"{title}: {as_label(shown, SHORT)}", "training step", unit)
        present = [groups[i] for i in sorted({line.group for line in drawn})]
        _legend(figure, present, groups)
        made.append(_kept(figure, f"{name}-{index + 1}", f"{title} ({unit}), {shown}."))
    return made


def robustness(gathered: Gathered, number: int, curve: Series, decoding: str) -> Picture:
    """Share solved over how much a partner is perturbed, each seat a line style."""
    figure = Figure(figsize=SMALL, layout="constrained")
    panel = figure.subplots()
    x = [much for much, _ in curve.points]
    known = gathered.known
    for group in known:
        runs = tuple(gathered.evaluated(group).values())
        shade = colour(gathered.groups.index(group))
        for index, seat in enumerate(gathered.results.seats):
            rates = [gathered.results.rate(runs, [seat], [name], decoding) for _, name in curve.points]
            panel.plot(
                x, rates, LINES[index % len(LINES)], marker="o", markersize=4, color=shade, linewidth=1.8, clip_on=False
            )
    panel.set_ylim(-0.02, 1.02)
    room = 0.02 * (max(x) - min(x))
    panel.set_xlim(min(x) - room, max(x) + room)
    _finish(
        panel,
        f"{as_label(curve.partner, SHORT)}: {as_label(curve.how, SHORT)}",
        OVER[curve.over],
        as_label(gathered.results.measure),
    )
    styles = [
        Line2D([], [], color="#555555", linestyle=LINES[i % len(LINES)], label=f"seat {as_label(seat, SHORT)}")
        for i, seat in enumerate(gathered.results.seats)
    ]
    _legend(figure, known, gathered.groups, styles)
    caption = f"{curve.partner}, perturbed ({curve.how}), {decoding}: mean over runs."
    return _kept(figure, f"robustness-{number + 1}", caption)


def distance(gathered: Gathered, found: Sequence[Distance]) -> Picture:
    """Share solved over the KL between a partner and the usual one: a point for each agent and partner."""
    figure = Figure(figsize=SMALL, layout="constrained")
    panel = figure.subplots()
    known = gathered.known
    for group in known:
        runs, shade = set(gathered.evaluated(group).values()), colour(gathered.groups.index(group))
        points: dict[str, list[tuple[float, float]]] = {}
        for one in found:
            if one.run in runs:
                points.setdefault(one.partner, []).append((max(one.nats, 0.0), one.solved))
        x, y = zip(*(point for each in points.values() for point in each), strict=True) if points else ((), ())
        panel.scatter(x, y, s=14, color=shade, alpha=0.6, linewidths=0, clip_on=False, zorder=3)
        means = sorted(tuple(np.mean(each, axis=0)) for each in points.values())
        panel.plot([nats for nats, _ in means], [solved for _, solved in means], color=shade, linewidth=1.8)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xscale("symlog", linthresh=1.0)
    panel.set_xlim(0.0, 1.05 * max(1.0, *(one.nats for one in found)))
    how_far = "KL from the usual partner, nats per episode"
    _finish(panel, "Partners by distance from the usual one", how_far, as_label(gathered.results.measure))
    shown = [nats for nats in NATS if nats <= panel.get_xlim()[1]]
    panel.set_xticks(shown, [str(nats) for nats in shown])
    panel.set_xticks([], minor=True)
    _legend(figure, known, gathered.groups, [])
    caption = "Each point is an agent with one partner, sampled; the line joins the partners' means over agents."
    return _kept(figure, "divergence", caption)


def _draw_lines(panel: Axes, lines: Sequence[Line]) -> None:
    for index in sorted({line.group for line in lines}):
        own = [line.points for line in lines if line.group == index]
        alone = len(own) == 1
        for steps, values in own:
            shown = _thinned(steps, values if alone else running_mean(values))
            panel.plot(*shown, color=colour(index), alpha=0.35 if alone else 0.5, linewidth=0.9)
        panel.plot(*_thinned(*_group_mean(own)), color=colour(index), linewidth=2.4)


def _group_mean(curves_of: Sequence[Points]) -> Points:
    """Mean over the runs at the steps that all of them have, smoothed."""
    shared = sorted(set.intersection(*(set(steps) for steps, _ in curves_of)))
    tables = [dict(zip(steps, values, strict=True)) for steps, values in curves_of]
    return shared, running_mean([float(np.mean([table[step] for table in tables])) for step in shared])


def _thinned(steps: Sequence[float], values: Sequence[float]) -> Points:
    every = max(1, len(steps) // MOST_POINTS)
    return steps[::every], values[::every]


def _finish(panel: Axes, title: str, x: str, y: str) -> None:
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xlabel(x, fontsize=9)
    panel.set_ylabel(y, fontsize=9)
    panel.tick_params(labelsize=8.5)
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.grid(color="#E3E3E3", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, shown: Sequence[Group], groups: Sequence[Group], more: Sequence[Line2D] = ()) -> None:
    handles = [
        Line2D([], [], color=colour(groups.index(group)), linewidth=4, label=as_label(group.label)) for group in shown
    ]
    longest = max((len(str(handle.get_label())) for handle in (*handles, *more)), default=1)
    figure.legend(
        handles=[*handles, *more],
        loc="outside lower center",
        ncols=max(1, min(4, 48 // longest)),
        frameon=False,
        fontsize=9,
    )


def _kept(figure: Figure, name: str, caption: str, wide: bool = False) -> Picture:
    FigureCanvasAgg(figure)
    made = {}
    with mpl.rc_context({"svg.hashsalt": name}):  # the same picture is the same file
        for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
            made[kind] = buffer.getvalue()
    return Picture(name, caption, made["svg"], made["png"], wide)
