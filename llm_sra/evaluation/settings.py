"""What all episodes of an evaluation have in common: one task with one set of options, engines, limits and a seed.

Who plays with whom is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_sra.engines import Engine
from llm_sra.evaluation.options import CHUNK
from llm_sra.partners.identity import source_digest
from llm_sra.runs import Run, RunError
from llm_sra.runs.trust import same_task, task_of_run
from llm_sra.task import Problem, Task


@dataclass(frozen=True)
class Setting:
    """What every episode of an evaluation is played with.

    Attributes:
        task: The rules.
        engines: By name.
        problems: Which everyone plays, in this order.
        split: Split of the problems.
        seed: Seed of the problems and of every reply's chance.
        max_reply_tokens: Token limit of a reply; the task's own if None.
        task_args: The options that the task was made with.
        chunk: Most episodes at a time.
        disable_tqdm: Whether to show no progress; None: a bar in a terminal, elsewhere a line a minute.
    """

    task: Task
    engines: Mapping[str, Engine]
    problems: Sequence[Problem]
    split: str
    seed: int
    max_reply_tokens: int | None = None
    task_args: Mapping[str, Any] | None = None
    chunk: int = CHUNK
    disable_tqdm: bool | None = None

    def facts(self) -> dict[str, Any]:
        """All that an episode depends on beside its problem and who plays: what its key is made of."""
        cls = type(self.task)
        task = {"class": cls.__qualname__, "source": source_digest(cls), "args": self.task_args}
        return {"task": task, "max_reply_tokens": self.max_reply_tokens, "split": self.split, "seed": self.seed}


def options_of(run: Run, task_args: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Options of a run's task in an evaluation.

    Args:
        run: Whose own options are taken.
        task_args: Options that replace those of the same name.
    """
    own: Mapping[str, Any] | None = run.config["task_args"]
    return {**(own or {}), **task_args} if task_args else own


def task_of(runs: Sequence[Run], task_args: Mapping[str, Any] | None = None, trust_task: bool = False) -> Task:
    """The task that several runs play.

    Args:
        runs: They can be compared if their task, their options in this evaluation and their token limit are equal.
        task_args: As in `options_of`.
        trust_task: See `llm_sra.runs.trust.task_of_run`.

    Raises:
        RunError: If there is no run, they cannot be compared, two have the same name, or the options change the seats.
        ValueError: If the options do not fit.
    """
    if not runs:
        raise RunError("no run to evaluate: name at least one")
    first, options = runs[0], options_of(runs[0], task_args)
    for run in runs[1:]:
        compared = {key: (first.config[key], run.config[key]) for key in ("max_completion_length",)}
        if not same_task(first, run):
            compared["task"] = (first.config["task"], run.config["task"])
        compared["task_args"] = (options, options_of(run, task_args))
        for key, (one, other) in compared.items():
            if one != other:
                raise RunError(f"{first.path} and {run.path} cannot be compared: their {key} is {one!r} and {other!r}")
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(
            f"two runs have the same name, which is that of a run's last two folders: {', '.join(twice)}. Name each "
            "run once, or move one of them"
        )
    task = task_of_run(first, options, trust_task)
    for run in runs:
        if set(run.heroes) != set(task.seats):
            raise RunError(
                f"{run.path} has agents for the seats {', '.join(run.heroes)}, but with {options!r} the task has "
                f"{', '.join(task.seats)}: evaluate with task_args that leave the seats as they are"
            )
    return task
