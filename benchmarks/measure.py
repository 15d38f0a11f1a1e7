"""Runs what is measured in processes of their own, in turn and in rounds, and turns what they say into tables.

Nothing large is imported here: the process that measures stays small beside the ones that are measured.
"""

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Job:
    """One variant to be measured.

    Attributes:
        module: Run as a program, with the settings and where to write the result.
        settings: JSON-serialisable.
        needs: Python package without which the variant is left out.
    """

    module: str
    settings: Mapping[str, Any]
    needs: str | None = None


@dataclass(frozen=True)
class Result:
    """What one process measured.

    Attributes:
        seconds: Seconds of each step, the first left out.
        read: Prompt tokens of a step, each reply's counted.
        generated: Sampled tokens of a step.
        trained: Tokens of a step that carry loss.
        peak: Largest use of memory after everything was loaded, in MiB; see `peak`.
        parts: Seconds within the model, over all steps of `seconds`.
        numbers: Whatever else.
    """

    seconds: list[float]
    read: int = 0
    generated: int = 0
    trained: int = 0
    peak: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def step(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def per_trained(self) -> float:
        """Milliseconds for each token that carries loss."""
        return 1000 * self.step / self.trained

    @property
    def outside(self) -> float:
        """Share of the time that was spent outside of model forward, backward and generation."""
        return 1 - sum(self.parts.values()) / sum(self.seconds)


def run(job: Job) -> Result:
    """Measure in a new process.

    Raises:
        SystemExit: If it fails; says what it said.
    """
    with tempfile.TemporaryDirectory(prefix="llm-sra-bench-") as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", job.module, json.dumps({**job.settings, "folder": folder}), str(out)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"failed: {job.module} {dict(job.settings)}\n{done.stdout[-1000:]}{done.stderr[-4000:]}")
        return Result(**json.loads(out.read_text()))


def in_turn(jobs: Mapping[str, Job], rounds: int) -> dict[str, list[Result]]:
    """Measure every job once a round, one after the other; what cannot run here is left out, and said."""
    from importlib.util import find_spec

    able = {name: job for name, job in jobs.items() if not job.needs or find_spec(job.needs)}
    for name in jobs.keys() - able.keys():
        print(f"left out, {jobs[name].needs} is not installed: {name}", flush=True)
    results: dict[str, list[Result]] = {name: [] for name in able}
    for number in range(rounds):
        for name, job in able.items():
            results[name].append(run(job))
            print(f"  (round {number + 1}, {name}: {results[name][-1].step:.2f} s)", file=sys.stderr, flush=True)
    return results


def ratio(ours: Sequence[Result], theirs: Sequence[Result], of: Callable[[Result], float]) -> float:
    """Median over rounds of the ratio of two variants."""
    return statistics.median(of(a) / of(b) for a, b in zip(ours, theirs, strict=True))


def median(results: Sequence[Result], of: Callable[[Result], float]) -> float:
    """Median over rounds."""
    return statistics.median(map(of, results))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def target(what: str, value: float, limit: float, at_least: bool = False) -> str:
    """A line that says whether a target is met."""
    met = value >= limit if at_least else value <= limit
    word = "at least" if at_least else "at most"
    return f"- {what}: {value:.2f} ({word} {limit:.2f}: {'met' if met else 'MISSED'})"


def forget_peak() -> None:
    """Restart the measurement of the largest use of memory, if the system allows it."""
    gc.collect()
    if gpu := _gpu():
        gpu.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Largest use of memory by this process since `forget_peak`, in MiB: of tensors on its GPU, else resident."""
    if gpu := _gpu():
        return float(gpu.max_memory_allocated()) / 2**20
    status = Path("/proc/self/status")
    if status.is_file():  # what `resource` says would count the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _gpu() -> Any:
    """`torch.cuda` where this process has a GPU; the one that measures others has not even torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_available() else None


def answer(result: Result) -> None:
    """What a measured process ends with."""
    Path(sys.argv[2]).write_text(json.dumps(asdict(result)))


def asked() -> dict[str, Any]:
    """The settings that a measured process was started with."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    return settings
