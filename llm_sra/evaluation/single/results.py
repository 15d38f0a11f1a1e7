"""Compares an agent with its base model on tasks of lm-eval, and keeps it: `single.json`, written and read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isclose, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from llm_sra.evaluation.results import LARGEST, NORMAL
from llm_sra.files import to_json, write_whole, writing
from llm_sra.untrusted import checked, parse_json, read_text

SINGLE = "single.json"
Document = tuple[str, str, float]  # hashes of a document and of its prompt, and what it scored


class SingleError(ValueError):
    """lm-eval cannot be run as asked, or what it left cannot be read; says what to do."""


@dataclass(frozen=True)
class Number:
    """What lm-eval says of one model by one metric of one task.

    Attributes:
        task: Of lm-eval, or a group of its tasks.
        group: The group whose own number counts this task; empty if there is none.
        metric: Such as `acc`.
        filter: What was made of the replies first; `none` for nothing.
        higher_is_better: Whether it is; None if the task does not say.
        n: Number of documents.
        value: lm-eval's.
        stderr: lm-eval's standard error; None if it has none.
        documents: What each document scored; empty where lm-eval's number is not their mean.
    """

    task: str
    group: str
    metric: str
    filter: str
    higher_is_better: bool | None
    n: int
    value: float
    stderr: float | None
    documents: tuple[Document, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What is compared."""
        return self.task, self.metric, self.filter

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "Number":
        """From an object of JSON.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        _check(item, ("value",), ("stderr",))
        documents = tuple(
            (checked("a document", one, str), checked("a prompt", prompt, str), checked("a score", score, float))
            for one, prompt, score in item["documents"]
        )
        return cls(**{**item, "documents": documents})


@dataclass(frozen=True)
class SingleRecord:
    """One number of lm-eval for an agent, and for its base model.

    Attributes:
        run: The agent's run.
        policy: Its adapter.
        seats: In which the run seats it.
        base: The base model, as the run names it.
        task: Of lm-eval, or a group of its tasks.
        group: The group whose own number counts this task; empty if there is none.
        metric: Such as `acc`.
        filter: What was made of the replies first; `none` for nothing.
        higher_is_better: Whether it is; None if the task does not say.
        n: Number of documents.
        before: Of the base.
        before_stderr: lm-eval's standard error; None if it has none.
        after: Of the agent.
        after_stderr: Likewise.
        difference: After - before.
        difference_stderr: Standard error of the mean of the documents' differences; None where lm-eval's number is not
            a mean over documents, or there is one document.
    """

    run: str
    policy: str
    seats: tuple[str, ...]
    base: str
    task: str
    group: str
    metric: str
    filter: str
    higher_is_better: bool | None
    n: int
    before: float
    before_stderr: float | None
    after: float
    after_stderr: float | None
    difference: float
    difference_stderr: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the difference, by the normal distribution; None without a standard error."""
        if self.difference_stderr is None:
            return None
        reach = NORMAL * self.difference_stderr
        return self.difference - reach, self.difference + reach

    @property
    def verdict(self) -> str:
        """`worse` or `better` if all of the interval is on that side of 0, `open` if not, empty if nothing says."""
        if self.interval is None or self.higher_is_better is None:
            return ""
        low, high = self.interval
        if low > 0 or high < 0:
            return "better" if (low > 0) == self.higher_is_better else "worse"
        return "open"

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "SingleRecord":
        """From an object of `single.json`.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        _check(item, ("before", "after", "difference"), ("before_stderr", "after_stderr", "difference_stderr"))
        for name in ("run", "policy", "base"):
            checked(name, item[name], str)
        return cls(**{**item, "seats": tuple(checked("seats", seat, str) for seat in item["seats"])})


@dataclass(frozen=True)
class Single:
    """What `single.json` holds.

    Attributes:
        records: In the order of runs, policies and tasks.
        settings: lm-eval's version, and what was asked of it.
    """

    records: tuple[SingleRecord, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def of(self, runs: Sequence[str]) -> "Single":
        """The part of some runs."""
        return Single(tuple(one for one in self.records if one.run in runs), self.settings)


def compared(run: str, policy: str, seats: Sequence[str], base: str, models: Sequence[Any]) -> Iterator[SingleRecord]:
    """Hold an agent's numbers against its base's.

    Args:
        run: Name of the run.
        policy: Name of the adapter.
        seats: Where it sits.
        base: The base model's name.
        models: The base's `Number`s, and the agent's, of the same tasks.
    """
    before, after = ({number.key: number for number in numbers} for numbers in models)
    for key, old in before.items():
        if (new := after.get(key)) is None:
            continue  # a metric that has no value for this model
        yield SingleRecord(
            run, policy, tuple(seats), base, old.task, old.group, old.metric, old.filter, old.higher_is_better, old.n,
            old.value, old.stderr, new.value, new.stderr, new.value - old.value, paired_stderr(old, new),
        )  # fmt: skip


def paired_stderr(before: Number, after: Number) -> float | None:
    """Standard error of the mean difference by document: sd(after - before) / sqrt(n).

    None with fewer than two documents, or if the two did not answer the same prompts.
    """
    asked = [[document[:2] for document in number.documents] for number in (before, after)]
    if len(asked[0]) < 2 or asked[0] != asked[1]:
        return None
    differences = [new[2] - old[2] for old, new in zip(before.documents, after.documents, strict=True)]
    return stdev(differences) / sqrt(len(differences))


def is_mean(value: float, scores: Sequence[float]) -> bool:
    """Whether a number is the mean of what documents scored."""
    return bool(scores) and isclose(value, fmean(scores), rel_tol=1e-9, abs_tol=1e-9)


def write_single(out: Path, single: Single) -> Path:
    """Write `single.json`.

    Raises:
        ValueError: If a number is not finite; says where.
        WriteError: If the disk does not take it.
    """
    text = to_json(
        {"settings": dict(single.settings), "records": [asdict(record) for record in single.records]}, indent=1
    )
    with writing("what lm-eval measured", out / SINGLE):
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / SINGLE, text + "\n")
    return out / SINGLE


def read_single(folder: str | Path) -> Single | None:
    """Read `single.json` of an evaluation's folder; None if there is none.

    Raises:
        SingleError: If it is not what an evaluation writes.
    """
    path = Path(folder) / SINGLE
    if not path.is_file():
        return None
    try:
        loaded = parse_json(read_text(path, LARGEST))
        settings = checked("settings", loaded["settings"], Mapping)
        return Single(tuple(SingleRecord.read(item) for item in loaded["records"]), settings)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SingleError(
            f"{path} is not what `llm-sra eval --single` writes: {type(error).__name__} {error}"
        ) from error


def _check(item: Mapping[str, Any], numbers: Sequence[str], may_lack: Sequence[str]) -> None:
    for name in ("task", "group", "metric", "filter"):
        checked(name, item[name], str)
    checked("n", item["n"], int)
    for name in (*numbers, *(name for name in may_lack if item[name] is not None)):
        checked(name, item[name], float)
    if not (item["higher_is_better"] is None or isinstance(item["higher_is_better"], bool)):
        raise ValueError(f"higher_is_better is {repr(item['higher_is_better'])[:100]}: expected true, false or null")
