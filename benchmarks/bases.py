"""What two base models in one training hold in memory: the sum of both and of the adapters, or more?

Two random models in the shape of Qwen2.5-0.5B, cut to one and to two layers, or others that are named, are trained for
two steps of SRPO on worksheets: each alone, in both seats, and both together. All tensors that are alive after the last
step are counted, each storage once.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.measure import ROOT

STATE = 3  # of each number that is trained: itself, and Adam's two moments
MB = 1e6
SHORT: dict[str, Any] = {
    "task": "worksheet", "arm": "srpo", "tau": 10, "max_steps": 2, "problems_per_step": 2, "num_generations": 2,
    "lora_r": 16, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
    "report_to": "none", "disable_tqdm": True, "log_episodes": 0, "max_completion_length": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Held:
    """What a training holds, in bytes.

    Attributes:
        bases: The base models' weights.
        adapters: The adapters, with the optimizer's state.
        tensors: All tensors that are alive.
    """

    bases: int
    adapters: int
    tensors: int


class _Count(TrainerCallback):  # type: ignore[misc]
    """Counts when the training ends."""

    def __init__(self) -> None:
        self.tensors = 0

    def on_train_end(self, *args: object, **kwargs: object) -> None:
        """Count."""
        self.tensors = alive()


def alive() -> int:
    """Bytes of all tensors that are alive, each storage once."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if isinstance(one, torch.Tensor) and one.device.type == "cpu":
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def hold(first: str, second: str, folder: Path) -> Held:
    """Train with a model in each seat, in this process."""
    from llm_sra import train
    from llm_sra.models.loading import load_model

    count = _Count()
    run = train(callbacks=[count], output_dir=folder, seat_models={"first": first, "second": second}, **SHORT)
    trained = 0
    for path in run.adapters.glob("*/adapter_model.safetensors"):
        trained += path.stat().st_size
    bases = sum(_bytes(load_model(model)[0]) for model in dict.fromkeys((first, second)))
    return Held(bases, STATE * trained, count.tensors)


def _bytes(model: torch.nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in model.parameters())


def measured(first: str, second: str) -> Held:
    """`hold` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bases", "--hold", first, second]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return Held(**json.loads(done.stdout.splitlines()[-1]))


def table(rows: Sequence[tuple[str, Held]]) -> str:
    """Markdown: MB, and all tensors over the sum of bases and adapters."""
    lines = ["| models | bases, MB | adapters and optimizer, MB | all tensors, MB | over the sum |"]
    lines.append("|---|---|---|---|---|")
    for name, held in rows:
        ratio = held.tensors / (held.bases + held.adapters)
        numbers = [held.bases / MB, held.adapters / MB, held.tensors / MB]
        lines.append(f"| {name} | {' | '.join(f'{number:.1f}' for number in numbers)} | {ratio:.3f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bases", description=__doc__)
    parser.add_argument("--models", nargs=2, metavar="MODEL", help="names or folders (default: the random ones)")
    parser.add_argument("--hold", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.hold:
            first, second = args.hold
            print(json.dumps(vars(hold(first, second, Path(folder) / "run"))))
            return
        models = args.models or [str(Path(folder) / name) for name in ("one-layer", "two-layers")]
        if not args.models:
            for layers, model in enumerate(models, start=1):
                command = [sys.executable, "-m", "benchmarks.models", model, str(layers)]
                subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        first, second = models
        names = [Path(model).name for model in models]
        pairs = [(names[0], (first, first)), (names[1], (second, second)), (" and ".join(names), (first, second))]
        print(table([(name, measured(*pair)) for name, pair in pairs]))


if __name__ == "__main__":
    main()
