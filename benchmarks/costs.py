"""What each shipped recipe takes: fills the table of docs/recipes.md from the `speed.json` of runs.

python -m benchmarks.costs RUN ... [--write]      from finished runs, or runs of three steps or more
python -m benchmarks.costs --measure [--write]    makes some steps of each recipe for CPUs, alone on the machine

A row is `measured` if the run made all steps of its recipe, else `estimated` from as many as it made.
"""

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import put_between
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import shipped_recipes
from llm_sra.trainer.parse import ConfigError, parse, read_recipe
from llm_sra.trainer.speed import Speed, read_speed
from recipes.comparing.cells import Cell, check_cells
from recipes.comparing.training import Trainings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
BEGIN, END = "<!-- costs: python -m benchmarks.costs -->\n", "<!-- end of costs -->\n"
HEAD = "| recipe | s a step | hours | tokens/s | memory, GB | GPU, GB | how |\n" + "|---" * 7 + "|\n"
STEPS = 6  # of a recipe that is measured here


def row(recipe: str, speed: Speed) -> str:
    """A recipe's row."""
    how = f"{'measured' if speed.finished else f'estimated from {speed.measured} steps'} on {speed.machine}"
    how += f", {speed.processes} processes" * (speed.processes > 1)
    tokens = "" if speed.tokens_per_second is None else f"{speed.tokens_per_second:,.0f}"
    gpu = "" if speed.gpu_memory_gb is None else f"{speed.gpu_memory_gb:.1f}"
    cells = [f"{speed.seconds_per_step:.3g}", f"{speed.hours:.2g}", tokens, f"{speed.memory_gb:.1f}", gpu, how]
    return f"| `{recipe}` | {' | '.join(cells)} |\n"


def table(known: Mapping[str, Speed]) -> str:
    """The table, with a row for each recipe of which something is known; below it, how many there are beside."""
    rows = [row(recipe, known[recipe]) for recipe in shipped_recipes() if recipe in known]
    rest = len(shipped_recipes()) - len(rows)
    return (HEAD + "".join(rows) + "\n" if rows else "") + (f"Not measured: {rest} recipes.\n" if rest else "")


def of_runs(runs: Iterable[Path]) -> dict[str, Speed]:
    """By recipe, what its run took; the run's `output_dir` in a recipe, or its folder's name, says whose it is.

    Raises:
        ValueError: If a run has no `speed.json`, or is of no shipped recipe.
    """
    known = {}
    for run in runs:
        place = "/".join(run.resolve().parts)
        recipes = [recipe for recipe in shipped_recipes() if place.endswith(f"/{recipe}")]
        if not recipes:
            raise ValueError(f"{run} is of no shipped recipe: its path must end in one's name, as worksheet/srpo")
        recipe = max(recipes, key=len)
        known[recipe] = estimated(recipe, run)
    return known


def measure(out: Path) -> dict[str, Speed]:
    """Make some steps of each recipe that trains on a CPU with a model that ships."""
    cells = []
    for recipe in shipped_recipes():
        values = read_recipe(recipe)
        ships = str(values.get("model_name_or_path", "")).split("/")[0] == values.get("task")
        if values.get("use_cpu") and ships and not _needs_another(values):
            cells.append(Cell(recipe, recipe, {"max_steps": STEPS, "save_strategy": "no", "eval_strategy": "no"}))
    for cell in cells:
        (out / cell.name).parent.mkdir(parents=True, exist_ok=True)
    Trainings(cells, out, check_cells(cells, out)).run()
    return {cell.name: estimated(cell.recipe, out / cell.name) for cell in cells}


def _needs_another(values: Mapping[str, Any]) -> bool:
    """Whether a recipe begins with an adapter of another training, or has some as partners."""
    roster = values.get("partners")
    return bool(values.get("initial_adapter") or (roster and any(one.kind == "adapter" for one in read_roster(roster))))


def estimated(recipe: str, run: Path) -> Speed:
    """What all steps of a recipe take, or would take by a run of fewer.

    Raises:
        ValueError: If the run has no `speed.json`, or the recipe cannot be used.
    """
    speed = read_speed(run)
    if speed is None:
        raise ValueError(f"{run} has no speed.json: a training writes it after three steps")
    try:
        steps = parse(recipe, ["--use_cpu", "true", "--bf16", "false"])[1].max_steps
    except ConfigError as error:
        raise ValueError(f"{recipe}: {error}") from error
    hours, whole = speed.hours * steps / speed.steps, speed.finished and speed.steps == steps
    return Speed(**{**vars(speed), "steps": steps, "hours": hours, "finished": whole})


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser("benchmarks.costs", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders that end in a recipe's name")
    parser.add_argument("--measure", action="store_true", help=f"make {STEPS} steps of each recipe for CPUs")
    parser.add_argument("--write", action="store_true", help="replace the table of docs/recipes.md")
    args = parser.parse_args(argv)
    known = of_runs(args.runs)
    if args.measure:
        with tempfile.TemporaryDirectory() as folder:
            known = {**measure(Path(folder)), **known}
    text = table(known)
    print(text, end="")
    if args.write:
        put_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    main()
