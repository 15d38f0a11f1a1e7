"""`llm-sra report`: one page on runs that were evaluated, and the same as Markdown."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> None:
    """Write a report, and say where.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ValueError: If a run, an evaluation or the roster cannot be used; nothing is written then.
    """
    args = parser().parse_args(argv)
    from eval.report import gather, write_report
    from llm_sra.runs import open_runs

    gathered = gather(open_runs(args.run), args.eval, args.roster)
    written = write_report(gathered, args.out, args.title)
    print("Written:", *written, sep="\n  ")


def parser() -> argparse.ArgumentParser:
    """The flags."""
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
