"""Names to classes: tasks and scripted partners, by folder's name, `path/to/file.py:Class` or `package.module:Class`.

The packages that ship tasks are found by name at run time; nothing here imports them.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from llm_sra.task import ScriptedPartner, Task, check_seats

TASKS = "tasks"


class UnknownNameError(ValueError):
    """A task, partner, arm or key that does not exist; names the nearest one that does."""


class NoFileError(UnknownNameError):
    """The Python file that should hold a class is not there."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not among the known ones."""
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return UnknownNameError(f"unknown {kind} {name!r}{hint} There are: {', '.join(known) or 'none'}")


def task_options(given: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Options of a task, from JSON if a flag or a recipe gives them as text.

    Raises:
        ValueError: If they are no JSON object.
    """
    options: object = given
    if isinstance(given, str):
        try:
            options = json.loads(given)
        except ValueError as error:
            raise ValueError(f"task_args must be a JSON object, got {given!r}: {error}") from error
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"task_args must be a JSON object, got {given!r}")
    return options


def load_task(spec: str, options: Mapping[str, Any] | None = None) -> Task:
    """Make a task.

    Args:
        spec: The name of a folder of `tasks/`, `path/to/file.py:Class`, or `package.module:Class`.
        options: Keyword arguments of its constructor.

    Raises:
        UnknownNameError: If there is no such task or class.
        ValueError: If the options do not fit.
    """
    cls = _load_class(spec, "task") if ":" in spec else _shipped_task(spec)
    if not issubclass(cls, Task):
        raise ValueError(f"{spec} is no task: expected a subclass of llm_sra.Task")
    check_seats(getattr(cls, "seats", ()))
    try:
        return cls(**(options or {}))
    except TypeError as error:
        known = ", ".join(inspect.signature(cls).parameters) or "none"
        raise ValueError(f"task {spec}: {error}; for task_args, its options are: {known}") from error


def load_partner(spec: str, task: Task) -> ScriptedPartner:
    """Make a scripted partner.

    Args:
        spec: One of the task's own (`lazy`), `path/to/file.py:Class`, or `package.module:Class`.
        task: Whose partners are known by name.

    Raises:
        UnknownNameError: If there is no such partner or class.
        ValueError: If the class has no `reply`.
    """
    if ":" not in spec:
        if spec not in task.partners:
            raise unknown("scripted partner", spec, task.partners)
        return task.partners[spec]()
    cls = _load_class(spec, "scripted partner")
    if not callable(getattr(cls, "reply", None)):
        raise ValueError(
            f"{spec} is no scripted partner: the class needs `reply(self, messages: list[dict[str, str]], rng: "
            "random.Random) -> str`"
        )
    try:
        return cls()
    except TypeError as error:
        raise ValueError(f"{spec} must be made without arguments: {error}") from error


def shipped_tasks() -> list[str]:
    """Names of the tasks that are installed beside the library."""
    return sorted(module.name for module in pkgutil.iter_modules(_tasks_package().__path__) if module.ispkg)


def _tasks_package() -> ModuleType:
    package = importlib.import_module(TASKS)
    if not hasattr(package, "LLM_SRA"):
        raise UnknownNameError(
            f"the package `tasks` that Python finds first is {getattr(package, '__file__', package)}, not llm-sra's: "
            "run from another folder, or name the task as path/to/file.py:Class"
        )
    return package


def _shipped_task(name: str) -> type:
    if name not in shipped_tasks():
        raise unknown("task", name, shipped_tasks())
    module = importlib.import_module(f"{TASKS}.{name}")
    classes = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Task) and c is not Task]
    if len(classes) != 1:
        raise UnknownNameError(f"tasks/{name} must export exactly one task class, found {len(classes)}")
    return classes[0]


def _load_class(spec: str, kind: str) -> type:
    place, _, name = spec.rpartition(":")
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place, kind)
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        raise unknown(f"{kind} class in {place}", name, (n for n, c in vars(module).items() if inspect.isclass(c)))
    return cls


def _import(name: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnknownNameError(f"no module {name!r} to take a {kind} from: {error}") from error


def _load_file(path: Path) -> ModuleType:
    """Run a Python file as a module of its own: its folder is not put on the path."""
    if not path.is_file():
        raise NoFileError(f"no file {path} (looked for {path.absolute()})")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"llm_sra_file_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
