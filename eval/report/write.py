"""Writes a report's files."""

from pathlib import Path

from eval.report.episodes import sample
from eval.report.gather import Gathered, ReportError
from eval.report.markdown import markdown
from eval.report.page import page
from eval.report.sections import sections
from llm_sra.files import write_whole, writing

PICTURES = "figures"


def write_report(gathered: Gathered, out: str | Path, title: str | None = None) -> list[Path]:
    """Write `report.html`, `report.md`, and the pictures of `report.md` in `figures/`.

    Args:
        gathered: What is known of the runs.
        out: Folder; made if missing. Files of an earlier report are replaced.
        title: Heading; None: one that names the settings.

    Returns:
        The page, the Markdown, and the folder of the pictures.

    Raises:
        ReportError: If `out` is a file.
        WriteError: If the disk does not take it.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ReportError(f"{out} is a file: choose another --out")
    title = title or f"Report: {' and '.join(group.label for group in gathered.groups[:4])}"
    parts, store = sections(gathered), sample(gathered)
    html, text = page(title, parts, store), markdown(title, parts, PICTURES)
    text += f"\nEpisodes: {store.shown:,} of {store.found:,} can be read in report.html.\n"
    with writing("the report", out):
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        for picture in (picture for part in parts for picture in part.pictures):
            write_whole(out / PICTURES / f"{picture.name}.png", picture.png)
        write_whole(out / "report.md", text)
        write_whole(out / "report.html", html)
    return [out / "report.html", out / "report.md", out / PICTURES]
