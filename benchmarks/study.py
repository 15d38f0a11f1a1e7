"""`make study`: both arms over seeds, and SRPO over τ and ε, each a run folder; then all of them with strangers.

Resumable cell by cell: a finished run is not trained again, an interrupted one goes on from its last checkpoint, and
an evaluation that exists is kept. Prints and writes `runs/study/study.md` and `study.png`.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes" / "worksheet"
ROSTER = ROOT / "eval" / "rosters" / "worksheet_test.yaml"
SEEDS = (1, 2, 3, 4, 5)
TAUS = (0.0, 0.1, 1.0, 10.0, 100.0)
WHICH = ("end", "best")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: Of its run folder.
        recipe: Its recipe.
        flags: What differs from the recipe.
    """

    name: str
    recipe: str
    flags: dict[str, object] = field(default_factory=dict)


def arm_cells() -> list[Cell]:
    """Both arms at their chosen settings, over seeds."""
    return [Cell(f"{arm}-seed{seed}", arm, {"seed": seed}) for seed in SEEDS for arm in ("ippo", "srpo")]


def sweep_cells() -> list[Cell]:
    """SRPO over τ with and without ε, one seed; and the tether in the other direction."""
    none = {"entropy_coef": 0, "adversary_entropy_coef": 0}
    cells = []
    for tau in TAUS:
        cells.append(Cell(f"tau{tau:g}-eps", "srpo", {"tau": tau, "seed": 1}))
        cells.append(Cell(f"tau{tau:g}-noeps", "srpo", {"tau": tau, "seed": 1, **none}))
    other = {"kl_direction": "partner_adversary", "seed": 1}
    return [*cells, *(Cell(f"other-kl-tau{tau:g}", "srpo", {**other, "tau": tau}) for tau in (1.0, 10.0))]


def train(cell: Cell, out: Path) -> None:
    """Train a cell in a process of its own, with one thread, unless it is finished."""
    folder = out / cell.name
    if (folder / "adapters").is_dir():
        return
    flags = {"output_dir": folder, "resume_from_checkpoint": "true", "disable_tqdm": "true", **cell.flags}
    command = [sys.executable, str(ROOT / "recipes" / "train.py"), "--config", str(RECIPES / f"{cell.recipe}.yaml")]
    command += [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    _run(command, out / f"{cell.name}.log")


def evaluate(cell: Cell, which: str, out: Path, problems: int) -> None:
    """Play a cell's agents, at the end or at the checkpoint that the dev roster chose, with the test roster."""
    folder = out / "eval" / f"{cell.name}@{which}"
    if (folder / "results.json").is_file():
        return
    run = f"{out / cell.name}{'@best' if which == 'best' else ''}"
    command = [sys.executable, "-m", "recipes.cli", "eval", "--run", run, "--roster", str(ROSTER)]
    _run([*command, "--out", str(folder), "--problems", str(problems)], out / f"{cell.name}.log")


def _run(command: Sequence[str], log: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"failed, see {log}: {' '.join(command)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Fill the missing cells, then report on all."""
    parser = argparse.ArgumentParser("study", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--problems", type=int, default=64, help="held-out problems per partner, seat and decoding")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument("--arms_only", action="store_true", help="leave out the sweep over τ and ε")
    args = parser.parse_args(argv)
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)

    cells = arm_cells() + ([] if args.arms_only else sweep_cells())

    def fill(cell: Cell) -> None:
        train(cell, args.out)
        for which in WHICH:
            evaluate(cell, which, args.out, args.problems)
        print(f"done: {cell.name}", flush=True)

    with ThreadPoolExecutor(args.processes) as pool:
        list(pool.map(fill, cells))
    from benchmarks.study_report import write_report

    print(write_report(args.out, arm_cells(), [] if args.arms_only else sweep_cells()))


if __name__ == "__main__":
    main()
