"""Resolves names: tasks, partners, shipped models, recipes, rosters and configurations of accelerate.

What ships lies in the packages beside this one (`tasks`, `eval`, `recipes`, `accelerate_configs`). They are found at
run time, in a clone as in an installed wheel; only making a task imports one of them.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from llm_sra.errors import NoFileError, TaskError, UnknownNameError, UserError, did_you_mean, unknown
from llm_sra.task import ScriptedPartner, Task
from llm_sra.untrusted import UntrustedError, parse_json

TASKS = "tasks"
_SHIPPED_MODEL = re.compile(r"(?:^|/)tasks/([\w-]+)/models/([\w.-]+)/?$")  # how older runs name one


def shipped_tasks() -> dict[str, Path]:
    """Tasks by name: `worksheet`."""
    return {path.parent.name: path.parent for path in sorted(_folder(TASKS).glob("*/__init__.py"))}


def shipped_recipes() -> dict[str, Path]:
    """Recipes by name: `worksheet/srpo`, `gsm8k/qwen3-0.6b/ippo`."""
    root = _folder("recipes")
    files = {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}
    return {name: path for name, path in files.items() if "partners" not in path.relative_to(root).parts}


def shipped_rosters() -> dict[str, Path]:
    """Rosters by name: `worksheet_test`."""
    return {path.stem: path for path in sorted((_folder("eval") / "rosters").glob("*.yaml"))}


def shipped_models() -> dict[str, Path]:
    """Starting models by name: `worksheet/pupil`."""
    found = sorted(_folder(TASKS).glob("*/models/*/config.json"))
    return {f"{path.parts[-4]}/{path.parts[-2]}": path.parent for path in found}


def shipped_accelerate_configs() -> dict[str, Path]:
    """Configurations for `accelerate launch --config_file` by name: `cpu`."""
    return {path.stem: path for path in sorted(_folder("accelerate_configs").glob("*.yaml"))}


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe.

    Args:
        name: A path, or the name of a shipped recipe such as `worksheet/srpo`.

    Raises:
        UnknownNameError: If it is neither.
    """
    return _find("recipe", name, shipped_recipes())


def find_roster(name: str | Path) -> Path:
    """The file of a roster.

    Args:
        name: A path, or the name of a shipped roster such as `worksheet_test`.

    Raises:
        UnknownNameError: If it is neither.
    """
    return _find("roster", name, shipped_rosters())


def find_model(name: str) -> str:
    """What transformers loads for a model's name: the folder of a shipped model, or the name as it is.

    Args:
        name: A shipped model (`worksheet/pupil`), a folder, or a repository on the hub. The folder of a shipped model
            that has moved since (a run of another clone) is found by its last parts, `tasks/TASK/models/NAME`.
    """
    if Path(name).is_dir():
        return name
    shipped = shipped_models()
    if name in shipped:
        return str(shipped[name])
    if (moved := _SHIPPED_MODEL.search(name)) and (now := shipped.get(f"{moved[1]}/{moved[2]}")):
        return str(now)
    return name


def model_hint(name: str) -> str:
    """The nearest shipped model, if a name looks like one; empty for names of the hub, which look much the same.

    Args:
        name: That no model could be loaded for.

    Returns:
        `; did you mean 'worksheet/pupil'? ...` for names that begin with a shipped task, such as `worksheet/pupl`.
    """
    if name.partition("/")[0] not in shipped_tasks():
        return ""
    nearest = did_you_mean(name, shipped_models(), cutoff=0.0)
    return f"{nearest} `llm-sra list models` shows those that ship"


def model_name(path: str) -> str:
    """The name that runs keep of a model: that of a shipped one, the full path of another folder, else as it is."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    resolved = folder.resolve()
    return next((name for name, place in shipped_models().items() if place.resolve() == resolved), str(resolved))


def models_named(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The base models that the fields of a training name, each once: that of all seats, and those of single seats."""
    named = [values.get("model_name_or_path"), *(values.get("seat_models") or {}).values()]
    return tuple(dict.fromkeys(str(name) for name in named if name))


def _find(kind: str, name: str | Path, shipped: Mapping[str, Path]) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    if str(name) in shipped:
        return shipped[str(name)]
    hint = did_you_mean(name, shipped) or "."
    raise NoFileError(
        f"no {kind} {name} (looked for {path.absolute()}){hint} `llm-sra list {kind}s` shows those that ship"
    )


def _folder(package: str) -> Path:
    """The folder of a package that ships beside this one; one of the same name found elsewhere is not ours."""
    return Path(__file__).resolve().parent.parent / package


def task_options(given: object, field: str = "task_args") -> dict[str, Any] | None:
    """Options of a task, or another field of names and values, from JSON if a flag or a recipe gives text.

    Args:
        given: A mapping, its JSON, or None.
        field: Whose value it is, for the error.

    Raises:
        ValueError: If they are no JSON object.
    """
    options = given
    if isinstance(given, str):
        try:
            options = parse_json(given, once=True)
        except UntrustedError as error:
            raise ValueError(f"{field} must be a JSON object, got {given!r}: {error}") from error
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"{field} must be a JSON object, got {given!r}")
    return options


