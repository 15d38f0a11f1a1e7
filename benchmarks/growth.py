"""Where a training step's time goes, its peak memory, and how both grow: a part of `step`.

Each variant trains the embedded model by SRPO through the launchable program. The last columns are ratios to the first
variant, the figures to trust on a shared machine.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_sra.runs import read_metrics

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "worksheet" / "srpo.yaml"
PARTS = ("generate", "score", "train", "sync")
BASE = {"problems_per_step": 8, "sharing": "shared"}
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "base: 64 episodes, 6 turns, 2 adapters": BASE,
    "episodes x 2": {**BASE, "problems_per_step": 16},
    "turns x 2": {**BASE, "task_args": json.dumps({"turns": 12})},
    "adapters x 2": {**BASE, "sharing": "seat"},
}
MORE_TOKENS = ("episodes x 2", "turns x 2")
WHY = {
    "episodes x 2": "the same work twice: noise, or a micro-batch or a batch of replies that no longer fits the caches",
    "turns x 2": "each turn attends to all that was said before, in generation and in training, so attention grows "
    "with the square of the turns (engines keep what they have read, within limits)",
    "adapters x 2": "the same tokens in half the batches' size, so each call of the model is used less",
}


@dataclass(frozen=True)
class Measured:
    """What the steps of one variant took.

    Attributes:
        seconds: Per part, each step's seconds.
        peak: Largest resident memory of the process, in MiB.
    """

    seconds: dict[str, list[float]]
    peak: float

    @property
    def step(self) -> float:
        """Median seconds of a step."""
        return statistics.median(map(sum, zip(*self.seconds.values(), strict=True)))


def measure(flags: Mapping[str, object], steps: int) -> Measured:
    """Train a variant for some steps in a new process."""
    out = Path(tempfile.mkdtemp(prefix="llm-sra-bench-"))
    settings = {"output_dir": out / "run", "max_steps": steps, "eval_strategy": "no", "save_strategy": "no", **flags}
    command = [sys.executable, str(ROOT / "recipes" / "train.py"), "--config", str(RECIPE), "--disable_tqdm", "true"]
    command += [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}\n{errors[-2000:]}")
    lines = [line for line in read_metrics(out / "run" / "metrics.jsonl") if "time/train" in line][1:]
    shutil.rmtree(out)
    return Measured({part: [line[f"time/{part}"] for line in lines] for part in PARTS}, usage.ru_maxrss / 1024)


def print_growth(steps: int, rounds: int) -> None:
    """Measure all variants and print the table.

    Args:
        steps: Number of steps of a measurement, the first one left out.
        rounds: How often each variant is measured.
    """
    measured = [{name: measure(flags, steps) for name, flags in VARIANTS.items()} for _ in range(rounds)]
    head = "| variant | s per step | steps/s | " + " | ".join(PARTS) + " | peak MiB | time, ratio | memory, ratio |"
    print(head + "\n" + "|---" * (head.count("|") - 1) + "|")
    base = next(iter(VARIANTS))
    for name in VARIANTS:
        runs = [one[name] for one in measured]
        step = statistics.median(run.step for run in runs)
        shares = {part: sum(sum(run.seconds[part]) for run in runs) for part in PARTS}
        whole = sum(shares.values())
        peak = statistics.median(run.peak for run in runs)
        ratio = statistics.median(one[name].step / one[base].step for one in measured)
        memory = statistics.median(one[name].peak / one[base].peak for one in measured)
        percent = " | ".join(f"{100 * shares[part] / whole:.0f} %" for part in PARTS)
        print(
            f"| {name} | {step:.2f} | {1 / step:.2f} | {percent} | {peak:.0f} | {ratio:.2f} | {memory:.2f} |",
            flush=True,
        )

    print(explain(measured))


def explain(measured: Sequence[Mapping[str, Measured]]) -> str:
    """Name what grows more than linearly: by more than a tenth beyond what was doubled."""
    base, *doubled = VARIANTS
    lines = []
    for name in doubled:
        grown = statistics.median(one[name].step / one[base].step for one in measured)
        limit = 2.2 if name in MORE_TOKENS else 1.1  # twice the adapters share the same episodes
        parts = {
            part: statistics.median(
                statistics.median(one[name].seconds[part]) / max(statistics.median(one[base].seconds[part]), 1e-9)
                for one in measured
            )
            for part in PARTS[:3]
        }
        says = ", ".join(f"{part} x {value:.2f}" for part, value in parts.items())
        verdict = "no worse than linear" if grown <= limit else f"WORSE THAN LINEAR; {WHY[name]}"
        lines.append(f"- {name}: time x {grown:.2f} ({says}): {verdict}")
    return "\n".join(lines)
