"""`make bench`: tokens a second of the engines, with 1, 2 and 4 adapters in a batch and with 4 adapters in turn.

Each engine plays in a process of its own, one after the other, in rounds, so that a noisy machine hits all of them
alike. Within a process the ways to play alternate, the same number of episodes each; figures are medians, the first
time left out.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fixed import SEATS
from benchmarks.large import add_layers, prepare_large
from benchmarks.measure import Job, Result, in_turn, median, table, target
from benchmarks.models import write_tiny
from llm_sra.engines import ENGINES

FASTER = 1.5  # one batch over one adapter after the other, with four adapters
ONE_BY_ONE = ("transformers",)


def jobs(model: Path, episodes: int, tokens: int, steps: int, turns: int, engines: Sequence[str]) -> dict[str, Job]:
    """One job for each engine."""
    shape = {"model": str(model), "episodes": episodes, "tokens": tokens, "steps": steps, "turns": turns}
    needs = {"transformers": None, "vllm": "vllm", "server": "vllm"}
    return {name: Job("benchmarks.play", {**shape, "engine": name}, needs[name]) for name in engines}


def report(title: str, results: dict[str, list[Result]]) -> None:
    """Print a model's table and what it says about the target."""
    rows, verdicts = [], []
    for engine, runs in results.items():
        ways = list(runs[0].numbers)
        speeds = [statistics.median(run.generated / run.numbers[way] for run in runs) for way in ways]
        gain = median(runs, lambda run: run.numbers["4 in turn"] / run.numbers["4 in a batch"])
        rows.append([engine, *(f"{speed:.0f}" for speed in speeds), f"{gain:.2f}", f"{median(runs, _peak):.0f}"])
        if engine not in ONE_BY_ONE:
            verdicts.append(
                target(f"{engine}, four adapters in one batch over one after the other", gain, FASTER, True)
            )
    if not rows:
        return
    said = next(iter(results.values()))[0]
    head = ["tokens/s", *next(iter(results.values()))[0].numbers, "4: batch over in turn", "peak MiB"]
    print(f"\n## {title}\n\n{said.generated} tokens generated and {said.read} prompt tokens each time\n")
    print(table(head, rows) + "\n\n" + "\n".join(verdicts), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all engines with both models."""
    parser = argparse.ArgumentParser("rollout", description=__doc__)
    parser.add_argument("--engines", default=",".join(ENGINES), help="which, separated by commas (default all)")
    parser.add_argument("--models", default="tiny,large", help="tiny, large or both (default both)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each engine is started and measured")
    parser.add_argument("--steps", type=int, default=4, help="plays a measurement, the first left out")
    parser.add_argument("--episodes", type=int, default=64, help="played each time with the tiny model")
    parser.add_argument("--large_episodes", type=int, default=8, help="with the large one, of one turn")
    parser.add_argument("--tokens", type=int, default=32, help="of a reply")
    parser.add_argument("--turns", type=int, default=3, help="of a seat, with the tiny model")
    add_layers(parser)
    args = parser.parse_args(argv)
    engines = [name for name in ENGINES if name in args.engines.split(",")]
    print(f"# Rollouts\n\n{os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}")
    with tempfile.TemporaryDirectory(prefix="llm-sra-bench-") as folder:
        if "tiny" in args.models:
            write_tiny(Path(folder) / "tiny")
            shape = (args.episodes, args.tokens, args.steps, args.turns)
            results = in_turn(jobs(Path(folder) / "tiny", *shape, engines), args.rounds)
            report(f"Tiny model, {args.episodes} episodes of {args.turns * len(SEATS)} replies", results)
        if "large" in args.models:
            said = prepare_large(Path(folder) / "large", args.layers, copies=3)
            shape = (args.large_episodes, args.tokens, min(args.steps, 3), 1)
            results = in_turn(jobs(Path(folder) / "large", *shape, engines), args.rounds)
            report(f"Random Qwen2.5-0.5B, {said}, {args.large_episodes} episodes of {len(SEATS)} replies", results)


def _peak(run: Result) -> float:
    return run.peak


if __name__ == "__main__":
    main()
