"""What lm-eval measured, as text: the cells, notes and the sentence that terminal, report and model card share."""

from llm_sra.evaluation.results import labels
from llm_sra.evaluation.single.results import Single, SingleRecord

TITLE = "Alone on other tasks"
HEADER = ("task and metric", "documents", "base", "agent", "difference [95 %]")


def agents(single: Single) -> dict[tuple[str, str], str]:
    """Short names by run and policy."""
    names = labels(list(dict.fromkeys(record.run for record in single.records)))
    return {(record.run, record.policy): f"{names[record.run]} {record.policy}" for record in single.records}


def rows(single: Single, run: str, policy: str) -> tuple[tuple[str, ...], ...]:
    """The cells of an agent's records, as in `HEADER`; of a group of tasks that has a number, only that one."""
    return tuple(_row(one) for one in single.records if (one.run, one.policy) == (run, policy) and not one.group)


def metric_name(record: SingleRecord) -> str:
    """Task and metric, with what was made of the replies first, and an arrow down where less is better."""
    name = f"{record.task} {record.metric}" + (record.filter != "none") * f" ({record.filter})"
    return f"{name} ↓" if record.higher_is_better is False else name


def notes(single: Single) -> tuple[str, ...]:
    """How it was measured."""
    told = {"num_fewshot": "examples in a prompt:", "limit": "limit of documents:"}
    how = [f"{words} {single.settings[key]}" for key, words in told.items() if single.settings.get(key) is not None]
    how += ["asked in the chat template"] if single.settings.get("apply_chat_template") else []
    measured = ", ".join([f"lm-eval {single.settings.get('lm_eval', 'of unknown version')}", *how])
    return (
        f"Measured with {measured}. Base: the model before training. ±: lm-eval's standard error.",
        "In brackets: difference by document ± 1.96 standard errors; none where a number is no mean over documents.",
    )


def sentence(single: Single) -> str:
    """What got worse, and what numbers without that do not show."""
    found = [record for record in single.records if record.verdict and not record.group]
    worse = [record for record in found if record.verdict == "worse"]
    names = agents(single)
    if not found:
        return "No number here has an interval: it cannot be said whether an agent got worse."
    if not worse:
        return (
            f"Of {len(found)} differences from the base, none has its whole interval on the worse side; the intervals "
            "say how much worse an agent can still be."
        )
    parts = [f"{names[one.run, one.policy]} on {metric_name(one)} ({one.difference:+.3f})" for one in worse]
    return (
        f"Of {len(found)} differences from the base, {len(worse)} with the whole interval on the worse side: "
        f"{', '.join(parts)}. By chance alone it would be one in 40."
    )


def _row(record: SingleRecord) -> tuple[str, ...]:
    between = ""
    if record.interval is not None:
        low, high = record.interval
        between = f" [{low:+.3f}, {high:+.3f}]" if high > low else " (no spread)"
    return (
        metric_name(record),
        str(record.n),
        _with_error(record.before, record.before_stderr),
        _with_error(record.after, record.after_stderr),
        f"{record.difference:+.3f}{between}",
    )


def _with_error(value: float, stderr: float | None) -> str:
    return f"{value:.3f}" if stderr is None else f"{value:.3f} ± {stderr:.3f}"
