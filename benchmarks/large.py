"""How much of the 0.5B model fits into this machine's memory, and writing it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import ROOT
from benchmarks.models import LAYERS, parameters

BYTES = 4  # float32
SPARE = 3 * 2**30  # programs, activations, logits


def add_layers(parser: argparse.ArgumentParser) -> None:
    """The flag that says how many layers the large model has."""
    parser.add_argument(
        "--layers", type=int, help=f"of the large model, cut for all alike (default: as many of {LAYERS} as fit)"
    )


def prepare_large(folder: Path, layers: int | None, copies: int) -> str:
    """Write the random 0.5B model.

    Args:
        folder: Where to.
        layers: None: as many as fit.
        copies: Most copies of its weights that a variant holds at once, with gradients and optimizer state.

    Returns:
        What to say about its size.
    """
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") - SPARE
    info = Path("/proc/meminfo")
    if info.is_file():  # what caches would give back counts as free
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        room = int(lines["MemAvailable"].split()[0]) * 1024 - SPARE
    fitting = [n for n in range(1, LAYERS + 1) if copies * BYTES * parameters(n) <= room]
    chosen = layers or (fitting[-1] if fitting else 1)
    command = [sys.executable, "-m", "benchmarks.models", str(folder), str(chosen)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    cut = "" if chosen == LAYERS else f" of {LAYERS} (cut for all alike)"
    return f"{chosen} layers{cut}, {parameters(chosen) / 1e6:.0f} million parameters (float32; bfloat16 on a GPU)"
