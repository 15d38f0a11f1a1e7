"""`llm-sra quickstart`: train both arms on the embedded task, evaluate with strangers, export, and report.

It is one comparison (`recipes.comparing`), and exports the agents.
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.comparing.cells import make_cells

if TYPE_CHECKING:
    from llm_sra.runs import Run

RECIPES = ("worksheet/ippo", "worksheet/srpo")
ROSTER = "worksheet_test"
TITLE = "Quickstart: IPPO and SRPO"


def main(argv: Sequence[str] = ()) -> None:
    """Run the whole main job; some minutes on two CPU cores."""
    args = parser().parse_args(argv)
    out, page = args.out, args.out / "report" / "report.html"
    if page.is_file() and not args.again:
        print(f"{out} holds a finished quickstart, which is left as it is:")
        print(*(f"  {name:9} {place}" for name, place in _places(out)), sep="\n")
        print("To train and play anew, add --again; to keep this one, name another folder with --out.")
        return
    from eval.report import gather
    from llm_sra.runs import Run
    from recipes.comparing.ending import show
    from recipes.comparing.evaluating import Played
    from recipes.comparing.whole import Comparison, compare
    from recipes.terminal import console

    start, shown = time.perf_counter(), console()
    cells = make_cells(RECIPES, flags={"max_steps": args.max_steps} if args.max_steps else {})
    played = Played(ROSTER, args.problems, cross_play=False, contributions=True)
    shown.print("Two LoRA agents learn the worksheet, by ippo and by srpo side by side.")
    compare(Comparison(cells, out, played, len(cells), args.again, TITLE), shown)
    runs = [Run.open(out / cell.name) for cell in cells]
    _export(runs, out)
    shown.print(f"Done in {(time.perf_counter() - start) / 60:.1f} minutes.\n")
    tries = [
        f"llm-sra play --run {out / 'srpo'} --partner human",
        "llm-sra compare --config worksheet/ippo worksheet/srpo --seeds 1 2 3 "
        f"--roster {ROSTER} --out runs/compare",
    ]  # fmt: skip
    show(gather(runs, [out / "eval"], ROSTER), _places(out), tries, shown)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser("llm-sra quickstart", description="Train and compare both arms.")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder for both runs and the report")
    parser.add_argument("--again", action="store_true", help="replace a finished quickstart in --out")
    parser.add_argument("--max_steps", type=int, help="fewer steps, for a try")
    parser.add_argument("--problems", type=int, default=64, help="held-out problems per partner, seat and decoding")
    return parser


def _places(out: Path) -> list[tuple[str, Path]]:
    """Where a quickstart leaves what it makes."""
    return [
        ("report", out / "report" / "report.html"),
        ("picture", out / "eval" / "figure.png"),
        ("table", out / "eval" / "table.md"),
        ("adapters", out / "exported"),
    ]


def _export(runs: Sequence["Run"], out: Path) -> None:
    """Each hero as a PEFT adapter, in place of those of an earlier quickstart."""
    from llm_sra import export

    shutil.rmtree(out / "exported", ignore_errors=True)
    for run in runs:
        for policy in sorted(set(run.heroes.values())):
            export(run, policy, out / "exported" / run.path.name / policy, evaluation=out / "eval")
