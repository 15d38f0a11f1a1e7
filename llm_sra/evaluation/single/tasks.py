"""Finds and loads tasks of lm-eval; says in one line why one cannot be used, or what it would execute.

A folder of tasks may come from a stranger: its YAML is read as data first. Python that it names, and metrics that are
scripts, run only where the user said so; its templates are rendered in jinja's sandbox unless that was said.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from llm_sra.errors import did_you_mean
from llm_sra.evaluation.single.results import SingleError
from llm_sra.untrusted import one_line

CONFIRM = "--confirm_run_unsafe_code"
SEED = 1234  # lm-eval's own, of examples in prompts
WHERE_FROM = ("dataset_kwargs", "metadata")  # of a task's settings: folders of this machine; what they hold counts


@dataclass(frozen=True)
class Asked:
    """What was asked for by one name.

    Attributes:
        name: Of a task, a group or a tag; or a YAML file.
        loaded: lm-eval's tasks and groups.
        digest: A hash of their settings, prompts and targets.
    """

    name: str
    loaded: Any
    digest: str


class _Python(str):
    """What stood behind `!function`."""


class _Reader(yaml.SafeLoader):
    """Reads a task's YAML; nothing that it names is imported."""


_Reader.add_constructor("!function", lambda loader, node: _Python(getattr(node, "value", "")))


def require_lm_eval() -> None:
    """See that lm-eval is installed.

    Raises:
        SingleError: If it is not; says what to install.
    """
    if find_spec("lm_eval") is None:
        raise SingleError("--single needs lm-eval, the extra lm-eval: pip install 'lm-eval>=0.4.13,<0.5'")


def load_tasks(
    names: Sequence[str],
    include_path: Path | None = None,
    *,
    num_fewshot: int | None = None,
    limit: float | None = None,
    confirmed: bool = False,
) -> list[Asked]:
    """Load tasks with their documents.

    Args:
        names: Of tasks, groups or tags, or patterns (`arc_*`); several may be joined by commas; or YAML files.
        include_path: Folder of further tasks.
        num_fewshot: Solved examples in each prompt; None: as the task says.
        limit: The first so many documents of each task, or a share of them below 1; None: all.
        confirmed: Whether tasks may execute what a model wrote, and Python that does not ship with lm-eval.

    Raises:
        SingleError: If lm-eval is not installed, a name does not exist, a task's documents are not there, or it would
            execute what was not allowed.
    """
    require_lm_eval()
    wanted = [part for name in names for part in ([name] if _is_file(name) else name.split(",")) if part]
    if not wanted:
        raise SingleError("--single needs the name of a task, as lm-eval has it")
    if include_path is not None and not any(include_path.rglob("*.yaml")):
        raise SingleError(f"--include_path {include_path} holds no task: expected a folder with YAML files of lm-eval")
    if not confirmed:
        _refuse_python([*([include_path] if include_path else []), *(Path(name) for name in wanted if _is_file(name))])
    manager, found = _find(wanted, include_path)
    own = _python_files(include_path) if include_path and confirmed else ""
    made = []
    for name in found:
        if not confirmed and _says_unsafe(manager, name):
            raise _unsafe(name)
        try:
            loaded = manager.load([name])
            digests = [_prepare(task, num_fewshot, limit) for task in loaded["tasks"].values()]
        except Exception as error:  # of the task's own code, its template, or of whoever holds its documents
            raise failed(name, "cannot be loaded", error) from error
        for task in loaded["tasks"].values():
            if getattr(task, "UNSAFE_CODE", False) and not confirmed:
                raise _unsafe(task.task_name)
        made.append(Asked(name, loaded, _hash([own, *digests])))
    return made


def failed(name: str, what: str, error: Exception) -> SingleError:
    """The error for a task of which lm-eval raised something."""
    reason = one_line(str(error).strip() or type(error).__name__)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    hint = ""
    if isinstance(error, OSError):  # what datasets and huggingface_hub raise for documents that are not there
        hint = ". HF_HUB_OFFLINE is set: fetch its documents once without it, or take" if offline else ". Take"
        hint += " a task whose documents are files here (--include_path)"
    if type(error).__name__ == "SecurityError":  # of jinja's sandbox
        hint = f". Its template reaches into Python: read it, then add {CONFIRM} if it may run on this machine"
    return SingleError(f"the task {name!r} {what}: {type(error).__name__}: {reason[:500]}{hint}")


def seed_examples(loaded: Any) -> None:
    """Make the next prompts of these tasks have the examples that the last ones had."""
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=SEED)


