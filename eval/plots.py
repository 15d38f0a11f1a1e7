"""Pictures of results: effort during training beside the solve rate with each partner, and arms over several seeds.

A colour is a run or an arm (from Okabe and Ito's palette for colour-blind readers), or in other pictures a way to play,
never both. A marker and a line style are a seat. Nothing is computed here but running means; intervals come from the
records and from `stats`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eval.labels import as_label
from eval.stats import mean_interval
from eval.table import name_of
from llm_sra.evaluation.results import Results, ResultsError
from llm_sra.files import write_whole, writing
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.runs import Run, read_metrics

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # of runs and arms alone
# Of how somebody plays, in pictures in which arms have no colour: no arm ever has one of these.
RESTS, WORKS, SPOILS, UNEQUAL, EQUAL = "#882255", "#999933", "#6A51A3", "#888888", "#8C564B"
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
GREY = "#555555"
DPI = 150
MEAN = "mean of these"
WINDOW = 50  # a running mean covers 1 / WINDOW of all steps on either side


@dataclass(frozen=True)
class Curve:
    """One seat's effort in training.

    Attributes:
        steps: The steps that have a number.
        effort: Mean per episode, of the seat's hero, in the task's unit.
        dev_steps: Steps at which the development roster was played, if it was.
        dev_effort: Effort in self-play at those steps.
    """

    steps: tuple[int, ...]
    effort: tuple[float, ...]
    dev_steps: tuple[int, ...]
    dev_effort: tuple[float, ...]


def quickstart_figure(runs: Sequence[Run], results: Results, out_png: str | Path) -> Path:
    """Draw a few runs into a file; see `draw_runs`.

    Args:
        runs: At most `len(COLOURS)`, all in `results`.
        results: Results of an evaluation.
        out_png: The picture's file; replaced once the new one is whole.

    Returns:
        `out_png`.

    Raises:
        ResultsError: If there are too many runs, or a run is not in the results.
    """
    return write_png(draw_runs(runs, results), Path(out_png))


def draw_runs(
    runs: Sequence[Run], results: Results, decoding: str | None = None, colours: Sequence[str] = COLOURS
) -> Figure:
    """Draw a few runs: effort during training, and the solve rate with each partner.

    Left, a panel per run: each hero's effort per training step, with its training partner (in `srpo` its adversary),
    and in self-play where the run played a development roster. Right: the solve rate with each partner.

    Args:
        runs: At most `len(COLOURS)`, all in `results`.
        results: Results of an evaluation.
        decoding: Which; if None, `sampled` (as in training) where it was played.
        colours: Of the runs.

    Raises:
        ResultsError: If there are too many runs, or a run is not in the results.
    """
    if not 0 < len(runs) <= len(COLOURS):
        raise ResultsError(f"this picture shows 1 to {len(COLOURS)} runs, got {len(runs)}")
    if missing := [run.name for run in runs if run.name not in results.runs]:
        raise ResultsError(f"not in the results: {', '.join(missing)}; there are {', '.join(results.runs)}")
    decoding = decoding or _usual(results)
    height = max(2.1 * len(runs), 2.2 + (len(results.partners) + 2) * max(0.46, 0.11 * len(runs) * len(results.seats)))
    figure = Figure(figsize=(12.5, height), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(len(runs), 2, width_ratios=(1, 1.05), wspace=0.04)
    right = figure.add_subplot(grid[:, 1])
    left = [figure.add_subplot(grid[row, 0]) for row in range(len(runs))]
    curves = [effort_curves(run) for run in runs]
    for run, panel, by_seat, colour in zip(runs, left, curves, colours, strict=False):
        _draw_effort(panel, by_seat, colour)
        panel.set_title(_effort_title(run, as_label(name_of(results, run.name))), loc="left", fontsize=11)
    _align(left)
    _draw_partners(right, results, [run.name for run in runs], decoding, colours)
    has_dev = any(curve.dev_steps for by_seat in curves for curve in by_seat.values())
    figure.legend(handles=_legend(results, runs, has_dev, colours), loc="outside lower center", ncols=5, frameon=False)
    return figure


def study_figure(results: Results, arms: Mapping[str, Mapping[int, str]], out_png: str | Path) -> Path:
    """Draw arms of several seeds into a file; see `draw_arms`.

    Args:
        results: Results of all runs, joined by `merge` if there are several evaluations.
        arms: By an arm's label, the name of the run of each seed; at most `len(COLOURS)` arms.
        out_png: The picture's file; replaced once the new one is whole.

    Returns:
        `out_png`.

    Raises:
        ResultsError: If there are too many arms, an arm without a run, or a run is not in the results.
    """
    return write_png(draw_arms(results, arms), Path(out_png))


def draw_arms(
    results: Results,
    arms: Mapping[str, Mapping[int, str]],
    decoding: str | None = None,
    colours: Sequence[str] = COLOURS,
) -> Figure:
    """Draw arms of several seeds: every seed a dot, the arm's mean a bar with Student's t interval over the seeds.

    Args:
        results: Results of all runs, joined by `merge` if there are several evaluations.
        arms: By an arm's label, the name of the run of each seed; at most `len(COLOURS)` arms.
        decoding: Which; if None, `sampled` (as in training) where it was played.
        colours: Of the arms.

    Raises:
        ResultsError: If there are too many arms, an arm without a run, or a run is not in the results.
    """
    if not 0 < len(arms) <= len(COLOURS) or not all(arms.values()):
        raise ResultsError(f"this picture shows 1 to {len(COLOURS)} arms of one run or more, got {dict(arms)}")
    decoding = decoding or _usual(results)
    wide = max(9.0, 2.5 + (len(results.partners) + 2) * max(0.9, 0.35 * len(arms)))
    figure = Figure(figsize=(wide, 7.5), dpi=DPI, layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    _draw_arms(panels[0], results, arms, decoding, np.mean, colours)
    _draw_arms(panels[1], results, arms, decoding, np.min, colours)
    panels[0].set_title(
        f"{as_label(results.measure.capitalize())} ({as_label(decoding)}), mean over the seats", loc="left", fontsize=11
    )
    panels[1].set_title(
        f"{as_label(results.measure.capitalize())} ({as_label(decoding)}), each run's worse seat",
        loc="left",
        fontsize=11,
    )
    named = [f"{as_label(arm)}: {len(seeds)} seed{'s' * (len(seeds) > 1)}" for arm, seeds in arms.items()]
    handles = [_patch(colour, label) for colour, label in zip(colours, named, strict=False)]
    handles += [
        Line2D([], [], color=GREY, marker="o", markersize=5, alpha=0.6, linestyle="", label="one seed"),
        Line2D([], [], color=GREY, linewidth=2.5, label="mean, 95 % interval over seeds (Student t, cut at 0 and 1)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(arms) + 2, frameon=False)
    return figure


def effort_curves(run: Run) -> dict[str, Curve]:
    """Effort of each seat's hero over a run's training; empty where none was logged."""
    lines = read_metrics(run.path / "metrics.jsonl")
    curves = {}
    for seat, hero in run.heroes.items():
        steps, effort = _series(lines, f"play/{seat}/{hero}/effort")
        dev_steps, dev_effort = _series(lines, f"eval_effort/{seat}")
        curves[seat] = Curve(steps, effort, dev_steps, dev_effort)
    return curves


def running_mean(values: Sequence[float]) -> list[float]:
    """Mean of each number and its neighbours, `1 / WINDOW` of all to either side, fewer at the ends."""
    reach = len(values) // WINDOW
    return [float(np.mean(values[max(0, index - reach) : index + reach + 1])) for index in range(len(values))]


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    found = [(line["step"], line[key]) for line in lines if key in line]
    return tuple(step for step, _ in found), tuple(value for _, value in found)


def _draw_effort(panel: Axes, curves: Mapping[str, Curve], colour: str) -> None:
    for index, curve in enumerate(curves.values()):
        marker, style = _seat_style(index)
        panel.plot(curve.steps, curve.effort, color=colour, alpha=0.4, linewidth=1)
        mean = running_mean(curve.effort)
        every = max(1, len(mean) // 8)
        panel.plot(curve.steps, mean, style, color=colour, linewidth=2, marker=marker, markersize=6, markevery=every)
        panel.plot(
            curve.dev_steps, curve.dev_effort, linestyle="", marker=marker, markersize=8, markerfacecolor="white",
            markeredgecolor="black", markevery=max(1, round(len(curve.dev_steps) / 8)), zorder=4,
        )  # fmt: skip
    panel.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    panel.set_ylabel("effort per episode")
    if not any(curve.steps for curve in curves.values()):
        panel.text(0.5, 0.5, "no effort in metrics.jsonl", ha="center", va="center", transform=panel.transAxes)


def _effort_title(run: Run, name: str) -> str:
    lines = read_metrics(run.path / "metrics.jsonl")
    adversary = any("/adversary-of-" in key for line in lines for key in line)
    return f"{name}: effort in training, with the {'adversary' if adversary else 'live partner'}"


def _align(panels: Sequence[Axes]) -> None:
    """The same axes for all panels, so that heights can be compared."""
    top = max(panel.get_ylim()[1] for panel in panels)
    last = max(panel.get_xlim()[1] for panel in panels)
    for panel in panels:
        panel.set_ylim(-0.03 * top, top)
        panel.set_xlim(0, last)
        panel.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
        panel.tick_params(labelbottom=panel is panels[-1])
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("training step (thin: every step; thick: running mean)")


def _draw_partners(panel: Axes, results: Results, runs: Sequence[str], decoding: str, colours: Sequence[str]) -> None:
    rows = _groups(results)
    agents = [(run, seat) for run in runs for seat in results.seats]
    offsets = np.linspace(-0.3, 0.3, len(agents)) if len(agents) > 1 else np.zeros(1)
    for (run, seat), offset in zip(agents, offsets, strict=True):
        colour = colours[runs.index(run)]
        marker, _ = _seat_style(results.seats.index(seat))
        for row, (_, partners) in enumerate(rows):
            rate, height = results.rate([run], [seat], partners, decoding), row + offset
            if len(rows) > 1 and row == len(rows) - 1:
                panel.plot(rate, height, marker, color=colour, markersize=8, clip_on=False)
                continue
            ends = results.record(run, seat, partners[0], decoding).solve_rate_ci95
            panel.plot(ends, [height] * 2, color=colour, linewidth=1.3, alpha=0.6)
            panel.plot(rate, height, marker, color=colour, markersize=6, clip_on=False)
    _rows(panel, [name for name, _ in rows])
    counts = sorted({record.n for record in results.records if record.decoding == decoding})
    problems = " or ".join(map(str, counts))
    panel.set_title(f"{as_label(results.measure.capitalize())}, each seat with each partner", loc="left", fontsize=11)
    panel.set_xlabel(
        f"{as_label(decoding)}, {problems} problems with each; lines: 95 % interval ({results.interval_name})"
    )


def _rows(panel: Axes, rows: Sequence[str]) -> None:
    """Partners from top to bottom, every second one shaded, self-play and the mean set off by a line."""
    panel.set_yticks(range(len(rows)), [as_label(name) for name in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlim(-0.02, 1.02)
    for row in range(0, len(rows), 2):
        panel.axhspan(row - 0.5, row + 0.5, color="#F3F3F3", zorder=0)
    panel.axhline(0.5, color=GREY, linewidth=1)
    if len(rows) > 1:
        panel.axhline(len(rows) - 1.5, color=GREY, linewidth=1)
        panel.get_yticklabels()[-1].set_fontweight("bold")
    panel.grid(axis="x", color="#DDDDDD", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _legend(results: Results, runs: Sequence[Run], has_dev: bool, colours: Sequence[str]) -> list[Line2D]:
    handles = [_patch(colour, as_label(name_of(results, run.name))) for run, colour in zip(runs, colours, strict=False)]
    for index, seat in enumerate(results.seats):
        marker, style = _seat_style(index)
        handles.append(
            Line2D([], [], color=GREY, linestyle=style, marker=marker, markersize=6, label=f"seat: {as_label(seat)}")
        )
    if has_dev:
        handles.append(
            Line2D([], [], linestyle="", marker="o", markersize=8, markerfacecolor="white", markeredgecolor="black",
                   label="self-play, dev problems")
        )  # fmt: skip
    return handles


def _draw_arms(
    panel: Axes,
    results: Results,
    arms: Mapping[str, Mapping[int, str]],
    decoding: str,
    over_seats: Callable[[Sequence[float]], float],
    colours: Sequence[str],
) -> None:
    columns = _groups(results)
    offsets = np.linspace(-0.28, 0.28, len(arms)) if len(arms) > 1 else np.zeros(1)
    for (seeds, offset), colour in zip(zip(arms.values(), offsets, strict=True), colours, strict=False):
        runs = [seeds[number] for number in sorted(seeds)]
        for column, (_, partners) in enumerate(columns):
            by_seat = [[results.rate([run], [seat], partners, decoding) for seat in results.seats] for run in runs]
            rates, middle = [float(over_seats(seats)) for seats in by_seat], column + offset
            beside = middle - 0.05 + np.linspace(-0.05, 0.05, len(rates))
            panel.plot(beside, rates, "o", color=colour, markersize=4.5, alpha=0.6, clip_on=False, markeredgewidth=0)
            _draw_mean(panel, middle + 0.07, rates, colour)
    panel.set_xticks(range(len(columns)), ["\n".join(wrap(as_label(name), 12)) for name, _ in columns])
    panel.set_xlim(-0.5, len(columns) - 0.5)
    panel.set_ylim(-0.03, 1.03)
    panel.set_ylabel(as_label(results.measure))
    for column in range(0, len(columns), 2):
        panel.axvspan(column - 0.5, column + 0.5, color="#F3F3F3", zorder=0)
    for edge in {0.5, len(columns) - 1.5}:
        panel.axvline(edge, color=GREY, linewidth=1)
    panel.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_mean(panel: Axes, x: float, rates: Sequence[float], colour: str) -> None:
    panel.plot([x - 0.05, x + 0.05], [np.mean(rates)] * 2, color=colour, linewidth=2.5, clip_on=False)
    if len(rates) > 1:
        interval = mean_interval(rates)
        panel.plot([x, x], [max(0.0, interval.low), min(1.0, interval.high)], color=colour, linewidth=1.5)


def _groups(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """What is shown side by side, each with its partners: self-play, every partner, and the mean over these."""
    strangers = [(name, (name,)) for name in results.partners]
    return [(SELF_PLAY, (SELF_PLAY,)), *strangers, *([(MEAN, results.partners)] if strangers else [])]


def _seat_style(index: int) -> tuple[str, Literal["-", "--", ":", "-."]]:
    """Marker and line style of a seat; with many seats they repeat."""
    return MARKERS[index % len(MARKERS)], LINES[index % len(LINES)]


def _patch(colour: str, name: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=6, solid_capstyle="butt", label=name)


def _usual(results: Results) -> str:
    return "sampled" if "sampled" in results.decodings else results.decodings[0]


def write_png(figure: Figure, path: Path) -> Path:
    """Write a picture whole or not at all; its folder is made if missing."""
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with writing("the picture", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())
    return path
