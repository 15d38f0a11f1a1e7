"""Hidden preferences: what an agent earns for a metric of its own, in training alone and beside the task's rewards.

Behaviour-preferring rewards (HSP, arXiv 2302.01605; ZSC-Eval, arXiv 2310.05208) make partners with habits that the task
does not pay for. Episodes keep the task's rewards and outcome: logs and evaluations know nothing of this.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llm_sra.errors import TaskError, unknown
from llm_sra.protocol.check import check_task
from llm_sra.registry import task_options
from llm_sra.task import Episode, Reward, Task
from llm_sra.trainer.rollout import Rollout
from llm_sra.trainer.values import as_number

EFFORT, WORDS = "effort", "words"  # metrics that every task has
FIELD = "preferences"


def read_preferences(given: object) -> dict[str, float] | None:
    """The weights of a configuration by the metric's name, from JSON if a flag or a recipe gives them as text.

    Raises:
        ValueError: If they are no mapping of names to finite numbers.
    """
    options = task_options(given, FIELD)
    if options is None:
        return None
    weights = {name: float(as_number(f"{FIELD}[{name!r}]", value, float)) for name, value in options.items()}
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise ValueError(f"{FIELD}[{name!r}] must be finite, got {weight}")
    return weights


def own_metrics(task: Task, seed: int = 0) -> tuple[str, ...]:
    """Names of the metrics that each seat of a task has of its own.

    They are `effort`, `words` (of all that it says), and each metric `NAME/SEAT` that every seat has in some episodes
    with stand-in replies.

    Raises:
        TaskError: If the task cannot be played.
    """
    check = check_task(task, seed)
    if not check.trials:
        raise TaskError(check.findings[0].text)
    of_seats = [
        {name.removesuffix(f"/{seat}") for name in trial.outcome.metrics if name.endswith(f"/{seat}")}
        for trial in check.trials
        for seat in task.seats
    ]
    return tuple(dict.fromkeys((EFFORT, WORDS, *sorted(set.intersection(*of_seats)))))


def check_preferences(task: Task, preferences: Mapping[str, float] | None, seed: int = 0) -> None:
    """Check that a task has the metrics that are preferred.

    Raises:
        TaskError: If the task cannot be played.
        UnknownNameError: If it lacks one; names those that it has.
    """
    known = own_metrics(task, seed) if preferences else ()
    for name in preferences or ():
        if name not in known:
            raise unknown("metric of a seat", name, known)


def own_metric(
    name: str, seat: str, effort: Mapping[str, float], metrics: Mapping[str, float], said: Sequence[str]
) -> float:
    """One metric of a seat in an episode; 0 where the episode does not have it.

    Args:
        name: See `own_metrics`.
        seat: Whose.
        effort: Of the outcome.
        metrics: Of the outcome.
        said: The seat's replies.
    """
    if name == WORDS:
        return float(sum(len(text.split()) for text in said))
    return effort.get(seat, 0.0) if name == EFFORT else metrics.get(f"{name}/{seat}", 0.0)


def with_preferences(rollout: Rollout, preferences: Mapping[str, float] | None) -> Rollout:
    """A rollout as it is credited: each seat's last reward has its preferences in it.

    Samples and notes are the rollout's own. Without preferences it is the rollout itself.

    Args:
        rollout: As it was played.
        preferences: By a metric's name, what a unit of it earns its seat, in units of the reward.
    """
    if not preferences:
        return rollout
    return replace(rollout, episodes=[_preferred(episode, preferences) for episode in rollout.episodes])


def _preferred(episode: Episode, preferences: Mapping[str, float]) -> Episode:
    outcome, rewards = episode.outcome, dict(episode.rewards)
    for seat, (*before, last) in ((seat, given) for seat, given in rewards.items() if given):
        said = [turn.reply.text for turn in episode.turns_of(seat)]
        earned = sum(
            weight * own_metric(name, seat, outcome.effort, outcome.metrics, said)
            for name, weight in preferences.items()
        )
        rewards[seat] = (*before, Reward(last.team, last.own + earned, last.cost))
    return replace(episode, rewards=rewards)
