"""`llm-sra quickstart`: train both arms on the embedded task, evaluate with strangers, export, and show the result."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

ARMS = ("ippo", "srpo")
HERE = Path(__file__).parent
ROSTER = HERE.parent / "eval" / "rosters" / "worksheet_test.yaml"


def main(argv: Sequence[str] = ()) -> None:
    """Run the whole main job; a few minutes on two CPU cores."""
    parser = argparse.ArgumentParser("llm-sra quickstart", description="Train and compare both arms.")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder for both runs and the report")
    parser.add_argument("--max_steps", type=int, help="fewer steps, for a try")
    parser.add_argument("--problems", type=int, default=64, help="held-out problems per partner, seat and decoding")
    args = parser.parse_args(argv)

    from eval.crossplay import report
    from llm_sra import evaluate, export, train
    from llm_sra.runs import Run

    start = time.perf_counter()
    runs: list[Run] = []
    for arm in ARMS:
        print(f"\n== {arm}: training two LoRA agents on the worksheet ==", flush=True)
        options = {"max_steps": args.max_steps} if args.max_steps else {}
        recipe = HERE / "worksheet" / f"{arm}.yaml"
        runs.append(train(recipe, output_dir=str(args.out / arm), overwrite_output_dir=True, **options))
    print("\n== evaluation: partners that neither was trained with ==", flush=True)
    evaluate(runs, ROSTER, args.out / "eval", problems=args.problems)
    figure = report(runs, args.out / "eval")

    exported = args.out / "exported"
    for run in runs:
        for policy in sorted(set(run.heroes.values())):
            folder = exported / run.path.name / policy
            _remove(folder)
            export(run, policy, folder)
    minutes = (time.perf_counter() - start) / 60
    print(
        f"\nDone in {minutes:.1f} minutes.\n"
        f"  picture   {figure}\n  table     {args.out / 'eval' / 'table.md'}\n  adapters  {exported}\n"
        f"Next: sit at the table yourself:  llm-sra play --run {args.out / 'srpo'} --partner human"
    )


def _remove(folder: Path) -> None:
    """Delete an earlier export of this quickstart."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
