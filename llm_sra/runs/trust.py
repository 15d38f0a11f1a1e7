"""What of a run may be executed: the file of its task, and the Python that comes with its model.

A run folder is data. Only the caller, on the present command line, can allow that something in it is run; the folder
itself cannot. Your own task file needs no permission: the training copies it into the run and signs its hash with a key
that only this user has.
"""

import hashlib
import hmac
import importlib.util
import inspect
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from llm_sra.registry import find_model, is_shipped, load_task
from llm_sra.runs import Run, RunError
from llm_sra.task import Task
from llm_sra.untrusted import one_line

COPY = "task"  # folder of a run that holds the copy of its task's file
_KEY_BYTES = 32
logger = logging.getLogger(__name__)


def keep_task(folder: Path, task: Task, spec: str) -> dict[str, str]:
    """Copy the file of a task that does not ship into the run folder.

    Args:
        folder: Folder of the run.
        task: As it was loaded.
        spec: That it was loaded by: `path/to/file.py:Class` or `module:Class`; the name of a shipped task has no file.

    Returns:
        What `config.yaml` keeps as `task_file`: the file's hash, and a mark that no other user can make.
    """
    if is_shipped(spec):
        return {}
    place = spec.rpartition(":")[0]
    file = Path(place if place.endswith(".py") else inspect.getsourcefile(type(task)) or "")
    if not file.is_file():
        return {}
    copy, digest = folder / COPY / file.name, _hash(file)
    if copy.is_file() and _hash(copy) != digest:
        logger.warning(
            "the task file %s has changed since %s was begun; the run goes on with it as it is now", file, folder
        )
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(file, copy)
    return {"name": file.name, "sha256": digest, "mark": _mark(spec, digest, make_key=True)}


def task_of_run(run: Run, options: Mapping[str, Any] | None, trust_task: bool = False) -> Task:
    """Make a run's task.

    A file is looked for where it lay in training, then in the run folder, and taken if it has the hash of then.

    Args:
        run: Whose task.
        options: Options of the task.
        trust_task: Whether a task that is not shipped may be run though this user did not train the run.

    Raises:
        RunError: If it may not be run, or is not as it was in training.
        ValueError: If there is no such task, or the options do not fit.
    """
    spec = str(run.config["task"])
    if is_shipped(spec):
        return load_task(spec, options)
    wanted = str(run.task_file.get("sha256", ""))
    if not (trust_task or _is_own(run, spec)):
        raise RunError(
            f"{run.path} wants to run a task that does not ship with llm-sra, {one_line(spec)}, and was not trained by "
            f"you on this machine: read that file{_copy_hint(run)}, then add --trust_task if it may run"
        )
    place, _, name = spec.rpartition(":")
    if not place.endswith(".py"):
        _warn_of_change(run, place, wanted)
        return load_task(spec, options)
    return load_task(f"{_file_of(run, Path(place), wanted, trust_task)}:{name}", options)


def same_task(one: Run, other: Run) -> bool:
    """Whether two runs were trained on one task: of a file the class and the content count, not where it lay."""
    specs = [str(run.config["task"]) for run in (one, other)]
    hashes = [run.task_file.get("sha256") for run in (one, other)]
    if specs[0] == specs[1]:
        if hashes[0] != hashes[1]:
            logger.warning(
                "%s and %s were trained with different versions of %s", one.path, other.path, one_line(specs[0])
            )
        return True
    classes = [spec.rpartition(":")[2] for spec in specs]
    return bool(hashes[0]) and hashes[0] == hashes[1] and classes[0] == classes[1]


