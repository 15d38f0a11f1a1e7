"""Shows what training cost elsewhere: agents and their base on tasks of lm-eval, as tables and in a sentence."""

from collections.abc import Sequence
from pathlib import Path

from eval.grid import Grid, grid_markdown
from eval.table import NO_SPREAD
from llm_sra.evaluation.results import labels
from llm_sra.evaluation.single.results import Single, SingleRecord
from llm_sra.files import write_whole, writing
from llm_sra.untrusted import as_markdown

TABLE = "single.md"
HEADER = ("task and metric", "documents", "base", "agent", "difference, 95 % interval")


def single_grids(single: Single) -> list[Grid]:
    """A table for each agent; of a group of tasks that has a number, only that one."""
    names = agents(single)
    last = len(names) - 1
    return [
        Grid(
            f"Alone on tasks of lm-eval: {name}",
            HEADER,
            (tuple(row(record) for record in headed(single.records) if (record.run, record.policy) == agent),),
            notes(single) if number == last else (),
        )
        for number, (agent, name) in enumerate(names.items())
    ]


def agents(single: Single) -> dict[tuple[str, str], str]:
    """Short names by run and policy."""
    names = labels(list(dict.fromkeys(record.run for record in single.records)))
    return {(record.run, record.policy): f"{names[record.run]} {record.policy}" for record in single.records}


def row(record: SingleRecord) -> tuple[str, ...]:
    """The cells of a record, as in `HEADER`."""
    return (
        metric_name(record),
        str(record.n),
        _with_error(record.before, record.before_stderr),
        _with_error(record.after, record.after_stderr),
        f"{record.difference:+.3f} {between(record)}".rstrip(),
    )


def between(record: SingleRecord) -> str:
    """The difference's interval; empty if there is none."""
    if record.interval is None:
        return ""
    return NO_SPREAD if record.difference_stderr == 0 else "[{:+.3f}, {:+.3f}]".format(*record.interval)


def metric_name(record: SingleRecord) -> str:
    """Task and metric, with what was made of the replies first, and an arrow down where less is better."""
    name = f"{record.task} {record.metric}" + (record.filter != "none") * f" ({record.filter})"
    return f"{name} ↓" if record.higher_is_better is False else name


def headed(records: Sequence[SingleRecord]) -> tuple[SingleRecord, ...]:
    """Records that no group counts."""
    return tuple(record for record in records if not record.group)


def notes(single: Single) -> tuple[str, ...]:
    """How it was measured."""
    told = {"num_fewshot": "examples in a prompt", "limit": "limit of documents"}
    how = [f"{words} {single.settings[key]:g}" for key, words in told.items() if single.settings.get(key) is not None]
    how += ["asked in the chat template"] if single.settings.get("apply_chat_template") else []
    said = f"lm-eval {single.settings.get('lm_eval', 'of unknown version')}{''.join(f', {part}' for part in how)}."
    return (
        f"{said} base: the model before training. ±: lm-eval's standard error.",
        "95 % interval: difference by document ± 1.96 standard errors; none where a number is no mean over documents.",
    )


def sentence(single: Single) -> str:
    """What got worse, and what a table without that does not show."""
    found = [record for record in headed(single.records) if record.verdict]
    worse = [record for record in found if record.verdict == "worse"]
    names = agents(single)
    if not found:
        return "No number here has an interval: the tables do not say whether an agent got worse."
    if not worse:
        return (
            f"Of {len(found)} differences from the base, none is worse than chance explains; the intervals say how "
            "much worse an agent can still be."
        )
    parts = [f"{names[one.run, one.policy]} on {metric_name(one)} ({one.difference:+.3f})" for one in worse]
    return (
        f"Of {len(found)} differences from the base, {len(worse)} worse than its interval explains: "
        f"{', '.join(parts)}. By chance alone it would be one in 40."
    )


def write_single_table(single: Single, folder: Path) -> Path:
    """Write `single.md`.

    Raises:
        WriteError: If the disk does not take it.
    """
    path = folder / TABLE
    with writing("the table of lm-eval's numbers", path):
        parts = [*map(grid_markdown, single_grids(single)), as_markdown(sentence(single))]
        write_whole(path, "\n\n".join(parts) + "\n")
    return path


def _with_error(value: float, stderr: float | None) -> str:
    return f"{value:.3f}" if stderr is None else f"{value:.3f} ± {stderr:.3f}"
