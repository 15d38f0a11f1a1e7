"""Episodes on disk: one record, one form of a line of JSON.

A training writes `episodes/step-*.jsonl` here; an evaluation writes `store/process-*.jsonl` and `episodes.jsonl`. Each
line holds `EpisodeRecord.line()`; an evaluation adds keys of its own. `EpisodeRecord.read` also reads earlier versions.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from llm_sra.files import json_lines, read_json_lines, write_whole, writing
from llm_sra.task import Episode, Reward
from llm_sra.untrusted import checked, checked_numbers

DIGITS = 4  # of log-probabilities: in float32, and the batch around a reply changes what comes after them
TOKEN_DIGITS = 2  # of a single token's, which is only shown
NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One turn.

    Attributes:
        seat: Who spoke.
        step: Step of the episode at which it was spoken, and whose rewards followed.
        text: The reply.
        finish: See `Reply`; empty where an earlier version did not write it.
        tokens: Number of tokens of the reply; 0 for policies that speak text.
        mean_logprob: Mean natural log-probability of its tokens, as sampled; None without tokens.
        logprobs: Log-probability of each token, rounded; empty where they are not kept.
        widths: How many characters of the text each of these tokens added.
    """

    seat: str
    step: int
    text: str
    finish: str = "stop"
    tokens: int = 0
    mean_logprob: float | None = None
    logprobs: tuple[float, ...] = ()
    widths: tuple[int, ...] = ()

    def line(self) -> dict[str, Any]:
        """As JSON has it; what a turn does not have is left out."""
        always = {"seat": self.seat, "step": self.step, "text": self.text, "finish": self.finish, "tokens": self.tokens}
        mean = {} if self.mean_logprob is None else {"mean_logprob": self.mean_logprob}
        return {**always, **mean, **({"logprobs": self.logprobs, "widths": self.widths} if self.widths else {})}


@dataclass(frozen=True)
class EpisodeRecord:
    """An episode as it is kept: without prompts and token ids.

    Attributes:
        problem: Id of what was played.
        policies: By seat, how the policies were called.
        solved: Whether the team solved it.
        effort: See `Outcome`.
        metrics: The same; an evaluation may add numbers.
        turns: In the order in which they were spoken.
        rewards: By seat, one for each step.
        match: Name of the match; empty where an earlier version did not write it.
        index: Number within the group.
        step: Step of the training; None in an evaluation.
        old_returns: Returns of the seats whose rewards an earlier version did not write.
    """

    problem: str
    policies: Mapping[str, str]
    solved: bool
    effort: Mapping[str, float]
    metrics: Mapping[str, float]
    turns: tuple[TurnRecord, ...]
    rewards: Mapping[str, tuple[Reward, ...]]
    match: str = ""
    index: int = 0
    step: int | None = None
    old_returns: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        episode: Episode,
        *,
        step: int | None = None,
        more_metrics: Mapping[str, float] = NOTHING,
        widths: Sequence[tuple[int, ...]] | None = None,
    ) -> "EpisodeRecord":
        """What is kept of an episode.

        Args:
            episode: As it was played.
            step: Step of the training.
            more_metrics: Further numbers beside the task's own.
            widths: For each turn, the characters that each token added (`Renderer.widths`); None: tokens are not kept.
        """
        turns = []
        for turn, wide in zip(episode.turns, widths or [()] * len(episode.turns), strict=True):
            reply = turn.reply
            mean = round(fmean(reply.logprobs), DIGITS) if reply.logprobs else None
            each = tuple(round(logprob, TOKEN_DIGITS) + 0.0 for logprob in reply.logprobs) if wide else ()
            turns.append(
                TurnRecord(turn.seat, turn.step, reply.text, reply.finish, len(reply.token_ids), mean, each, wide)
            )
        return cls(
            problem=episode.problem.id,
            policies=dict(episode.policies),
            solved=bool(episode.outcome.solved),
            effort=dict(episode.outcome.effort),
            metrics={name: float(value) for name, value in {**episode.outcome.metrics, **more_metrics}.items()},
            turns=tuple(turns),
            rewards={seat: tuple(rewards) for seat, rewards in episode.rewards.items()},
            match=episode.match,
            index=episode.index,
            step=step,
        )

    def line(self) -> dict[str, Any]:
        """As JSON has it: a reward is [team, own, cost], a turn an object; `returns` follow from the rewards."""
        return {
            **({} if self.step is None else {"step": self.step}),
            "problem": self.problem,
            "match": self.match,
            "index": self.index,
            "policies": dict(self.policies),
            "turns": [turn.line() for turn in self.turns],
            "rewards": {seat: [[r.team, r.own, r.cost] for r in rewards] for seat, rewards in self.rewards.items()},
            "returns": self.returns,
            "solved": self.solved,
            "effort": dict(self.effort),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "EpisodeRecord":
        """From a line's JSON object, of this version or an earlier one; further keys are passed over.

        Raises:
            ValueError: If it holds no episode.
        """
        try:
            turns = _turns_of_said(item) if "said" in item else tuple(_turn(turn) for turn in item["turns"])
            rewards = {s: tuple(Reward(*reward) for reward in steps) for s, steps in item.get("rewards", {}).items()}
            returns = {item["seat"]: item["own_return"]} if "own_return" in item else item.get("returns", {})
            for turn in turns:
                _check_turn(turn, rewards)
            for reward in (reward for steps in rewards.values() for reward in steps):
                checked_numbers("rewards", {"team": reward.team, "own": reward.own, "cost": reward.cost})
            policies = checked("policies", item.get("policies") or item.get("players") or {}, Mapping)
            return cls(
                problem=checked("problem", item["problem"], str),
                policies={seat: checked("policies", policy, str) for seat, policy in policies.items()},
                solved=bool(checked("solved", item["solved"], int)),
                effort=checked_numbers("effort", item.get("effort", {})),
                metrics=checked_numbers("metrics", item.get("metrics", {})),
                turns=turns,
                rewards=rewards,
                match=checked("match", item.get("match", ""), str),
                index=checked("index", item.get("index", 0), int),
                step=item.get("step"),
                old_returns=checked_numbers("returns", {s: value for s, value in returns.items() if s not in rewards}),
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"a line holds no episode: {type(error).__name__} {error}") from error

    @property
    def returns(self) -> dict[str, float]:
        """Undiscounted return of each seat, in units of the reward."""
        return {seat: self.total(seat) for seat in (*self.rewards, *self.old_returns)}

    def total(self, seat: str) -> float:
        """Undiscounted return of a seat, in units of the reward."""
        known = seat in self.rewards
        return sum(reward.total for reward in self.rewards[seat]) if known else self.old_returns[seat]

    def gross(self) -> float:
        """What the seats earned, team's and own rewards without costs, on average over them."""
        return fmean(sum(reward.team + reward.own for reward in rewards) for rewards in self.rewards.values())

    def team_reward(self, seat: str) -> float:
        """The shared part of a seat's return."""
        return sum(reward.team for reward in self.rewards[seat])


def _check_turn(turn: TurnRecord, rewards: Mapping[str, Sequence[Reward]]) -> None:
    for name in ("seat", "text", "finish"):
        checked(name, getattr(turn, name), str)
    checked("step", turn.step, int), checked("tokens", turn.tokens, int)
    if turn.mean_logprob is not None:
        checked("mean_logprob", turn.mean_logprob, float)
    for name, numbers in (("logprobs", turn.logprobs), ("widths", turn.widths)):
        checked_numbers(name, dict(enumerate(numbers)))
    if turn.seat in rewards and not 0 <= turn.step < len(rewards[turn.seat]):
        raise ValueError(
            f"a turn of seat {turn.seat!r} is at step {turn.step}, but there are {len(rewards[turn.seat])}"
        )


def write_training_episodes(folder: Path, episodes: Sequence[Episode], step: int, per_match: int) -> None:
    """Write `step-N.jsonl`, the episodes of a training step; the folder is made if missing.

    Args:
        folder: `episodes/` of the run.
        episodes: As they were played.
        step: Number of the step.
        per_match: How many of each match are written; -1: all.

    Raises:
        WriteError: If the disk does not take them; names the file.
    """
    written: Counter[str] = Counter()
    lines = []
    for episode in episodes:
        if per_match < 0 or written[episode.match] < per_match:
            written[episode.match] += 1
            lines.append(EpisodeRecord.of(episode, step=step).line())
    if lines:
        path = folder / f"step-{step:06d}.jsonl"
        with writing("the episodes of a step", path):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, json_lines(lines))