def may_run_code(run: Run, trust_remote_code: bool = False) -> bool:
    """Whether Python that comes with a run's models may run; False where there is none to run.

    Args:
        run: Whose models.
        trust_remote_code: Whether the caller allows it. The run's own configuration cannot allow it.

    Raises:
        RunError: If a model needs it and the caller does not allow it.
    """
    if trust_remote_code:
        return True
    for model in run.models_of_seats:
        code, is_known = _code_of(find_model(model), run.config.get("model_revision"))
        if code and (run.config.get("trust_remote_code") or not is_known):
            raise RunError(
                f"{run.path} wants to run Python that comes with its model {one_line(model)} ({one_line(code)}): read "
                "it, then add --trust_remote_code if it may run"
            )
    return False


def _code_of(model: str, revision: str | None) -> tuple[str, bool]:
    """The classes of its own that a model names, and whether transformers has one for it; nothing is run."""
    try:
        config, _ = PretrainedConfig.get_config_dict(model, revision=revision)
        tokenizer = get_tokenizer_config(model, revision=revision)
    except (OSError, ValueError):
        return "", True  # loading it says what is wrong
    named = [each.get("auto_map") for each in (config, tokenizer)]
    classes = {str(one) for each in named if isinstance(each, Mapping) for one in _flat(each.values()) if one}
    return ", ".join(sorted(classes)), config.get("model_type") in CONFIG_MAPPING


def _flat(values: Any) -> list[Any]:
    return [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]


def _file_of(run: Run, original: Path, wanted: str, trust_task: bool) -> Path:
    """The task's file, as it was in training; as it is now if no such file is left and the caller trusts it."""
    copy = run.path / COPY / original.name
    there = [file for file in (original, copy) if file.is_file()]
    for file in there:
        if _hash(file) == wanted:
            if file is copy and original in there:
                logger.warning(
                    "the task file %s has changed since %s was trained: the run's copy of it is played, %s",
                    one_line(original), run.path, copy,
                )  # fmt: skip
            return file
    if there and trust_task:
        if not wanted:  # a run of an earlier version
            return there[0]
        logger.warning("%s is not the task file that %s was trained with, which is lost", one_line(there[0]), run.path)
        return there[0]
    raise RunError(
        f"{run.path}: the file of its task, {one_line(original)}, {'has changed' if there else 'is not there'}, and "
        "the run has no copy with the hash that its config.yaml keeps: put the file back"
        + (", or add --trust_task to run it as it is now" if there else "")
    )


def _warn_of_change(run: Run, module: str, wanted: str) -> None:
    """Say so if a task's module is not as it was in training."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return  # importing it says what is wrong
    if found and found.origin and Path(found.origin).is_file() and _hash(Path(found.origin)) != wanted:
        logger.warning("the task's module %s has changed since %s was trained", one_line(module), run.path)


def _copy_hint(run: Run) -> str:
    copies = sorted((run.path / COPY).glob("*.py"))
    return f" (its copy is {one_line(copies[0])})" if copies else ""


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_own(run: Run, spec: str) -> bool:
    """Whether this user trained the run: its mark is made with this user's key."""
    mark, made = str(run.task_file.get("mark", "")), _mark(spec, str(run.task_file.get("sha256", "")))
    return bool(made) and hmac.compare_digest(mark.encode(), made.encode())


def _mark(spec: str, digest: str, make_key: bool = False) -> str:
    """A signature of a task's name and content; empty if this user has no key."""
    key = _key(make_key)
    return hmac.new(key, json.dumps([spec, digest]).encode(), "sha256").hexdigest() if key else ""


def _key(make: bool) -> bytes | None:
    """This user's key, a file that nobody else can read; None if there is none and none can be made."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "llm-sra"
    path = folder / "key"
    try:
        if make and not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder) as made:  # others cannot read it from the start
                made.write(secrets.token_bytes(_KEY_BYTES))
                made.flush()
                with suppress(FileExistsError):  # another training was faster
                    os.link(made.name, path)
        found = path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        key = path.read_bytes()
    except (OSError, RuntimeError) as error:
        if make:
            logger.warning("no mark of your own for the run's task file: %s; evaluate it with --trust_task", error)
        return None
    return key if len(key) == _KEY_BYTES else None
