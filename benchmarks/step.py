"""`make bench`: a whole training step beside plain TRL, CoMLRL and nothing but the model calls; and how it grows.

Each variant runs in a process of its own, one after the other, in rounds, so that a noisy machine hits all of them
alike; figures are medians over steps, the first one left out, and then over rounds; ratios are taken within a round.
All variants have the same prompts, reply lengths, replies a step and one update a step for each agent; what differs is
said in `comlrl` and in the output. CoMLRL comes with the extra `bench` and is left out where it is not installed.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.growth import print_growth
from benchmarks.large import add_layers, prepare_large
from benchmarks.measure import Job, Result, in_turn, median, ratio, table, target
from benchmarks.models import write_tiny

PARTS = ("turn", "turns", "large", "growth")
TRL_DEFAULT = 8  # TRL's per_device_train_batch_size
GENERATIONS = 8
TURNS, TREE_GENERATIONS = 6, 2
TREE_REPLIES = 2 * TREE_GENERATIONS * (TREE_GENERATIONS**TURNS - 1)  # CoMLRL's, of one problem
ABOUT_COMLRL = (
    "CoMLRL: two models; all weights trained (as in its examples), or a LoRA adapter on each. It plays one problem and "
    "trains one reply at a time, leaves each reply's last token out of the loss, and plays turns as a tree of 2 "
    "replies a turn (the least it takes): as many replies as ours, more of them late, after longer prompts."
)
Results = Mapping[str, Sequence[Result]]


def one_turn(model: Path, problems: int, tokens: int, micro_batch: int, steps: int, large: bool) -> dict[str, Job]:
    """The variants on one turn of two seats; with a large model those that its targets name."""
    replies = 2 * problems * GENERATIONS
    shape = {"model": str(model), "problems": problems, "generations": GENERATIONS, "turns": 1, "tokens": tokens}
    shape |= {"micro_batch": min(micro_batch, replies // 4), "steps": steps}

    def job(who: str, **more: object) -> Job:
        return Job("benchmarks.drivers", {**shape, "who": who, **more})

    jobs = {"ours": job("ours"), "pure": job("pure"), "TRL": job("trl")}
    if not large:
        jobs["TRL, its default micro-batch"] = job("trl", micro_batch=TRL_DEFAULT)
    jobs["CoMLRL"] = Job("benchmarks.comlrl", {**shape, "lora": False}, "comlrl")
    if not large:
        jobs["CoMLRL, LoRA"] = Job("benchmarks.comlrl", {**shape, "lora": True}, "comlrl")
    return jobs


def six_turns(model: Path, pairs: int, tokens: int, micro_batch: int, steps: int) -> dict[str, Job]:
    """Ours and CoMLRL on episodes of six turns: as many replies, in so many pairs of trees or in whole episodes."""
    shape = {"model": str(model), "turns": TURNS, "tokens": tokens, "micro_batch": micro_batch, "steps": steps}
    tree = {**shape, "problems": 2 * pairs, "generations": TREE_GENERATIONS}
    # A pair is 42 episodes of 12 replies: 6 problems, 3 for each match, of 7.
    ours = {"who": "ours", "problems": 6 * pairs, "generations": 2 * TREE_REPLIES // (2 * TURNS) // 6}
    return {
        "ours": Job("benchmarks.drivers", {**shape, **ours}),
        "CoMLRL": Job("benchmarks.comlrl", {**tree, "lora": False}, "comlrl"),
        "CoMLRL, LoRA": Job("benchmarks.comlrl", {**tree, "lora": True}, "comlrl"),
    }


def describe(title: str, results: Results) -> str:
    """The section's table."""
    rows = []
    for name, runs in results.items():
        last = runs[-1]
        times = ratio(results["ours"], runs, lambda run: run.per_trained)
        watched = last.parts.get("forward")  # CoMLRL's calls of the model are not
        outside = f"{100 * median(runs, lambda run: run.outside):.1f} %" if watched else "-"
        cells = [f"{median(runs, lambda run: run.step):.2f}", *map(str, (last.read, last.generated, last.trained))]
        cells += [f"{median(runs, lambda run: run.per_trained):.3f}", f"{times:.2f}"]
        rows.append([name, *cells, outside, f"{median(runs, lambda run: run.peak):.0f}"])
    head = ["variant", "s per step", "prompt tokens", "generated", "trained", "ms per trained token"]
    return f"\n## {title}\n\n" + table([*head, "ours / this", "outside the model", "peak MiB"], rows)


