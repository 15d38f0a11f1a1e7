"""HTML templates: what others wrote is escaped, and shown without characters that reverse or hide text."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llm_sra.untrusted import printable


def templates(folder: Path) -> Environment:
    """The templates in a folder; a name that a template lacks is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: object) -> object:
    """Text in printable characters; our own markup unchanged."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
