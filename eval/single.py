"""Shows what training cost elsewhere: agents and their base on tasks of lm-eval."""

from pathlib import Path

from eval.grid import Grid, grid_markdown
from llm_sra.evaluation.single.results import Single
from llm_sra.evaluation.single.shown import HEADER, TITLE, agents, notes, rows, sentence
from llm_sra.files import write_whole, writing
from llm_sra.untrusted import as_markdown

TABLE = "single.md"


def single_grids(single: Single) -> list[Grid]:
    """A table for each agent; the last has the notes."""
    named = list(agents(single).items())
    return [
        Grid(f"{TITLE}: {name}", HEADER, (rows(single, *agent),), notes(single) if agent == named[-1][0] else ())
        for agent, name in named
    ]


def write_single_table(single: Single, folder: Path) -> Path:
    """Write `single.md`.

    Raises:
        WriteError: If the disk does not take it.
    """
    path = folder / TABLE
    with writing("the table of lm-eval's numbers", path):
        parts = [*map(grid_markdown, single_grids(single)), as_markdown(sentence(single))]
        write_whole(path, "\n\n".join(parts) + "\n")
    return path