def verdicts(results: Results, faster: float | None, memory: bool) -> str:
    """The targets that these results speak about.

    Args:
        results: By variant.
        faster: How much faster than CoMLRL ours is to be.
        memory: Whether peaks are to be compared.
    """
    ours, lines = results["ours"], []
    for name in ("TRL", "TRL, its default micro-batch"):
        if name in results:
            value = ratio(ours, results[name], lambda run: run.per_trained)
            lines.append(target(f"time per trained token over that of {name}", value, 1.0))
    if "pure" in results:
        value = ratio(ours, results["pure"], lambda run: run.per_trained)
        lines.append(target("over generation, forward, backward and the tether's own forwards", value, 1.10))
        lines.append(target("share of a step outside the model", median(ours, lambda run: run.outside), 0.10))
    for name in ("CoMLRL", "CoMLRL, LoRA"):
        if name in results and faster:
            value = ratio(results[name], ours, lambda run: run.per_trained)
            lines.append(target(f"times faster than {name}, by trained token", value, faster, at_least=True))
    if memory and "TRL" in results:
        three = 3 * ours[-1].numbers["adapter_mib"]
        value = median(ours, lambda run: run.peak) / (median(results["TRL"], lambda run: run.peak) + three)
        lines.append(target(f"peak memory over TRL's and three more adapters' {three:.0f} MiB", value, 1.05))
    if memory and "CoMLRL" in results:
        lines.append(target("peak memory over CoMLRL's", ratio(ours, results["CoMLRL"], lambda run: run.peak), 0.40))
    return "\n\n" + "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser("step", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, separated by commas (default: all)")
    parser.add_argument("--steps", type=int, default=4, help="steps per measurement, the first one left out")
    parser.add_argument("--rounds", type=int, default=2, help="how often each variant is measured")
    parser.add_argument("--problems", type=int, default=32, help="of 16 replies, with the tiny model")
    parser.add_argument("--pairs", type=int, default=1, help="of trees of six turns, 504 replies a pair")
    parser.add_argument("--large_problems", type=int, default=2, help="of 16 replies, with the large model")
    parser.add_argument("--large_micro_batch", type=int, default=8, help="replies in one forward pass of that")
    parser.add_argument("--large_steps", type=int, default=2, help="steps per measurement of that")
    parser.add_argument("--large_rounds", type=int, default=1, help="how often each variant of that is measured")
    parser.add_argument("--tokens", type=int, default=32, help="of a reply")
    parser.add_argument("--micro_batch", type=int, default=64, help="replies in one forward pass, for all")
    add_layers(parser)
    args = parser.parse_args(argv)
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    print(
        f"# A training step\n\n{os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    )
    print("Ours: 2 heroes and 2 adversaries, tethered; TRL: one adapter; LoRA rank 8. " + ABOUT_COMLRL, flush=True)
    with tempfile.TemporaryDirectory(prefix="llm-sra-bench-") as folder:
        tiny, shape = Path(folder) / "tiny", (args.tokens, args.micro_batch, args.steps)
        write_tiny(tiny)
        if "turn" in parts:
            results = in_turn(one_turn(tiny, args.problems, *shape, large=False), args.rounds)
            print(describe("Tiny model, one turn", results) + verdicts(results, 2.0, memory=False), flush=True)
        if "turns" in parts:
            results = in_turn(six_turns(tiny, args.pairs, *shape), args.rounds)
            print(describe("Tiny model, six turns", results) + verdicts(results, 4.0, memory=False), flush=True)
        if "large" in parts:
            # CoMLRL's two models, each with gradients and two moments, are the most; without it one copy is.
            copies = 8 if find_spec("comlrl") else 1
            said = prepare_large(Path(folder) / "large", args.layers, copies)
            shape = (args.tokens, args.large_micro_batch, args.large_steps)
            jobs = one_turn(Path(folder) / "large", args.large_problems, *shape, large=True)
            results = in_turn(jobs, args.large_rounds)
            title = f"Random Qwen2.5-0.5B, {said}, one turn, rounds: {args.large_rounds}"
            print(describe(title, results) + verdicts(results, None, memory=True), flush=True)
    if "growth" in parts:
        print("\n## Growth: the embedded model on its own task\n")
        print_growth(args.steps, args.rounds)


if __name__ == "__main__":
    main()
