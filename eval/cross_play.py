"""Tables of cross-play between runs: the matrix, and each setting's mean on and off its diagonal."""

from collections.abc import Sequence
from statistics import fmean

from eval.grid import Grid
from eval.groups import Group
from eval.stats import CrossPlay, Estimate, cross_play
from eval.table import NOTHING, WIDTH, name_of, with_interval
from llm_sra.evaluation.results import Results, labels

COLUMN = 13  # about as many characters as a run's column takes


def cross_play_grids(results: Results, groups: Sequence[Group]) -> list[Grid]:
    """Per decoding: self-play and cross-play of each setting, then every agent with every run.

    Args:
        results: Results of an evaluation with cross-play.
        groups: The runs by setting.
    """
    grids = []
    for decoding in results.decodings:
        grids += [seeds_grid(results, groups, decoding), *_matrix(results, decoding)]
    return grids


def between_runs(results: Results, runs: Sequence[str], decoding: str) -> list[list[float]]:
    """`Results.measure` of each run (row) with each run (column): the mean over the seats of the row's agents."""
    return [
        [
            fmean(r.solve_rate for s in results.seats if (r := results.between(run, s, other, decoding)) is not None)
            for other in runs
        ]
        for run in runs
    ]


def seeds_grid(results: Results, groups: Sequence[Group], decoding: str) -> Grid:
    """Self-play, cross-play among the seeds, and the difference of the two; a row for each setting."""
    rows = []
    for group in groups:
        runs = [run for run in group.runs.values() if run in results.runs]
        if runs:
            rows.append(_row(group.label, cross_play(between_runs(results, runs, decoding))))
    return Grid(
        f"{results.measure.capitalize()} among the seeds of a setting, {decoding}",
        ("setting", "runs", "self-play", "cross-play", "self-play - cross-play"),
        (tuple(rows),),
        (
            "cross-play: mean over all pairs of different seeds, in both seatings. 95 % intervals over seeds: "
            "Student's t, of jackknife pseudo-values for cross-play (3 seeds or more); cut at 0 and 1.",
        ),
    )


def _row(label: str, found: CrossPlay) -> tuple[str, ...]:
    return (
        label,
        str(found.runs),
        with_interval(found.self_play, _share(found.self_play_interval)),
        with_interval(found.cross_play, _share(found.cross_play_interval)),
        with_interval(found.gap, found.gap_interval and found.gap_interval.within(-1, 1), "+"),
    )


def _matrix(results: Results, decoding: str) -> list[Grid]:
    """Rows are agents in their seats, columns the runs that have all other seats."""
    names, short = labels(results.runs), max(len(name_of(results, run)) for run in results.runs)
    fits = max(1, (WIDTH - short - 3 - max(map(len, results.seats))) // COLUMN)
    made = []
    for start in range(0, len(results.runs), fits):
        columns = results.runs[start : start + fits]
        sections = tuple(
            tuple(
                (f"{name_of(results, run)}, {seat}", *(_rate(results, run, seat, other, decoding) for other in columns))
                for seat in results.seats
            )
            for run in results.runs
        )
        title = f"{results.measure.capitalize()} with the agents of each run, {decoding}"
        made.append(Grid(title, ("agent", *(names[other] for other in columns)), sections))
    return made


def _rate(results: Results, run: str, seat: str, other: str, decoding: str) -> str:
    found = results.between(run, seat, other, decoding)
    return NOTHING if found is None else f"{found.solve_rate:.2f}"


def _share(ends: Estimate | None) -> Estimate | None:
    """An interval of a share, cut to [0, 1]."""
    return ends and ends.within(0, 1)
