"""The batch files of `examples/slurm`: bash reads them, and every command in them is one that its program takes."""

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
