"""A report as Markdown, with its pictures as files beside it."""

from collections.abc import Sequence

from eval.grid import grid_markdown
from eval.report.sections import Section
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
            drawn = [f"![{as_markdown(p.caption)}]({pictures}/{p.name}.png)" for p in section.pictures]
            parts += [as_markdown(section.lead), *drawn] if section.lead else []
            parts += [as_markdown(text) for text in section.sentences]
            parts += [] if section.lead else drawn
            parts += [grid_markdown(grid, numbers=False) for grid in section.tables]
    parts += left_out(sections)
    return "\n\n".join(parts) + "\n"


def left_out(sections: Sequence[Section]) -> list[str]:
    """A line for each section without data."""
    return [
        f"Not shown: {as_markdown(s.title)}. It needs: {as_markdown(s.missing)}."
        for s in sections
        if s.missing is not None
    ]