def is_shipped(spec: str) -> bool:
    """Whether a task ships with llm-sra: a name, or a class of the package `tasks`; not a file or another module."""
    place = spec.rpartition(":")[0]
    return not place or (place.split(".")[0] == TASKS and place.split(".")[1:2] in [[name] for name in shipped_tasks()])


def task_name(spec: str) -> str:
    """What runs keep of a task's name: the full path of a file, so that it is found from any folder."""
    place, _, name = spec.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(".py") and Path(place).is_file() else spec


def load_task(spec: str, options: Mapping[str, Any] | None = None) -> Task:
    """Make a task.

    Args:
        spec: The name of a folder of `tasks/`, `path/to/file.py:Class`, or `package.module:Class`.
        options: Keyword arguments of its constructor.

    Raises:
        UnknownNameError: If there is no such task or class.
        ValueError: If the options do not fit.
    """
    cls, options = task_class(spec), options or {}
    check_options(spec, cls, options)
    try:
        return cls(**options)
    except TypeError as error:
        raise ValueError(f"task {spec}: {error}; {_options_of(cls)}") from error


def check_options(spec: str, cls: type[Task], options: Mapping[str, Any]) -> None:
    """Check that a task has all options that are given; their values are its own to check.

    Raises:
        ValueError: If it lacks one; names the nearest.
    """
    takes = inspect.signature(cls).parameters
    if any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        return
    for name in options.keys() - takes.keys():
        raise ValueError(f"task {spec} has no option {name!r}{did_you_mean(name, takes)}; {_options_of(cls)}")


def _options_of(cls: type[Task]) -> str:
    return f"for task_args, its options are: {', '.join(inspect.signature(cls).parameters) or 'none'}"


def task_class(spec: str) -> type[Task]:
    """The class of a task.

    Args:
        spec: As for `load_task`.

    Raises:
        UnknownNameError: If there is no such task or class.
        ValueError: If the class is no task.
    """
    cls = _load_class(spec, "task") if ":" in spec else _shipped_task(spec)
    if not issubclass(cls, Task):
        raise ValueError(f"{spec} is no task: expected a subclass of llm_sra.Task")
    _check_seats(getattr(cls, "seats", ()))
    return cls


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
        partner: ScriptedPartner = cls()
    except TypeError as error:
        raise ValueError(f"{spec} must be made without arguments: {error}") from error
    return partner


def _tasks_package() -> ModuleType:
    package = importlib.import_module(TASKS)
    if not hasattr(package, "LLM_SRA"):
        raise UnknownNameError(
            f"the package `tasks` that Python finds first is {getattr(package, '__file__', package)}, not llm-sra's: "
            "run from another folder, or name the task as path/to/file.py:Class"
        )
    return package


def _shipped_task(name: str) -> type:
    if name.endswith(".py"):
        raise _class_missing(Path(name))
    if name not in shipped_tasks():
        raise unknown("task", name, shipped_tasks())
    _tasks_package()
    module = importlib.import_module(f"{TASKS}.{name}")
    classes = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Task) and c is not Task]
    if len(classes) != 1:
        raise UnknownNameError(f"tasks/{name} must export exactly one task class, found {len(classes)}")
    return classes[0]


def _load_class(spec: str, kind: str) -> type:
    place, _, name = spec.rpartition(":")
    if is_shipped(spec):
        _tasks_package()  # it is ours
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place, kind)
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        own = {n: c for n, c in vars(module).items() if inspect.isclass(c) and c is not Task}
        tasks = [n for n, c in own.items() if issubclass(c, Task)]
        raise unknown(f"{kind} class in {place}", name, tasks if kind == "task" else own)
    return cls


def _class_missing(path: Path) -> UnknownNameError:
    """The error for a file without its class: names the tasks in it, without running it."""
    if not path.is_file():
        return NoFileError(f"no file {path} (looked for {path.absolute()}); a task is named as {path}:Class")
    try:
        classes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError) as error:
        return UnknownNameError(f"{path} names no class, and cannot be read: {error}. Write {path}:Class")
    tasks: list[str] = []
    for node in classes:
        bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
        if bases & {"Task", *tasks}:
            tasks.append(node.name)
    if not tasks:
        return UnknownNameError(f"{path} names no class, and none in it derives from llm_sra.Task: write {path}:Class")
    return UnknownNameError(f"{path} names no class; did you mean {' or '.join(f'{path}:{name}' for name in tasks)}?")


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
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except SyntaxError as error:
        raise TaskError(f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}. Correct the file") from error
    except Exception as error:
        lines = [
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)
        ]
        place = f"{path}:{lines[-1]}" if lines else str(path)
        raise TaskError(
            f"{place}: {type(error).__name__}: {error}, as the file was imported. Correct the file"
        ) from error
    return module


def _check_seats(seats: Sequence[Hashable]) -> None:
    """Raise ValueError unless there are at least two seats and all names differ."""
    if len(seats) < 2 or len(set(seats)) != len(seats):
        raise ValueError(f"a task needs at least two seats with different names, got {list(seats)}")
