"""The launch configurations are ones that accelerate takes, and the CPU's really starts as many processes as asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

CONFIGS = Path(__file__).parent.parent / "accelerate_configs"

TYPES = {
    "cpu": "MULTI_GPU",  # its first lines say why
    "single_gpu": "NO",
    "multi_gpu": "MULTI_GPU",
    "fsdp2": "FSDP",
    "zero2": "DEEPSPEED",
    "zero3": "DEEPSPEED",
}

# Leaves a file per rank: how many ranks it sees, and the sum of (rank + 1) over them.
SCRIPT = """
import sys
from pathlib import Path

import torch
from accelerate import PartialState

state = PartialState(cpu=True)
total = torch.tensor(state.process_index + 1)
torch.distributed.all_reduce(total)
Path(sys.argv[1], str(state.process_index)).write_text(f"{state.num_processes} {state.device.type} {total.item()}")
state.destroy_process_group()
"""


def load(name: str):
    return load_config_from_file(str(CONFIGS / f"{name}.yaml"))


def test_every_configuration_is_in_the_table():
    assert {path.stem for path in CONFIGS.iterdir()} == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_accelerate_reads_it(name):
    config = load(name)
    assert config.distributed_type.value == TYPES[name]
    assert config.use_cpu == (name == "cpu")
    assert config.mixed_precision == ("no" if name == "cpu" else "bf16")


def test_sharding_is_what_the_names_say():
    assert load("fsdp2").fsdp_config["fsdp_version"] == 2
    assert load("zero2").deepspeed_config["zero_stage"] == 2
    assert load("zero3").deepspeed_config["zero_stage"] == 3


@pytest.mark.parametrize("processes", [1, 2])
def test_cpu_starts_as_many_processes_as_asked(processes, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    seen = tmp_path / "seen"
    seen.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu.yaml"]

    done = subprocess.run(
        [*launch, "--num_processes", str(processes), script, seen], env=env, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    ranks = {path.name: path.read_text() for path in seen.iterdir()}
    assert ranks == {1: {"0": "1 cpu 1"}, 2: {"0": "2 cpu 3", "1": "2 cpu 3"}}[processes]
