"""Tuning trials of the study's arms: the same number for each, of the fields and values in `tuning.yaml`.

Trials are played with the development roster as they train; the test roster is not read. A trial that is finished is
not made again. What is chosen is for a person to put into the recipe: the table says where it differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml

from llm_sra.runs import read_metrics
from llm_sra.trainer.parse import read_recipe
from recipes.comparing.cells import Cell, state_of

DATA = Path(__file__).parent / "tuning.yaml"
FOLDER = "tuning"  # of the study's, for its runs
SCORE = "eval_mean_partner"  # with the development roster, at the end of training
HEAD = (
    "| arm | trials | fields and values | before, by hand | best on the dev roster | the recipe has |\n"
    + "|---" * 6
    + "|\n"
)
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One setting of an arm.

    Attributes:
        arm: Name of its recipe of the worksheet.
        values: Of the fields that are tuned.
        cell: Its training.
    """

    arm: str
    values: Values
    cell: Cell

    def score(self, out: Path) -> float | None:
        """Mean share solved with the development partners at the end; None if it is not finished."""
        run = out / FOLDER / self.cell.name
        if not state_of(run).finished:
            return None
        found = [line[SCORE] for line in read_metrics(run / "metrics.jsonl") if SCORE in line]
        return float(found[-1]) if found else None


def tuning() -> dict[str, Any]:
    """What `tuning.yaml` says."""
    data: dict[str, Any] = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    return data


def trials() -> list[Trial]:
    """Every trial of every arm."""
    data, found = tuning(), []
    for arm, [(field, values)] in ((arm, list(own.items())) for arm, own in data["grid"].items()):
        for rate, value in product(data["learning_rate"], values):
            tried = {"learning_rate": rate, field: value}
            flags = {"seed": data["seed"], "dev_problems": data["dev_problems"], **tried}
            name = f"{arm}-learning_rate{rate:g}-{field}{value:g}"
            found.append(Trial(arm, tried, Cell(name, f"worksheet/{arm}", flags)))
    return found


def tuning_table(out: Path) -> str:
    """A row for each arm: trials that are finished, what was tried, what was best, and what its recipe has.

    Args:
        out: Folder of the study.
    """
    data = tuning()
    by_arm = {arm: [trial for trial in trials() if trial.arm == arm] for arm in data["grid"]}
    return HEAD + "".join(_row(arm, mine, data["before"], out) for arm, mine in by_arm.items())


def _row(arm: str, mine: list[Trial], before: list[dict[str, Any]], out: Path) -> str:
    scores = [(trial, score) for trial in mine if (score := trial.score(out)) is not None]
    best = max(scores, key=lambda one: one[1], default=None)
    fields = {field: list(dict.fromkeys(trial.values[field] for trial in mine)) for field in mine[0].values}
    by_hand = [one["tried"] for one in before if arm in one["arms"]]
    count = sum(prod(map(len, tried.values())) for tried in by_hand)
    recipe = read_recipe(f"worksheet/{arm}")
    cells = (
        arm,
        f"{len(scores)} of {len(mine)}",
        _told(fields),
        f"{count}: {'; '.join(map(_told, by_hand))}" if count else "none",
        f"{_told(best[0].values)}: {best[1]:.2f}" if best else "-",
        _told({field: recipe[field] for field in fields}),
    )
    return f"| {' | '.join(cells)} |\n"


def _told(values: Values) -> str:
    return ", ".join(f"`{field}` {_numbers(value)}" for field, value in values.items())


def _numbers(value: Any) -> str:
    return " / ".join(f"{number:g}" for number in value) if isinstance(value, list) else f"{value:g}"
