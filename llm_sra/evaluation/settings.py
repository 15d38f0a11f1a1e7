"""What the runs of an evaluation are played in: one task with one set of options, and what all its episodes depend on.

It does not know who plays with whom.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_sra.partners.identity import source_digest
from llm_sra.registry import load_task
from llm_sra.runs import Run, RunError
from llm_sra.task import Task


def options_of(run: Run, task_args: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Options of a run's task in an evaluation.

    Args:
        run: Whose own options are taken.
        task_args: Options that take the place of those of the same name.
    """
    own: Mapping[str, Any] | None = run.config["task_args"]
    return {**(own or {}), **task_args} if task_args else own


def task_of(runs: Sequence[Run], task_args: Mapping[str, Any] | None = None) -> Task:
    """The task that several runs play.

    Args:
        runs: Which compare if their task, their options as they are played and their token limit are the same.
        task_args: As in `options_of`.

    Raises:
        RunError: If there is no run, they do not compare, two have the same name, or the options change the seats.
        ValueError: If the options do not fit.
    """
    if not runs:
        raise RunError("no run to evaluate: name at least one")
    first, options = runs[0], options_of(runs[0], task_args)
    for run in runs[1:]:
        compared = {key: (first.config[key], run.config[key]) for key in ("task", "max_completion_length")}
        compared["task_args"] = (options, options_of(run, task_args))
        for key, (one, other) in compared.items():
            if one != other:
                raise RunError(f"{first.path} and {run.path} do not compare: their {key} is {one!r} and {other!r}")
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(f"runs are told apart by their last two folders, and these are not: {', '.join(twice)}")
    task = load_task(str(first.config["task"]), options)
    for run in runs:
        if set(run.heroes) != set(task.seats):
            raise RunError(
                f"{run.path} has agents for the seats {', '.join(run.heroes)}, but with {options!r} the task has "
                f"{', '.join(task.seats)}: evaluate with task_args that leave the seats as they are"
            )
    return task


def setting_of(task: Task, run: Run, task_args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What all episodes of a task depend on, apart from who plays.

    Args:
        task: Of `task_of`.
        run: One of its runs.
        task_args: As in `options_of`.
    """
    named = {"class": type(task).__qualname__, "source": source_digest(type(task)), "args": options_of(run, task_args)}
    return {"task": named, "max_reply_tokens": run.config["max_completion_length"]}
