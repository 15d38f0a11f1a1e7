"""What each setting's training cost: episodes, and how many of them trained a hero."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from eval.grid import Grid
from eval.report.gather import Gathered
from eval.table import NOTHING
from llm_sra.runs import Run
from llm_sra.untrusted import is_number


def budget_grids(gathered: Gathered) -> list[Grid]:
    """A row for each setting; no table if no run has `metrics.jsonl`."""
    runs = {run.name: run for run in gathered.runs}
    rows = []
    for group in gathered.groups:
        spent = [_spent(runs[name], gathered.metrics[name]) for name in group.runs.values()]
        counted = [one for one in spent if one[0]]
        if counted:
            rows.append((group.label, *(f"{fmean(numbers):,.0f}" for numbers in zip(*counted, strict=True))))
        else:
            rows.append((group.label, *[NOTHING] * 4))
    if all(row[1] == NOTHING for row in rows):
        return []
    note = (
        "An episode trains every hero that sits in it: two where two heroes play each other, one where a hero plays "
        "with an adversary. So arms with equal episodes differ in how many of them train a hero."
    )
    header = ("setting", "steps", "episodes", "episodes of heroes", "tokens of heroes")
    return [Grid("Budget of training, mean over runs", header, (tuple(rows),), (note,))]


def _spent(run: Run, lines: Sequence[Mapping[str, Any]]) -> tuple[float, float, float, float]:
    """Steps, episodes, episodes summed over the heroes that they trained, and tokens that these said."""
    steps = [line for line in lines if is_number(line.get("episodes"))]
    heroes = sorted(set(run.heroes.values()))
    trained = [(line, hero, _number(line, f"policy/{hero}/episodes")) for line in steps for hero in heroes]
    tokens = sum(episodes * _said(line, run, hero) for line, hero, episodes in trained)
    return (
        float(len(steps)),
        sum(_number(line, "episodes") for line in steps),
        sum(episodes for _, _, episodes in trained),
        tokens,
    )


def _said(line: Mapping[str, Any], run: Run, hero: str) -> float:
    """Tokens of a hero in an episode that trained it, mean over its seats."""
    keys = [f"play/{seat}/{name}/tokens" for seat, name in run.heroes.items() if name == hero]
    found = [_number(line, key) for key in keys if is_number(line.get(key))]
    return fmean(found) if found else 0.0


def _number(line: Mapping[str, Any], key: str) -> float:
    value = line.get(key)
    return float(value) if value is not None and is_number(value) else 0.0
