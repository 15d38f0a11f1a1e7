"""A training on a CPU gives large blocks back as soon as they are free."""

import os
import platform
import subprocess
import sys

import pytest

from llm_sra.trainer.memory import LARGE, return_large_blocks

HOLES = """
import sys, torch
from pathlib import Path
from llm_sra.trainer.memory import LARGE, return_large_blocks
if sys.argv[1] == "set":
    assert return_large_blocks()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
def block():
    return torch.ones(4 * LARGE, dtype=torch.uint8)
for _ in range(4):
    block()  # freeing such blocks is what makes glibc keep the next ones
before = resident()
blocks = [block() for _ in range(32)]
kept = blocks[::2]
del blocks
print((resident() - before) / (4 * LARGE))
"""


def blocks_that_stay(how: str) -> float:
    """Of 32 blocks, how many the process still holds when every other one was freed."""
    environ = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", HOLES, how], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_holes_between_blocks_go_back_to_the_system() -> None:
    assert blocks_that_stay("set") < 20
    assert blocks_that_stay("as it comes") > 28


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_environment_sets_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(LARGE))
    assert not return_large_blocks()
