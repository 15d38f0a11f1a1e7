"""Checks a task on a few episodes with stand-in replies, before any model is loaded.

`Rules` checks what one call returns. This module checks what only several calls show: no problem in two splits, the
same problems and episodes for the same seed, no state changed in place (`in_place`), every seat paid. It returns
findings in words.
"""

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from llm_sra.errors import TaskError, UserError, defined_at
from llm_sra.protocol.in_place import Finding, Watch
from llm_sra.protocol.rules import Rules, at
from llm_sra.task import Message, Outcome, Problem, Reward, Task

SPLITS = ("train", "dev", "test")
PROBLEMS = 1000  # of each split that are compared
NAMED = 3  # of problems in two splits, how many are named
EPISODES = 3
STAND_INS = ("", "yes", "7", "I think that it is 12.\nOr 13?")  # what replies are made of where a task has no choices
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialTurn:
    """One turn of a trial: who saw what and said what."""

    seat: str
    view: tuple[Message, ...]
    reply: str


@dataclass(frozen=True)
class Trial:
    """An episode with stand-in replies.

    Attributes:
        problem: What was played.
        turns: In order.
        rewards: Rewards of each step.
        outcome: How it ended.
    """

    problem: Problem
    turns: tuple[TrialTurn, ...]
    rewards: tuple[Mapping[str, Reward], ...]
    outcome: Outcome


@dataclass(frozen=True)
class TaskCheck:
    """What the check of a task found.

    Attributes:
        findings: In the order in which they were found; none for a task that keeps to the protocol.
        trials: The episodes that were played.
    """

    findings: tuple[Finding, ...]
    trials: tuple[Trial, ...]


def check_task(task: Task, seed: int = 0, episodes: int = EPISODES) -> TaskCheck:
    """Play a task with stand-in replies, and say what is wrong with it.

    Args:
        task: The rules.
        seed: Seed of problems and replies.
        episodes: How many are played.
    """
    rules, watch, findings, trials = Rules(task), Watch(task), _of_choices(task), list[Trial]()
    if findings:
        return TaskCheck(tuple(findings), ())
    try:
        problems = rules.problems("train", PROBLEMS, seed)
        findings += _of_problems(rules, problems, seed)
        for number, problem in enumerate(problems[:episodes]):
            trials.append(_trial(rules, problem, seed + number, watch))
        if trials:
            findings += _of_chance(rules, trials[0], seed)
        findings += _of_pay(task, [trial.rewards for trial in trials])
    except UserError as error:
        findings.append(Finding(str(error)))
    return TaskCheck((*watch.findings, *findings), tuple(trials))


def require_task(task: Task, seed: int = 0, quiet: bool = False) -> None:
    """Check a task before it is played: what play would fail at is an error, the rest is logged as warnings.

    Args:
        task: The rules.
        seed: As in `check_task`.
        quiet: Whether to log nothing.

    Raises:
        TaskError: With the first finding that breaks the task so that it cannot be played.
    """
    findings = check_task(task, seed, episodes=1).findings
    for finding in findings:
        if finding.breaks and not finding.plays:
            raise TaskError(finding.text)
        if not quiet:
            logger.warning("%s", finding.text)


def unpaid(task: Task, returns: Sequence[Mapping[str, float]]) -> Finding | None:
    """A finding if a seat got nothing in all of several episodes, while another got something.

    Args:
        task: The rules.
        returns: For each episode, the return of each seat, in units of the reward.
    """
    paid = {seat: sum(1 for each in returns if each.get(seat)) for seat in task.seats}
    never = [seat for seat, count in paid.items() if not count]
    if not never or len(never) == len(paid):
        return None
    others = ", ".join(f"{seat} in {count}" for seat, count in paid.items() if count)
    return Finding(
        f"{defined_at(type(task), 'step')} paid seat {never[0]!r} nothing in any of {len(returns)} episodes "
        f"({others}): its agent learns nothing. Give every seat its Reward; `team` is not shared out by itself",
        breaks=False,
    )


def _of_choices(task: Task) -> list[Finding]:
    """Whether the choices are words, for all seats or for each."""
    name, choices = f"`choices` of {type(task).__name__}", task.choices
    if isinstance(choices, Mapping) and set(choices) != set(task.seats):
        came = ", ".join(map(str, choices)) or "no seat"
        return [
            Finding(
                f"{name} names words for {came}, but the seats are {', '.join(task.seats)}: give each seat its words, "
                "or all seats one tuple"
            )
        ]
    for words in choices.values() if isinstance(choices, Mapping) else [choices]:
        given = isinstance(words, tuple | list) and all(isinstance(word, str) for word in words)
        if not given or (isinstance(choices, Mapping) and not words):
            return [Finding(f"{name} holds {words!r}: expected a tuple of words, as ('rest', 'work')")]
    return []


