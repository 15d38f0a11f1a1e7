"""Options that a shipped task has for models that were not made for it: rules in words, and a reader that is lenient.

`explain` and `strict` of a task default to what its embedded models, and runs of earlier versions, were trained with. A
new training with another model gets them here, so that they stand in the run's configuration: evaluation, `play` and
the card take them from there. Options that are given stay as they are.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from llm_sra.registry import find_model, is_shipped, model_name, task_class

TOLD: Mapping[str, bool] = {"explain": True, "strict": False}


def options_for(
    task: str, options: Mapping[str, Any] | None, models: Sequence[str], before: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The options of a task in a training.

    Args:
        task: Its name. Only tasks that ship have options that mean this.
        options: Those that are given.
        models: The base models' names or folders. Models that ship with the task were made for it.
        before: The arguments of the run that is resumed; what it was begun without, it goes on without.

    Raises:
        UnknownNameError: If there is no such task.
    """
    given = None if options is None else dict(options)
    if not is_shipped(task) or all(is_made_for(model, task) for model in models):
        return given
    known = inspect.signature(task_class(task)).parameters
    if "explain" not in known:
        return given
    begun = TOLD if before is None else before.get("task_args") or {}
    told = {name: begun[name] for name in TOLD if name in known and name in begun}
    return {**told, **(given or {})} if told else given


def is_made_for(model: str, task: str) -> bool:
    """Whether a model ships with a task, which it was taught."""
    name = task.split(":")[0].removeprefix("tasks.").split(".")[0]
    return model_name(find_model(model)).startswith(f"{name}/")
