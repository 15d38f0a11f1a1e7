"""Runs lm-eval: one model on what was asked by one name."""

import contextlib
import io
import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_sra.evaluation.single.results import Document, Number, is_mean
from llm_sra.evaluation.single.tasks import Asked, failed, seed_examples

RANDOM, OTHER = 0, 1234  # seeds of lm-eval's own command: of Python, and of numpy and torch
SHORT = 16  # characters of lm-eval's hashes that are kept


def language_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> Any:
    """A loaded model as lm-eval takes it, on the device where it is."""
    from lm_eval.models.huggingface import HFLM

    with _no_warnings():  # that arguments for loading are ignored
        return HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)


def measure(
    model: Any, asked: Asked, *, limit: float | None, apply_chat_template: bool, confirmed: bool
) -> list[Number]:
    """What lm-eval says of a model.

    Args:
        model: Of `language_model`.
        asked: What to ask it.
        limit: See `load_tasks`.
        apply_chat_template: Whether prompts are turns of a chat.
        confirmed: Whether what the model writes may run.

    Raises:
        SingleError: If lm-eval or the task's code raises.
    """
    from lm_eval import evaluate

    random.seed(RANDOM)
    np.random.seed(OTHER)  # lm-eval's tasks draw from it
    torch.manual_seed(OTHER)
    seed_examples(asked.loaded)
    try:
        found = evaluate(
            lm=model,
            task_dict=asked.loaded,
            limit=limit,
            apply_chat_template=apply_chat_template,
            fewshot_as_multiturn=apply_chat_template,
            confirm_run_unsafe_code=confirmed,
        )
    except Exception as error:  # of the task's own code, or of lm-eval
        raise failed(asked.name, "failed", error) from error
    return list(numbers(found))


def numbers(found: Mapping[str, Any]) -> Iterator[Number]:
    """The numbers in lm-eval's results: of tasks, then of groups that have one of their own.

    Args:
        found: What `lm_eval.evaluate` returns.
    """
    below, samples = found.get("group_subtasks", {}), found["samples"]
    counted = {name: values for name, item in found.get("groups", {}).items() if (values := list(_values(item)))}
    group_of = {task: group for group in counted for task in _tasks_of(group, below)}
    alone = {name: list(_values(item)) for name, item in found["results"].items() if name in samples}
    for name, values in {**alone, **counted}.items():
        tasks = _tasks_of(name, below) if name in counted else [name]
        n = sum(int(found["n-samples"][task]["effective"]) for task in tasks)
        for metric, filtered, value, stderr in values:
            scores = [document for task in tasks for document in _documents(samples[task], metric, filtered)]
            mean = len(scores) == n and is_mean(value, [score for *_, score in scores])
            yield Number(
                task=name,
                group="" if name in counted else group_of.get(name, ""),
                metric=metric,
                filter=filtered,
                higher_is_better=found["higher_is_better"].get(name, {}).get(metric),
                n=n,
                value=value,
                stderr=stderr,
                documents=tuple(scores) if mean else (),
            )


@contextlib.contextmanager
def quiet(disable: bool | None) -> Iterator[None]:
    """No bars of lm-eval and datasets inside the block, unless in a terminal; warnings are shown.

    Args:
        disable: Whether to show none; None: where there is no terminal.
    """
    if not (disable or (disable is None and not sys.stderr.isatty())):
        yield
        return
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)  # without one, warnings go where bars go
    handlers = [] if root.handlers else [handler]
    handler.setLevel(logging.WARNING)
    for each in handlers:
        root.addHandler(each)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for each in handlers:
            root.removeHandler(each)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _values(item: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    """Metric, filter, value and standard error of lm-eval's `acc,none`, `acc_stderr,none`."""
    for key, value in item.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not _is_number(value):
            continue
        stderr = item.get(f"{metric}_stderr,{filtered}", "N/A")  # as lm-eval says that there is none
        yield metric, filtered, float(value), float(stderr) if _is_number(stderr) else None


def _documents(samples: Sequence[Mapping[str, Any]], metric: str, filtered: str) -> list[Document]:
    return [
        (str(sample["doc_hash"])[:SHORT], str(sample["prompt_hash"])[:SHORT], float(sample[metric]))
        for sample in samples
        if sample["filter"] == filtered and _is_number(sample.get(metric))
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | np.bool_) and isfinite(value)


def _tasks_of(group: str, below: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks in a group and in its groups."""
    return [task for name in below.get(group, ()) for task in (_tasks_of(name, below) if name in below else [name])]
