"""The batch files of `examples/slurm`: bash reads them, and every command in them is one that its program takes."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support import ROOT
from test_docs_commands import Command, read_only

from recipes.commands.serve import parser

FILES = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))
PROGRAMS = ("llm-sra", "accelerate")


def commands(text: str) -> list[list[str]]:
    """The commands of our programs, without what stands before them in a line, and without what runs them."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:3] == ["srun", "bash", "-c"]:
            words = shlex.split(words[3])
        words = [word for word in words if word != "&"]
        start = next((index for index, word in enumerate(words) if word in PROGRAMS), None)
        if start is not None and all("=" in word for word in words[:start]):
            found.append(words[start:])
    return found


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [file.stem for file in FILES] == ["eight_gpus", "one_gpu", "two_nodes", "vllm_servers"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bash_reads_it_and_it_is_explained(file: Path) -> None:
    assert subprocess.run(["bash", "-n", str(file)]).returncode == 0
    lines = file.read_text().splitlines()
    assert lines[0] == "#!/bin/bash" and f"#   sbatch examples/slurm/{file.name}" in lines
    assert {"--nodes", "--time", "--output", "--requeue"} <= set(
        re.findall(r"^#SBATCH (--[\w-]+)", file.read_text(), re.M)
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_command_is_taken(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands(file.read_text())
    assert found
    for words in found:
        if words[0] == "accelerate":
            words = ["llm-sra", "train", *words[words.index("recipes.train") + 1 :]]
        if words[1] == "serve":  # which would read the model's shape from the hub
            args, fields = parser().parse_known_args(words[2:])
            words = ["llm-sra", "train", "--config", args.config, *fields]
        read_only(Command(tuple(words), True), monkeypatch)
    assert not list(tmp_path.iterdir())


def test_a_wrong_flag_in_one_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "examples" / "slurm" / "one_gpu.sbatch").read_text().replace("--seeds", "--sedes")
    with pytest.raises(AssertionError):
        read_only(Command(tuple(commands(text)[0]), True), monkeypatch)


# What stands in for the programs: each notes its words, and on which GPUs and node it would run.
NOTE = 'echo "${0##*/} [$CUDA_VISIBLE_DEVICES] [$SLURM_NODEID] $*" >> "$NOTES"\n'
PROGRAM_STUBS = {
    # As a training does, it waits for its servers.
    "llm-sra": NOTE
    + '[ "$1" = list ] && echo /configs/multi_gpu.yaml\n[ "$1" != serve ] || exec sleep 300\n'
    + 'case "$*" in *"--engine server"*) until [ "$(grep -c " serve " "$NOTES")" = 2 ]; do sleep 0.05; done;; esac',
    "accelerate": NOTE,
    "srun": 'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@" || exit; done',  # on each of two nodes
    "scontrol": '[ "$*" = "show hostnames node-[1-2]" ] && printf "node-1\\nnode-2\\n"',
}


def run_job(file: Path, folder: Path, **stubs: str) -> tuple[int, list[str]]:
    """Run a batch file with stand-ins for its programs: its exit code, and what they noted, sorted."""
    (folder / "bin").mkdir()
    for name, text in {**PROGRAM_STUBS, **stubs}.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    path, notes = f"{folder}/bin:{os.environ['PATH']}", folder / "notes"
    environment = {"PATH": path, "NOTES": str(notes), "SLURM_JOB_NODELIST": "node-[1-2]"}
    # It ends only when all that it started has ended, too: servers that go on would hold its output open.
    done = subprocess.run(["bash", str(file)], cwd=folder, env=environment, capture_output=True, timeout=120)
    return done.returncode, sorted(notes.read_text().splitlines()) if notes.exists() else []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_runs_its_commands_where_it_says(file: Path, tmp_path: Path) -> None:
    code, noted = run_job(file, tmp_path)
    assert code == 0
    if file.stem == "two_nodes":
        *nodes, listed = noted
        assert listed == "llm-sra [] [] list accelerate_configs --path multi_gpu"
        for rank, line in enumerate(nodes):
            assert line.startswith(f"accelerate [] [{rank}] launch --config_file /configs/multi_gpu.yaml ")
            assert f"--machine_rank {rank} --main_process_ip node-1 --main_process_port 29500 -m recipes.train" in line
        assert len(nodes) == 2
    elif file.stem == "vllm_servers":
        served = [line for line in noted if " serve " in line]
        assert [(line.split()[1], re.findall(r"--port (\d+)", line)) for line in served] == [
            ("[0]", ["8000"]), ("[1]", ["8001"]),
        ]  # fmt: skip
        (trained,) = set(noted) - set(served)
        assert trained.startswith("llm-sra [2,3] [] compare ")
        assert "http://127.0.0.1:8000,http://127.0.0.1:8001" in trained
    else:
        (line,) = noted
        assert line.startswith("llm-sra [] [] compare --config gsm8k/")


def test_a_job_that_does_not_know_its_nodes_fails_and_trains_nothing(tmp_path: Path) -> None:
    two_nodes = next(file for file in FILES if file.stem == "two_nodes")
    code, noted = run_job(two_nodes, tmp_path, scontrol="exit 3")
    assert (code, noted) == (3, [])