def read_training_episodes(path: Path) -> Iterator[EpisodeRecord]:
    """The episodes of a training step, from its `step-N.jsonl`.

    Raises:
        ValueError: If a line holds none; names the file and the line.
    """
    for number, item in read_json_lines(path):
        try:
            yield EpisodeRecord.read(item or {})
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def _turn(turn: Mapping[str, Any] | Sequence[Any]) -> TurnRecord:
    """A turn; earlier stores have it as a list, and earlier trainings the sum of the log-probabilities as `logprob`."""
    if not isinstance(turn, Mapping):
        seat, step, text, tokens, mean, finish, *each = turn
        return TurnRecord(seat, step, text, finish, tokens, mean, *map(tuple, each))
    tokens, mean = turn.get("tokens", 0), turn.get("mean_logprob")
    if "logprob" in turn and tokens:
        mean = round(turn["logprob"] / tokens, DIGITS)
    return TurnRecord(
        seat=turn["seat"],
        step=turn["step"],
        text=turn["text"],
        finish=turn.get("finish", ""),
        tokens=tokens,
        mean_logprob=mean,
        logprobs=tuple(turn.get("logprobs", ())),
        widths=tuple(turn.get("widths", ())),
    )


def _turns_of_said(item: Mapping[str, Any]) -> tuple[TurnRecord, ...]:
    """The turns of an earlier `episodes.jsonl`: lists side by side, of which the earliest have `said` alone."""
    said = item["said"]

    def beside(key: str, default: Any) -> Sequence[Any]:
        return item.get(key) or [default] * len(said)

    columns = zip(
        said,
        beside("steps", 0),
        beside("tokens", 0),
        beside("logprobs", None),
        beside("token_logprobs", ()),
        beside("token_widths", ()),
        strict=True,
    )
    return tuple(
        TurnRecord(seat, step, text, "", tokens, mean, tuple(each), tuple(widths))
        for (seat, text), step, tokens, mean, each, widths in columns
    )
