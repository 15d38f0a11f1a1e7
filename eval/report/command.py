"""The command: reads the command line, has everything gathered, and writes the files."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval.crossplay import find_roster, open_runs
from eval.report.episodes import sample
from eval.report.gather import Gathered, ReportError, gather
from eval.report.markdown import markdown
from eval.report.page import page
from eval.report.sections import sections

PICTURES = "figures"


def main(argv: Sequence[str] | None = None) -> None:
    """Write a report, and say where.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ValueError: If a run, an evaluation or the roster cannot be used; nothing is written then.
    """
    args = _parser().parse_args(argv)
    roster = None if args.roster is None else find_roster(args.roster)
    gathered = gather(open_runs(args.run), args.eval, roster)
    written = write_report(gathered, args.out, args.title)
    print("Written:", *written, sep="\n  ")


def write_report(gathered: Gathered, out: str | Path, title: str | None = None) -> list[Path]:
    """Write `report.html`, `report.md` and the pictures of the latter in `figures/`.

    Args:
        gathered: What is known.
        out: Folder; made if missing. Files of an earlier report are replaced.
        title: Heading; names the settings if None.

    Returns:
        The page, the Markdown, and the folder of the pictures.

    Raises:
        ReportError: If `out` is a file.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ReportError(f"{out} is a file: choose another --out")
    title = title or f"Report: {' and '.join(group.label for group in gathered.groups[:4])}"
    parts, store = sections(gathered), sample(gathered)
    html, text = page(title, parts, store), markdown(title, parts, PICTURES)
    text += f"\nEpisodes: {store.shown:,} of {store.found:,} can be read in report.html.\n"
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    for picture in (picture for part in parts for picture in part.pictures):
        _write(out / PICTURES / f"{picture.name}.png", picture.png)
    _write(out / "report.md", text.encode("utf-8", "replace"))
    _write(out / "report.html", html.encode("utf-8", "replace"))
    return [out / "report.html", out / "report.md", out / PICTURES]


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "llm-sra report",
        description="One page, and the same as Markdown, on runs that were evaluated with `llm-sra eval`.",
    )
    parser.add_argument("run", nargs="+", metavar="RUN", help="run folder, or RUN@checkpoint-30 or RUN@best")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.html, report.md and figures/")
    parser.add_argument(
        "--eval", action="append", metavar="FOLDER", type=Path,
        help="what `llm-sra eval --out` wrote, of one run or several; may be given again (default: RUN/report of each)",
    )  # fmt: skip
    parser.add_argument("--roster", help="of the evaluation, a file or a shipped name: for the robustness curves")
    parser.add_argument("--title", help="heading (default: names the settings)")
    return parser
