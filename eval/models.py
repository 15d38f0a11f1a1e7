"""Agents of one model beside agents of another: the paper's table, from the cross-play of runs on several models."""

from collections.abc import Sequence
from itertools import product
from statistics import fmean

from eval.grid import Grid
from eval.table import NOTHING
from llm_sra.evaluation.results import Results
from llm_sra.runs import Run


def models_grid(runs: Sequence[Run], results: Results, decoding: str) -> Grid:
    """By model and partner's model: what each arm's agents reach with agents that the same arm made.

    Args:
        runs: Runs on several models, by several arms; with one model in both seats that is self-play.
        results: Their evaluation with cross-play.
        decoding: Which.
    """
    models = list(dict.fromkeys(run.base for run in runs))
    arms = list(dict.fromkeys(str(run.config["arm"]) for run in runs))
    sections = []
    for model in models:
        rows = []
        for partner in models:
            values = [_mean(runs, results, decoding, arm, model, partner) for arm in arms]
            rows.append((f"{model} with {partner}", *map(_number, values), *map(_number, _less(values))))
        sections.append(tuple(rows))
    header = ("agents of a model with those of another", *arms, *(f"{arm} - {arms[0]}" for arm in arms[1:]))
    return Grid(
        f"{results.measure.capitalize()}, {decoding}",
        header,
        tuple(sections),
        ("Agents of an arm with agents of the same arm, mean over seats and seeds; a model with itself: self-play.",),
    )


def _mean(runs: Sequence[Run], results: Results, decoding: str, arm: str, model: str, partner: str) -> float | None:
    ours, theirs = ([run.name for run in runs if (run.config["arm"], run.base) == (arm, m)] for m in (model, partner))
    pairs = [(run, run) for run in ours] if model == partner else list(product(ours, theirs))
    met = [results.between(run, seat, other, decoding) for run, other in pairs for seat in results.seats]
    values = [record.solve_rate for record in met if record is not None]
    return fmean(values) if values else None


def _less(values: Sequence[float | None]) -> list[float | None]:
    first = values[0]
    return [None if first is None or value is None else value - first for value in values[1:]]


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
