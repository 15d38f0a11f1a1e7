"""What a training takes: seconds a step, hours for the recipe, tokens a second, memory.

Said once three steps are made, and kept in the run folder as `speed.json`: then estimated from those steps, at the end
of the training measured.
"""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback

from llm_sra.files import write_whole, writing
from llm_sra.untrusted import UntrustedError, is_number, read_json

FILE = "speed.json"
ENOUGH = 3  # steps after which it is said
GB = 1e9


@dataclass(frozen=True)
class Speed:
    """What a training takes on its machine.

    Attributes:
        steps: Of the whole training.
        measured: Steps that this was taken from, the first one of the process included.
        seconds_per_step: The median, without the first step, which also warms up.
        hours: For all steps, with the checkpoints and development rosters between them.
        tokens_per_second: Tokens that the policies generated, over the whole of a step; None if nothing was logged.
        memory_gb: The most memory that the training's first process had, in 10^9 bytes.
        gpu_memory_gb: The most that was in use on its GPU at the end of a step, by whomever; None without a GPU.
        processes: That trained together.
        machine: The GPU's name, or the processor's with its number of cores.
        finished: Whether all steps were made.
    """

    steps: int
    measured: int
    seconds_per_step: float
    hours: float
    tokens_per_second: float | None
    memory_gb: float
    gpu_memory_gb: float | None
    processes: int
    machine: str
    finished: bool

    @property
    def sentence(self) -> str:
        """In words: `6.1 s a step, 8.2 min for 80 steps, 530 tokens/s, 1.2 GB of memory`."""
        minutes = self.hours * 60
        whole = f"{self.hours:.1f} h" if minutes >= 120 else f"{minutes:.1f} min"
        about = "" if self.finished else "about "
        parts = [f"{self.seconds_per_step:.3g} s a step", f"{about}{whole} for {self.steps} steps"]
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        parts.append(f"{self.memory_gb:.1f} GB of memory")
        if self.gpu_memory_gb is not None:
            parts.append(f"{self.gpu_memory_gb:.1f} GB of the GPU")
        return ", ".join(parts)


def read_speed(run: Path) -> Speed | None:
    """What a run's training takes; None before its third step, in runs of earlier versions, or if it cannot be read."""
    try:
        speed = Speed(**read_json(run / FILE))
    except (OSError, UntrustedError, TypeError):
        return None
    return speed if all(map(is_number, (speed.steps, speed.seconds_per_step, speed.hours))) else None


def generated_tokens(logs: Mapping[str, Any]) -> float:
    """Tokens that all policies of a step generated, from its line of `metrics.jsonl`.

    A policy's seats are taken to have had equally many episodes.
    """
    by_policy: dict[str, list[float]] = {}
    for name, value in logs.items():
        if name.startswith("play/") and name.endswith("/tokens"):
            by_policy.setdefault(name.split("/")[2], []).append(value)
    return sum(fmean(each) * float(logs.get(f"policy/{policy}/episodes", 0)) for policy, each in by_policy.items())


class SpeedFile(TrainerCallback):  # type: ignore[misc]
    """Measures a training, says what it takes once that is known, and keeps it.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._said = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Nothing is known of this process yet."""
        self._seconds: list[float] = []
        self._ends: list[float] = []
        self._tokens: list[float] = []
        self._on_gpu = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it."""
        self._ends.append(time.perf_counter())
        self._seconds.append(self._ends[-1] - self._began)
        if args.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(args.device)
            self._on_gpu = max(self._on_gpu, (total - free) / GB)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Count the tokens of a step; from the third one on, say what the training takes."""
        if state.is_world_process_zero and logs and "solve_rate" in logs:
            self._tokens.append(generated_tokens(logs))
            if len(self._seconds) >= ENOUGH and not self._said:
                self._tell(args, state, finished=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what was measured over all steps."""
        if state.is_world_process_zero and self._seconds:
            self._tell(args, state, finished=True)

    def _tell(self, args: Any, state: Any, finished: bool) -> None:
        speed = self._measured(args, state, finished)
        with writing("what the training takes", self._path):
            write_whole(self._path, json.dumps(asdict(speed), indent=1) + "\n")
        if not self._said:
            tqdm.write(f"speed: {speed.sentence}")
        self._said = True

    def _measured(self, args: Any, state: Any, finished: bool) -> Speed:
        steps = max(int(state.max_steps), len(self._seconds))
        usual = median(self._seconds[1:] or self._seconds)
        # From the end of the first step to that of the last: with all that comes between steps.
        whole = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1) if len(self._ends) > 1 else usual
        gpu = args.device.type == "cuda"
        return Speed(
            steps=steps,
            measured=len(self._seconds),
            seconds_per_step=round(usual, 4),
            hours=round(whole * steps / 3600, 5),
            tokens_per_second=round(median(self._tokens) / usual, 1) if self._tokens else None,
            memory_gb=round(_peak() / GB, 3),
            gpu_memory_gb=round(self._on_gpu, 3) if gpu else None,
            processes=args.world_size,
            machine=torch.cuda.get_device_name(args.device) if gpu else _processor(),
            finished=finished and state.global_step >= steps,
        )


def _peak() -> float:
    """The most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor() -> str:
    """Name of the processor and its number of cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"