def _of_problems(rules: Rules, train: Sequence[Problem], seed: int) -> list[Finding]:
    """What is wrong with the splits."""
    place = defined_at(type(rules.task), "problems")
    found: list[Finding] = []
    if not train:
        return [Finding(f"{place} returned no problem of split 'train', seed {seed}: expected one or more")]
    if len(train) > PROBLEMS:
        found.append(
            Finding(f"{place} returned {len(train)} problems, but count={PROBLEMS} asks for at most so many", False)
        )
    if _contents(rules.problems("train", PROBLEMS, seed)) != _contents(train):
        found.append(
            Finding(f"{place} returned other problems when asked again: expected the same for the same split and seed")
        )
    if (bad := next((problem for problem in train if _content(problem) is None), None)) is not None:
        found.append(Finding(f"{place}: the data of problem {bad.id!r} is not JSON, so it cannot be kept", False))
    splits = {"train": list(train)}
    for split in SPLITS[1:]:
        try:
            splits[split] = rules.problems(split, PROBLEMS, seed)
        except (UserError, OSError, ValueError) as error:  # it is not needed yet
            found.append(Finding(f"split {split!r} cannot be played: {error}", False))
    for one, other in combinations(SPLITS, 2):
        found += _of_overlap(place, (one, splits.get(one, [])), (other, splits.get(other, [])))
    return found


def _of_overlap(place: str, one: tuple[str, Sequence[Problem]], other: tuple[str, Sequence[Problem]]) -> list[Finding]:
    """Whether two splits share problems, by their ids or by their data.

    Problems that all have the same data are a game, which is played anew in every split: only their ids may not be the
    same. What shares problems can be played, and trained on: results only say less than they seem to.
    """
    (name, mine), (other_name, theirs) = one, other
    game = max(len(_contents(mine)), len(_contents(theirs))) <= 1
    ids = {problem.id: problem.id for problem in theirs}
    by_data: dict[str | None, str] = {} if game else {_content(problem): problem.id for problem in theirs}
    by_data.pop(None, None)
    again = [(problem.id, ids.get(problem.id, by_data.get(_content(problem)))) for problem in mine]
    both = [repr(here) if here == there else f"{here!r} (as {there!r})" for here, there in again if there is not None]
    if not both:
        return []
    shown = ", ".join(both[:NAMED]) + (" ..." if len(both) > NAMED else "")
    return [
        Finding(
            f"{place} returned {len(both)} of the first {len(mine)} problems of split {name!r} in split {other_name!r} "
            f"again: {shown}. No problem may be in two splits, else results measure what was learned by heart. Draw "
            "each split's problems from numbers, rows or files of its own; where one situation is meant to be played "
            "in all of them, write the split into its data and its id",
            plays=True,
        )
    ]


def _contents(problems: Sequence[Problem]) -> set[str | None]:
    return {_content(problem) for problem in problems} - {None}


def _content(problem: Problem) -> str | None:
    """A problem's data as text; None if they are no JSON."""
    try:
        return json.dumps(problem.data, sort_keys=True)
    except (TypeError, ValueError):
        return None


def _of_chance(rules: Rules, first: Trial, seed: int) -> list[Finding]:
    """Whether the same seed gives the same episode."""
    again = _trial(rules, first.problem, seed, Watch(rules.task))
    for one, other in zip(first.turns, again.turns, strict=False):
        if one.view != other.view:
            return [
                Finding(
                    f"{defined_at(type(rules.task), 'view')}: seat {one.seat!r} saw another text when problem "
                    f"{first.problem.id!r} was played again with the same seed and replies. Draw chance from the `rng` "
                    "argument alone, keep nothing in the task, and do not use the time or the order of sets"
                )
            ]
    if (first.rewards, first.outcome) != (again.rewards, again.outcome):
        return [
            Finding(
                f"{defined_at(type(rules.task), 'step')}: problem {first.problem.id!r} ended with other rewards or "
                "another outcome when it was played again with the same seed and replies. Draw chance from the `rng`"
            )
        ]
    return []


def _of_pay(task: Task, episodes: Sequence[Sequence[Mapping[str, Reward]]]) -> list[Finding]:
    returns = [
        {seat: sum(abs(step.get(seat, Reward()).total) for step in steps) for seat in task.seats} for steps in episodes
    ]
    finding = unpaid(task, returns)
    return [finding] if finding else []


def _trial(rules: Rules, problem: Problem, seed: int, watch: Watch) -> Trial:
    """Play one episode with stand-in replies."""
    task, rng = rules.task, random.Random(f"{seed}/{problem.id}")
    where = at(problem, 0)
    state = watch("start", "the problem's data", problem.data, where, lambda: rules.start(problem, rng))
    watch.state("start", state, where)
    turns: list[TrialTurn] = []
    paid: list[Mapping[str, Reward]] = []
    counts = dict.fromkeys(task.seats, 0)
    while seats := watch("actors", "the state", state, where, partial(rules.actors, state, where)):
        replies = {}
        for seat in seats:
            rules.end(seat, counts[seat], where)
            view = watch("view", "the state", state, where, partial(rules.view, state, seat, where))
            replies[seat] = rng.choice(task.choices_of(seat) or STAND_INS)[: task.max_reply_chars]
            turns.append(TrialTurn(seat, view, replies[seat]))
            counts[seat] += 1
        state, rewards = watch("step", "the state", state, where, partial(rules.step, state, replies, rng, where))
        watch.state("step", state, where)
        paid.append(rewards)
        where = at(problem, len(paid))
    outcome = watch("outcome", "the state", state, where, partial(rules.outcome, state, where))
    return Trial(problem, tuple(turns), tuple(paid), outcome)
