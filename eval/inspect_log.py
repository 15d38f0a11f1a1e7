"""An evaluation's episodes as logs of inspect-ai, which its viewer opens (`inspect view`). Needs the extra `inspect`.

https://inspect.aisi.org.uk/eval-logs.html
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from llm_sra.evaluation.records import EvaluatedEpisode
from llm_sra.evaluation.results import Results, ResultsError, read_episodes
from llm_sra.files import writing

FOLDER = "inspect"
SOLVED, RETURN = "solved", "return"


def require_inspect() -> None:
    """See that inspect-ai is installed, before anything is played.

    Raises:
        ResultsError: If it is not; says what to install.
    """
    if find_spec("inspect_ai") is None:
        raise ResultsError("--inspect_log needs inspect-ai: pip install inspect-ai")


def write_inspect_logs(results: Results, task: str, folder: Path) -> list[Path]:
    """Write a log for each run: a sample for each episode as each of its agents, seen from the agent's seat.

    Args:
        results: Of the evaluation in `folder`.
        task: Name of the task.
        folder: Holds `episodes.jsonl`; the logs are written to `inspect/` in it.

    Raises:
        ResultsError: If inspect-ai is not installed.
        WriteError: If the disk does not take them.
    """
    require_inspect()
    from inspect_ai.log import write_eval_log

    episodes = list(read_episodes(folder))
    made = []
    with writing("logs for inspect-ai", folder / FOLDER):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for run in results.runs:
            # The viewer lists a .json only if its name begins with a time.
            path = folder / FOLDER / f"{run.replace('/', '_')}.eval"
            write_eval_log(_log(run, task, [one for one in episodes if one.run == run], results), str(path))
            made.append(path)
    return made


def _log(run: str, task: str, episodes: Sequence[EvaluatedEpisode], results: Results) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec, EvalStats

    samples = [_sample(one, number) for number, one in enumerate(episodes, 1)]
    values = {name: [float(sample.scores[name].value) for sample in samples] for name in (SOLVED, RETURN)}
    scores = [
        EvalScore(name=name, scorer=name, metrics={"mean": EvalMetric(name="mean", value=fmean(found))})
        for name, found in values.items()
        if found
    ]
    now = datetime.now(UTC)
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=now,
            task=task,
            model=run,
            dataset=EvalDataset(name=str(results.settings.get("split", "test")), samples=len(samples)),
            config=EvalConfig(),
            packages={"llm-sra": version("llm-sra")},
            metadata={key: value for key, value in results.settings.items() if isinstance(value, str | int | float)},
        ),
        stats=EvalStats(started_at=now, completed_at=now),  # of the log: the viewer shows NaN without them
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=scores),
        samples=samples,
    )


def _sample(one: EvaluatedEpisode, number: int) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.scorer import Score

    episode, messages = one.episode, list(_messages(one))
    return EvalSample(
        id=number,
        epoch=1,
        input=f"{episode.problem}: {one.seat} with {one.partner}, {one.decoding}",  # what the viewer's list shows
        target="",
        messages=messages,
        scores={
            SOLVED: Score(value=float(episode.solved)),
            RETURN: Score(value=float(episode.returns.get(one.seat, 0.0))),
        },
        metadata={
            "seat": one.seat,
            "partner": one.partner,
            "decoding": one.decoding,
            "policies": dict(episode.policies),
            "effort": dict(episode.effort),
            "metrics": dict(episode.metrics),
        },
    )


def _messages(one: EvaluatedEpisode) -> Iterable[Any]:
    """The agent's turns as an assistant's, all others' as a user's, who are named."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser

    for turn in one.episode.turns:
        if turn.seat == one.seat:
            yield ChatMessageAssistant(content=turn.text, model=one.episode.policies.get(turn.seat))
        else:
            yield ChatMessageUser(content=f"[{turn.seat}] {turn.text}")
