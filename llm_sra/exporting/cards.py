"""The model card of an exported policy: its task, an example, its results, how it is used and how it was trained.

huggingface_hub's `ModelCard` writes the header, so that the hub can read it. The numbers are those of an evaluation's
`results.json`; nothing is computed here, no weights are opened and nothing is sent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from llm_sra.evaluation.records import Record, Summary
from llm_sra.evaluation.results import RESULTS, ResultsError, read_summary
from llm_sra.evaluation.single.results import SINGLE
from llm_sra.exporting import single, usage
from llm_sra.exporting.exported import Exported, cell, prose
from llm_sra.runs import Run, RunError, read_environment
from llm_sra.untrusted import as_markdown

OBJECTIVE = (
    "arm", "algorithm", "sharing", "entropy_coef", "entropy_reduction", "loss_type", "scale_rewards",
    "advantage_level", "advantage_baseline",
)  # fmt: skip
TETHER = (
    "tau", "tau_schedule", "kl_direction", "adversary_entropy_coef", "adversary_learning_rate", "adversary_updates",
)  # fmt: skip
RISK = ("tau", "risk", "risk_alpha", "partners_per_step")
BUDGET = (
    "max_steps", "problems_per_step", "num_generations", "num_iterations", "learning_rate", "temperature",
    "max_completion_length", "seed",
)  # fmt: skip
SYMBOLS = {"tau": "tau (τ)", "entropy_coef": "entropy_coef (ε)", "risk_alpha": "risk_alpha (α)"}
HEAD = ("seat", "partner", "decoding", "solve rate, 95 % interval", "own return", "own effort", "problems")


def find_evaluation(run: Run, folder: str | Path | None = None) -> Summary | None:
    """Read what an evaluation says about a run.

    Args:
        run: Which.
        folder: That `llm-sra eval --out` wrote; None looks into the run's `report`.

    Returns:
        The run's part; None if no folder was named and the run has no evaluation of its own, or if the named one holds
        nothing but what lm-eval said (see `single`).

    Raises:
        RunError: If the named folder holds no evaluation of the run, or the file is not one of an evaluation.
    """
    where = Path(folder or run.path / "report")
    if not (where / RESULTS).is_file() and (folder is None or (where / SINGLE).is_file()):
        return None
    try:
        summary = read_summary(where)
    except ResultsError as error:
        raise RunError(str(error)) from error
    records = tuple(record for record in summary.records if record.run == run.name)
    headline = summary.settings.get("headline")
    if headline and any(headline not in record.metrics for record in records):
        raise RunError(f"{where / RESULTS} is not what `llm-sra eval` writes: a record has no {headline!r}")
    if records:
        return replace(summary, records=records)
    if folder is None:
        return None
    held = sorted({record.run for record in summary.records})
    raise RunError(
        f"{where / RESULTS} has no results of {run.name}, but of {', '.join(held) or 'no run'}: name its evaluation"
    )


def model_card(exported: Exported) -> ModelCard:
    """The card, with results in its header, too.

    Raises:
        ValueError: If huggingface_hub cannot read the header back.
    """
    kind = "merged" if exported.merged else "lora"
    results = [*_eval_results(exported), *single.eval_results(exported.single)]
    header = ModelCardData(
        base_model=exported.base_on_hub,
        library_name="transformers" if exported.merged else "peft",
        pipeline_tag="text-generation",
        tags=["llm-sra", "multi-agent", str(exported.run.config["arm"]), kind],
        model_name=exported.policy if results else None,
        eval_results=results or None,
        base_model_relation=("finetune" if exported.merged else "adapter") if exported.base_on_hub else None,
    )
    arm = exported.run.config["arm"]
    parts = [
        f"# {as_markdown(exported.policy)}, trained on {as_markdown(exported.task)} by {as_markdown(arm)}",
        "An agent for a task that it shares with a partner, fine-tuned with llm-sra, the library of SRPO (arXiv "
        "2602.21515).",
        f"## Task\n\n{_task(exported)}",
        _table(_about(exported)),
        exported.example.section() if exported.example else "",
        f"## Results\n\n{_results(exported)}",
        single.section(exported.single),
        usage.section(exported),
        f"## Training\n\n{_table(_settings(exported.run.config))}",
        _table(_versions(exported.run)),
        "## Licence\n\nNone is named here. Choose one that the base model's licence allows, and add it to the header "
        "as `license:`.",
    ]
    return ModelCard(f"---\n{header}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n")


def _task(exported: Exported) -> str:
    """The task in words."""
    if not exported.about:
        return f"The class `{cell(exported.task)}`, which has no description of its own."
    return "\n\n".join(map(prose, exported.about))


def _about(exported: Exported) -> dict[str, Any]:
    config = exported.run.config
    return {
        "task": config["task"] if ":" not in str(config["task"]) else exported.task,
        **({"task_args": json.dumps(config["task_args"])} if config["task_args"] else {}),
        "seats": ", ".join(exported.seats) or "none (an adversary)",
        "base model": exported.base if exported.ships else exported.base_on_hub or f"{exported.base_shown}, a folder",
        "LoRA rank": exported.rank,
        **({"checkpoint": exported.run.checkpoint} if exported.run.checkpoint else {}),
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The objective and the budget: the keys that meant something to this arm."""
    keys = [*OBJECTIVE, *BUDGET]
    if config["arm"] == "srpo":
        keys[1:1] = RISK if config.get("partners") else TETHER
    return {SYMBOLS.get(key, key): config[key] for key in keys if config.get(key) is not None}


