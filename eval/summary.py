"""What an evaluation shows by itself: tables in the terminal and in `table.md`, flat ones, a picture `figure.png`.

`llm_sra.evaluate` plays and writes `results.json`, `episodes.jsonl` and `store/`. The page on several runs is
`eval.report`.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eval.contributions import contribution_grids
from eval.cross_play import cross_play_grids
from eval.groups import groups
from eval.kinds import kinds_grids
from eval.plots import COLOURS, quickstart_figure
from eval.proximity import proximity_grids
from eval.rows import write_rows
from eval.table import markdown, print_tables
from llm_sra.evaluation.results import read_results
from llm_sra.files import write_whole, writing
from llm_sra.runs import Run


def write_summary(runs: Sequence[Run], folder: str | Path, console: Console | None = None) -> Path | None:
    """Print an evaluation's tables, and write them to `table.md`, its records to `results.csv` and a picture.

    Args:
        runs: The runs that were evaluated, whose training curves are drawn.
        folder: Where `llm_sra.evaluate` wrote `results.json` and `episodes.jsonl`.
        console: Where the tables are printed; None: standard output.

    Returns:
        The picture; None if there are too many runs for one.
    """
    folder = Path(folder)
    results = read_results(folder)
    more = cross_play_grids(results, groups(runs)) if results.cross_play else []
    more += kinds_grids(results) + proximity_grids(results) + contribution_grids(results)
    print_tables(results, console, more=more)
    write_rows(results, folder)
    with writing("the tables", folder / "table.md"):
        write_whole(folder / "table.md", markdown(results, more=more))
    if len(runs) > len(COLOURS):
        print(f"no picture: it shows at most {len(COLOURS)} runs, not {len(runs)}")
        return None
    return quickstart_figure(runs, results, folder / "figure.png")
