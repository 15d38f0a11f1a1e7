"""A report as one HTML page that needs no network and runs no script but its own.

Everything that a partner or a model wrote is either escaped by jinja, or stays in the JSON of `episodes`, from which
`browser.js` puts it into the page as text.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from eval.report.episodes import EpisodeSample
from eval.report.figures import Picture
from eval.report.sections import Section
from eval.templates import templates

HERE = Path(__file__).parent


def page(title: str, sections: Sequence[Section], store: EpisodeSample) -> str:
    """The whole page.

    Args:
        title: Heading.
        sections: In order; those without data become a line at the end.
        store: Episodes for the page's episode browser.
    """
    script = (HERE / "browser.js").read_text(encoding="utf-8")
    environment = templates(HERE)
    environment.filters["data"] = _data
    return environment.get_template("page.html.jinja").render(
        title=title,
        sections=[section for section in sections if section.missing is None],
        missing=[section for section in sections if section.missing is not None],
        store=store,
        episodes=Markup(store.json),  # nosec: escaped by `script_json`
        script=Markup(script),  # nosec: our own file
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # nosec: our own file
        policy=policy(script),
    )


def policy(script: str) -> str:
    """The page's Content-Security-Policy: one script by its hash, pictures from the page itself, and no network."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(picture: Picture) -> str:
    """A `data:` address that holds the picture. In an `img`, an SVG cannot run a script."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"
