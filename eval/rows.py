"""An evaluation's records as a flat table, for spreadsheets and data frames: `results.csv` and `results.parquet`."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from eval.stats import proximity
from llm_sra.evaluation.best_responses import BestResponses
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import Results
from llm_sra.files import write_whole, writing

CSV, PARQUET = "results.csv", "results.parquet"


def rows(results: Results) -> list[dict[str, Any]]:
    """One row per record: each agent with each partner of the roster, in self-play and with other runs.

    Columns are those of `Record`, with the interval's ends as `low` and `high`, `with_run` (whether the partner is
    another run), `kind` (the partner's group; empty in self-play and with other runs), and one column for each number
    of `metrics`; empty where a record does not have it. Where best responses are known, `best_return` and `proximity`
    (see `eval.stats.proximity`; empty where that earns nothing).
    """
    records = [*((one, False) for one in results.records), *((one, True) for one in results.cross_play)]
    numbers = dict.fromkeys(name for one, _ in records for name in one.metrics)
    made = [_row(one, with_run, results.kinds, tuple(numbers)) for one, with_run in records]
    if results.best is not None:
        for row in made:
            row |= _of_best(row, results.best)
    return made


def write_rows(results: Results, folder: Path) -> None:
    """Write both files, whole.

    Raises:
        WriteError: If the disk does not take them.
    """
    table = Dataset.from_list(rows(results))
    with writing("the table of results", folder), _without_progress_bars():
        for name, write in ((CSV, table.to_csv), (PARQUET, table.to_parquet)):
            buffer = io.BytesIO()
            write(buffer)
            write_whole(folder / name, buffer.getvalue())


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Of datasets, which shows them for tables of any size."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _of_best(row: Mapping[str, Any], best: BestResponses) -> dict[str, float | None]:
    found = None if row["with_run"] else best.earned(row["partner"], row["seat"], row["decoding"])
    earns = None if found is None else found.own_return
    near = None if not earns or earns < 0 else float(proximity([row["own_return"]], [earns])[0])
    return {"best_return": earns, "proximity": near}


def _row(record: Record, with_run: bool, kinds: Mapping[str, str], numbers: Sequence[str]) -> dict[str, Any]:
    low, high = record.solve_rate_ci95
    return {
        "run": record.run,
        "arm": record.arm,
        "seat": record.seat,
        "partner": record.partner,
        "with_run": with_run,
        "kind": None if with_run else kinds.get(record.partner),
        "decoding": record.decoding,
        "n": record.n,
        "solve_rate": record.solve_rate,
        "low": low,
        "high": high,
        "team_reward": record.team_reward,
        "own_return": record.own_return,
        "effort_own": record.effort_own,
        "effort_partner": record.effort_partner,
        **{name: record.metrics.get(name) for name in numbers},
    }