def _versions(run: Run) -> dict[str, str]:
    """What it was trained with; not the machine, nor the command with its folders."""
    facts = read_environment(run.path)
    known = {"python": facts.get("python"), "llm-sra's revision": facts.get("git_revision")}
    return {**facts.get("packages", {}), **{name: version for name, version in known.items() if version}}


def _results(exported: Exported) -> str:
    """The table of an evaluation, and how it was played."""
    if not exported.seats:
        return "Adversaries are not evaluated."
    if not exported.evaluation:
        return (
            "Not evaluated yet: `llm-sra eval --run RUN --roster FILE --out FOLDER`, then `llm-sra export --eval "
            "FOLDER ...`."
        )
    evaluation = exported.evaluation
    settings = dict(evaluation.settings)
    if "roster" in settings:
        settings["roster"] = Path(str(settings["roster"])).stem  # a path would reveal the machine's folders
    if "task_args" in settings:
        settings["task_args"] = json.dumps(settings["task_args"])
    shown = [key for key in ("roster", "split", "seed", "task_args") if key in settings]
    played = ", ".join(f"{key} `{cell(settings[key])}`" for key in shown)
    headline = settings.get("headline")
    head = (*HEAD, as_markdown(headline)) if headline else HEAD
    lines = [_line(head), "|---" * len(head) + "|", *(_row(record, headline) for record in exported.records)]
    notes = [f"`self-play` is the partner that it was trained with; the others are the roster's ({played})."]
    if evaluation.missing:
        notes.append(f"Of the roster, these could not be played: {', '.join(map(as_markdown, evaluation.missing))}.")
    return "\n".join(lines) + "\n\n" + " ".join(notes)


def _row(record: Record, headline: str | None) -> str:
    """A record's line; last the mean of what its task compares agents by, where that is not the solve rate."""
    low, high = record.solve_rate_ci95
    cells = [
        *(as_markdown(value) for value in (record.seat, record.partner, record.decoding)),
        f"{record.solve_rate:.2f} [{low:.2f}, {high:.2f}]",
        f"{record.own_return:z.2f}",
        f"{record.effort_own:.2f}",
        str(record.n),
        *([f"{record.metrics[headline]:z.2f}"] if headline else []),
    ]
    return _line(cells)


def _eval_results(exported: Exported) -> list[EvalResult]:
    """The same records for the header's `model-index`."""
    settings = exported.evaluation.settings if exported.evaluation else {}
    return [
        EvalResult(
            task_type="text-generation",
            task_name=exported.task,
            dataset_type=exported.task,
            dataset_name=exported.task,
            dataset_split=settings.get("split"),
            metric_type="solve_rate",
            metric_name=f"solve rate as {record.seat} with {record.partner}, {record.decoding}",
            metric_value=round(float(record.solve_rate), 4),
            metric_args={
                "seat": record.seat,
                "partner": record.partner,
                "decoding": record.decoding,
                "n": record.n,
                "ci95": [round(float(bound), 4) for bound in record.solve_rate_ci95],
            },
        )
        for record in exported.records
    ]


def _table(rows: Mapping[str, Any]) -> str:
    lines = (f"| {key} | `{cell(value)}` |" for key, value in rows.items())
    return "\n".join(["| | |\n|---|---|", *lines]) if rows else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
