"""A table as text: what the terminal, the Markdown files and the report all draw from. Its Markdown is written here.

Names and replies of partners are never read as markup: `as_markdown` takes care of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from llm_sra.untrusted import as_markdown


@dataclass(frozen=True)
class Grid:
    """A table as text, before it is drawn.

    Attributes:
        title: What it shows.
        header: The heading of each column; a newline separates the lines of a heading.
        sections: Groups of rows, with a line between two groups; a row is a cell per column.
        notes: Sentences below the table.
    """

    title: str
    header: tuple[str, ...]
    sections: tuple[tuple[tuple[str, ...], ...], ...]
    notes: tuple[str, ...] = ()


def grid_markdown(grid: Grid, numbers: bool = True) -> str:
    """A table as Markdown, with its title and notes.

    Args:
        grid: The table.
        numbers: Whether all columns but the first hold numbers, which are aligned to the right.
    """
    head = [as_markdown(text) for text in grid.header]
    right = "---:" if numbers else ":---"
    lines = [f"**{as_markdown(grid.title)}**", "", _line(head), _line([":---"] + [right] * (len(head) - 1))]
    for before, section in pairwise(((), *grid.sections)):
        lines += [_line([""] * len(head))] * bool(before)
        lines += [_line([as_markdown(cell) for cell in row]) for row in section]
    return "\n".join([*lines, "", *(f"{as_markdown(note)}  " for note in grid.notes)]).rstrip()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
