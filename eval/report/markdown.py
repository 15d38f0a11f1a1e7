"""A report as Markdown, with its pictures as files beside it."""

from collections.abc import Sequence

from eval.grid import escaped, grid_markdown
from eval.report.sections import Section


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
            parts += [grid_markdown(grid, numbers=False) for grid in section.tables]
            parts += [f"![{escaped(p.caption)}]({pictures}/{p.name}.png)" for p in section.pictures]
    parts += left_out(sections)
    return "\n\n".join(parts) + "\n"


def left_out(sections: Sequence[Section]) -> list[str]:
    """A line for each section without data."""
    return [
        f"Not shown: {escaped(s.title)}. It needs: {escaped(s.missing)}." for s in sections if s.missing is not None
    ]
