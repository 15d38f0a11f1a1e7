"""The part of a model card that says what training cost elsewhere: tasks of lm-eval, before and after."""

from pathlib import Path

from huggingface_hub import EvalResult

from llm_sra.evaluation.results import RESULTS
from llm_sra.evaluation.single.results import SINGLE, Single, SingleError, read_single
from llm_sra.evaluation.single.shown import HEADER, TITLE, metric_name, notes, rows
from llm_sra.runs import Run, RunError
from llm_sra.untrusted import as_markdown


def find_single(run: Run, policy: str, folder: str | Path | None = None) -> Single | None:
    """Read what lm-eval says about a policy.

    Args:
        run: That trained it.
        policy: Name of the adapter.
        folder: That `llm-sra eval --out` wrote; None looks into the run's `report`.

    Returns:
        The policy's part; None if there is none.

    Raises:
        RunError: If the file is not one of an evaluation, or the named folder holds no evaluation of the run.
    """
    where = Path(folder or run.path / "report")
    try:
        single = read_single(where)
    except SingleError as error:
        raise RunError(str(error)) from error
    if single is None:
        return None
    of_run = single.of([run.name])
    if folder is not None and not of_run.records and not (where / RESULTS).is_file():
        held = ", ".join(sorted({record.run for record in single.records})) or "no run"
        raise RunError(f"{where / SINGLE} has no results of {run.name}, but of {held}: name its evaluation")
    own = tuple(record for record in of_run.records if record.policy == policy)
    return Single(own, single.settings) if own else None


def section(single: Single | None) -> str:
    """The card's section; empty if nothing was measured."""
    if single is None:
        return ""
    run, policy = single.records[0].run, single.records[0].policy
    lines = [HEADER, ("---",) * len(HEADER), *(map(as_markdown, row) for row in rows(single, run, policy))]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"## {TITLE}\n\n{table}\n\n{' '.join(map(as_markdown, notes(single)))}"


def eval_results(single: Single | None) -> list[EvalResult]:
    """The agent's numbers for the header's `model-index`."""
    records = single.records if single else ()
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=one.task,
            dataset_name=one.task,
            metric_type=one.metric,
            metric_name=f"{metric_name(one)}, alone",
            metric_value=round(one.after, 4),
            metric_args={
                "n": one.n,
                "stderr": None if one.after_stderr is None else round(one.after_stderr, 4),
                "base": round(one.before, 4),
                "difference_stderr": None if one.difference_stderr is None else round(one.difference_stderr, 4),
            },
        )
        for one in records
        if not one.group
    ]
