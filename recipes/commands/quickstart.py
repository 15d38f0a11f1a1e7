"""`llm-sra quickstart`: train both arms on the embedded task, evaluate with strangers, export, and report."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from llm_sra.errors import UserError
from llm_sra.runs import Run, read_metrics
from llm_sra.untrusted import one_line

ARMS = ("ippo", "srpo")
ROSTER = "worksheet_test"


class QuickstartError(UserError):
    """A training failed; says where its log is."""


def main(argv: Sequence[str] = ()) -> None:
    """Run the whole main job; some minutes on two CPU cores."""
    args = parser().parse_args(argv)

    page = args.out / "report" / "report.html"
    if page.is_file() and not args.again:
        print(f"{args.out} holds a finished quickstart, which is left as it is:\n{_places(args.out)}")
        print("To train and play anew, add --again; to keep this one, name another folder with --out.")
        return
    start = time.perf_counter()
    page.unlink(missing_ok=True)  # written last
    print("Training two LoRA agents on the worksheet, by ippo and by srpo side by side:", flush=True)
    runs = train_arms(args.out, args.max_steps)

    from transformers.utils.logging import disable_progress_bar

    from eval.report import gather, write_report
    from eval.report.sections import headline_section
    from eval.summary import write_summary
    from llm_sra import evaluate, export

    disable_progress_bar()  # of loading models that load in a blink

    print("\nPlaying with partners that neither was trained with ...\n", flush=True)
    evaluate(runs, ROSTER, args.out / "eval", problems=args.problems, contributions=True)
    write_summary(runs, args.out / "eval")
    gathered = gather(runs, [args.out / "eval"], ROSTER)
    exported = args.out / "exported"
    shutil.rmtree(exported, ignore_errors=True)
    for run in runs:
        for policy in sorted(set(run.heroes.values())):
            export(run, policy, exported / run.path.name / policy, evaluation=args.out / "eval")
    write_report(gathered, page.parent, "Quickstart: IPPO and SRPO")
    print("Result:", *map(one_line, headline_section(gathered).sentences), sep="\n\n")
    print(
        f"\nDone in {(time.perf_counter() - start) / 60:.1f} minutes.\n{_places(args.out)}\n"
        f"Next: take a seat yourself:  llm-sra play --run {args.out / 'srpo'} --partner human"
    )


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser("llm-sra quickstart", description="Train and compare both arms.")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder for both runs and the report")
    parser.add_argument("--again", action="store_true", help="replace a finished quickstart in --out")
    parser.add_argument("--max_steps", type=int, help="fewer steps, for a try")
    parser.add_argument("--problems", type=int, default=64, help="held-out problems per partner, seat and decoding")
    return parser


def _places(out: Path) -> str:
    """Where a quickstart leaves what it makes."""
    return (
        f"  report    {out / 'report' / 'report.html'}\n"
        f"  picture   {out / 'eval' / 'figure.png'}\n"
        f"  table     {out / 'eval' / 'table.md'}\n"
        f"  adapters  {out / 'exported'}"
    )


def train_arms(out: Path, max_steps: int | None) -> list[Run]:
    """Train every arm in a process of its own, all at a time, and show how far they are.

    Raises:
        QuickstartError: If one of them fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // len(ARMS))
    processes = {}
    for arm in ARMS:
        flags = {"output_dir": out / arm, "overwrite_output_dir": "true", "disable_tqdm": "true"}
        if max_steps:
            flags["max_steps"] = str(max_steps)
        command = [sys.executable, "-m", "recipes.train", "--config", f"worksheet/{arm}"]
        command += [part for key, value in flags.items() for part in (f"--{key}", str(value))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with (out / f"{arm}.log").open("w", encoding="utf-8") as log:
            processes[arm] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        _watch(out, processes)
    finally:
        for process in processes.values():
            process.kill()  # nothing to a finished one; an interrupted quickstart leaves no training behind
    for arm, process in processes.items():
        if process.returncode:
            raise QuickstartError(f"training {arm} failed; its log: {out / f'{arm}.log'}")
    return [Run.open(out / arm) for arm in ARMS]


def _watch(out: Path, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    """Show a bar per training until all have ended."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[numbers]}", markup=False)) as progress:
        bars: dict[str, TaskID] = {arm: progress.add_task(arm, total=None, numbers="") for arm in processes}
        while any(process.poll() is None for process in processes.values()):
            time.sleep(1)
            for arm, bar in bars.items():
                _update(progress, bar, out / arm)


def _update(progress: Progress, bar: TaskID, folder: Path) -> None:
    from llm_sra.trainer.progress import summary

    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "solve_rate" in line]
    if lines:
        total = int(Run.open(folder).config["max_steps"])
        progress.update(bar, completed=lines[-1]["step"], total=total, numbers=summary(lines[-1]))
