"""A report as Markdown, its pictures as files beside it. Names and replies of partners are never read as markup."""

from collections.abc import Sequence
from itertools import pairwise

from eval.report.sections import Section
from eval.table import Grid
from llm_sra.untrusted import as_markdown


def markdown(title: str, sections: Sequence[Section], pictures: str = "figures") -> str:
    """The whole text.

    Args:
        title: Heading.
        sections: In order; those without data become a line at the end.
        pictures: Folder of the PNG files, as seen from the Markdown's.
    """
    parts = [f"# {as_markdown(title)}"]
    for section in sections:
        if section.missing is None:
            parts.append(f"## {as_markdown(section.title)}")
            parts += [as_markdown(text) for text in section.sentences]
            parts += [table(grid) for grid in section.tables]
            parts += [f"![{as_markdown(p.caption)}]({pictures}/{p.name}.png)" for p in section.pictures]
    parts += left_out(sections)
    return "\n\n".join(parts) + "\n"


def left_out(sections: Sequence[Section]) -> list[str]:
    """A line for each section without data."""
    return [
        f"Not shown: {as_markdown(s.title)}. It needs: {as_markdown(s.missing)}."
        for s in sections
        if s.missing is not None
    ]


def table(grid: Grid) -> str:
    """A table with its title and notes."""
    head = [as_markdown(text) for text in grid.header]
    lines = [f"**{as_markdown(grid.title)}**", "", _line(head), _line([":---"] * len(head))]
    for before, section in pairwise(((), *grid.sections)):
        lines += [_line([""] * len(head))] * bool(before)
        lines += [_line([as_markdown(cell) for cell in row]) for row in section]
    return "\n".join(
        [*lines, *(["", *(f"{as_markdown(note)}  " for note in grid.notes)] if grid.notes else [])]
    ).rstrip()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
