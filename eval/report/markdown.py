"""A report as Markdown, its pictures as files beside it. Names and replies of partners are never read as markup."""

import re
from collections.abc import Sequence
from itertools import pairwise

from eval.report.sections import Section
from eval.table import Grid
from llm_sra.untrusted import one_line

_MARKS = re.compile(r"[\\|*_<>`~&]|(?<=\])\(|^[#+-](?=\s)")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(title: str, sections: Sequence[Section], pictures: str = "figures") -> str:
    """The whole text.

    Args:
        title: Heading.
        sections: In order; those without data become a line at the end.
        pictures: Folder of the PNG files, as seen from the Markdown's.
    """
    parts = [f"# {escaped(title)}"]
    for section in sections:
        if section.missing is None:
            parts.append(f"## {escaped(section.title)}")
            parts += [escaped(text) for text in section.sentences]
            parts += [table(grid) for grid in section.tables]
            parts += [f"![{escaped(p.caption)}]({pictures}/{p.name}.png)" for p in section.pictures]
    parts += left_out(sections)
    return "\n\n".join(parts) + "\n"


def left_out(sections: Sequence[Section]) -> list[str]:
    """A line for each section without data."""
    return [
        f"Not shown: {escaped(s.title)}. It needs: {escaped(s.missing)}." for s in sections if s.missing is not None
    ]


def table(grid: Grid) -> str:
    """A table with its title and notes."""
    head = [escaped(text) for text in grid.header]
    lines = [f"**{escaped(grid.title)}**", "", _line(head), _line([":---"] * len(head))]
    for before, section in pairwise(((), *grid.sections)):
        lines += [_line([""] * len(head))] * bool(before)
        lines += [_line([escaped(cell) for cell in row]) for row in section]
    return "\n".join([*lines, *(["", *(f"{escaped(note)}  " for note in grid.notes)] if grid.notes else [])]).rstrip()


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKS.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), one_line(text))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
