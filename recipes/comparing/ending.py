"""What the terminal shows last of a comparison: a sentence, a table, four paths, what to try next; at most 25 lines."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eval.report.gather import Gathered, gather
from eval.story import settings_grid, story
from eval.table import print_grid
from llm_sra.runs import Run
from llm_sra.untrusted import one_line
from recipes.comparing.evaluating import EVAL, REPORT, Played
from recipes.comparing.whole import Comparison


def show(gathered: Gathered, places: Sequence[tuple[str, Path]], tries: Sequence[str], console: Console) -> None:
    """Show the end of a comparison.

    Args:
        gathered: What is known of its runs.
        places: What lies where, by name: four at most.
        tries: Commands to try next: two at most.
        console: Where.
    """
    console.print(one_line(story(gathered)), highlight=False, markup=False)
    console.print()
    print_grid(settings_grid(gathered), console, edge=False)
    console.print()
    for name, place in places:
        console.print(f"  {name:9} {place}", highlight=False, markup=False, soft_wrap=True)
    for number, command in enumerate(tries):
        console.print(f"{'' if number else 'next: ':9}   {command}", highlight=False, markup=False, soft_wrap=True)


def places(out: Path, last: tuple[str, Path]) -> list[tuple[str, Path]]:
    """Where a comparison leaves what it makes.

    Args:
        out: Its folder.
        last: The fourth of them.
    """
    picture = out / EVAL / "figure.png"  # there is none of many runs
    return [
        ("report", out / REPORT / "report.html"),
        ("picture", picture if picture.is_file() else out / REPORT / "figures"),
        ("table", out / EVAL / "table.md"),
        last,
    ]


def finish(comparison: Comparison, played: Played, console: Console) -> None:
    """Show the end of a comparison that was made by `llm-sra compare`."""
    out, runs = comparison.out, [Run.open(comparison.out / cell.name) for cell in comparison.cells]
    gathered = gather(runs, [out / played.folder], played.roster)
    tries = [f"llm-sra play --run {runs[-1].path} --partner human", "the same command with more --seeds"]
    show(gathered, places(out, ("runs", out)), tries, console)