@contextmanager
def sandboxed() -> Iterator[None]:
    """Render lm-eval's templates in jinja's sandbox inside the block."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    before = utils.env
    inside = SandboxedEnvironment(
        loader=before.loader, undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline
    )
    inside.filters.update(before.filters)
    utils.env = inside
    try:
        yield
    finally:
        utils.env = before


def _find(wanted: Sequence[str], include_path: Path | None) -> tuple[Any, list[str]]:
    """lm-eval's index of tasks, and the names that the wanted ones stand for."""
    from lm_eval.tasks import TaskManager

    def names_in(manager: Any) -> dict[str, list[str]]:
        return {name: [name] if _is_file(name) else manager.match_tasks([name]) for name in wanted}

    if include_path is not None or all(map(_is_file, wanted)):
        # lm-eval's own index takes ten seconds; a group of the folder may name a task of it.
        manager = TaskManager(include_path=include_path and str(include_path), include_defaults=False)
        found = names_in(manager)
        if all(found.values()) and not manager.all_groups:
            return manager, _each_once(found)
    manager = TaskManager(include_path=include_path and str(include_path))
    found = names_in(manager)
    for name, there in found.items():
        if not there:
            near = did_you_mean(name, manager.all_tasks) or "."
            raise SingleError(
                f"lm-eval has no task {name!r}{near} `lm-eval ls tasks` lists its tasks; --include_path names a folder "
                "of others"
            )
    return manager, _each_once(found)


def _each_once(found: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in found.values() for name in names))


def _is_file(name: str) -> bool:
    return name.endswith(".yaml") and Path(name).is_file()


def _says_unsafe(manager: Any, name: str) -> bool:
    """Whether a task's YAML says that it executes what a model wrote: asked before its own Python is imported."""
    entry = manager.task_index.get(name)
    return bool(entry and (entry.cfg or {}).get("unsafe_code"))


def _unsafe(name: str) -> SingleError:
    return SingleError(
        f"the task {name!r} executes what the model writes: add {CONFIRM} if that may run on this machine, or leave "
        "the task out"
    )


def _prepare(task: Any, num_fewshot: int | None, limit: float | None) -> str:
    """Set a task up as lm-eval's command does; a hash of all that it asks and expects."""
    given = task.get_config("num_fewshot")
    if num_fewshot is not None and given != 0:  # a task that says 0 keeps it
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif given is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEED)
    size = None if limit is None else ceil(len(task.eval_docs) * limit) if limit < 1 else int(limit)
    task.build_all_requests(limit=size, rank=0, world_size=1)
    settings = {key: value for key, value in task.dump_config().items() if key not in WHERE_FROM}
    asked = [(one.doc_id, one.request_type, repr(one.args)) for one in task.instances]
    targets = [repr(task.doc_to_target(doc)) for _, doc in task.doc_iterator(limit=size, rank=0, world_size=1)]
    return _hash([repr(sorted(settings.items())), repr(asked), repr(targets), repr(task.VERSION)])


def _hash(parts: Sequence[str]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _python_files(folder: Path) -> str:
    """A hash of the Python below a folder, which tasks may use."""
    return _hash([path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*.py"))])


def _refuse_python(places: Sequence[Path]) -> None:
    """Raise SingleError if YAML of these folders and files names something that would be executed."""
    import lm_eval

    shipped = Path(lm_eval.__file__).resolve().parent
    waiting = [path for place in places for path in (sorted(place.rglob("*.yaml")) if place.is_dir() else [place])]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop(0).resolve()
        if path in seen or path.is_relative_to(shipped):
            continue
        seen.add(path)
        try:
            loaded = yaml.load(path.read_text(encoding="utf-8"), _Reader)  # a SafeLoader
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise SingleError(f"{path} is not a task of lm-eval: {one_line(error)[:300]}") from error
        for part in _parts(loaded, set()):
            if (code := _executed(part)) is not None:
                raise SingleError(
                    f"{path} would execute {code}: read it, then add {CONFIRM} if it may run on this machine"
                )
        if isinstance(loaded, dict) and (more := loaded.get("include")):
            names = more if isinstance(more, list) else [more]
            waiting += [path.parent / str(name) for name in names if (path.parent / str(name)).is_file()]


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """A value and all that is in it, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    yield value
    inside: Sequence[Any] = ()
    if isinstance(value, dict):
        inside = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set):
        inside = list(value)
    for part in inside:
        yield from _parts(part, seen)


def _executed(part: Any) -> str | None:
    """What a part of a task's YAML would execute; None if nothing."""
    if isinstance(part, _Python):
        return f"the Python {one_line(part)}"
    metrics = part.get("metric_list") if isinstance(part, dict) else None
    for metric in metrics if isinstance(metrics, list) else []:
        if isinstance(metric, dict) and not isinstance(metric.get("metric"), _Python) and (name := _script(metric)):
            return f"the metric {one_line(name)}, a script of the package evaluate"
    return None


def _script(metric: dict[Any, Any]) -> str | None:
    """Name of a metric that lm-eval does not have: the package evaluate then runs the script of that name."""
    import lm_eval.api.metrics  # noqa: F401  # fills the registry
    from lm_eval.api.registry import metric_registry

    name = str(metric.get("metric"))
    return name if metric.get("hf_evaluate") or name not in metric_registry else None
