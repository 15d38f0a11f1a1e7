"""Counts what was played: one record for each agent with each partner, and one for each team.

How episodes were played and where results are kept is not known here. Statistics over several runs are `eval`'s.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from statistics import fmean
from typing import Any

from scipy.stats import binomtest

from llm_sra.episodes import EpisodeRecord
from llm_sra.episodes.reply_numbers import percentiles, reported
from llm_sra.evaluation.matches import Cell, Coalition
from llm_sra.untrusted import checked, checked_numbers

WHOSE = ("run", "arm", "seat", "partner", "decoding")  # keys that say whose episode a line of `episodes.jsonl` holds
Key = tuple[str, str, str, str]  # run, seat, partner, decoding


@dataclass(frozen=True)
class Record:
    """How one agent did with one partner.

    Attributes:
        run: The agent's run.
        arm: Its objective.
        seat: Where the agent sat; the partner had all other seats.
        partner: `self-play` for the agent's own partner; in cross-play the name of another run.
        decoding: `greedy` or `sampled`, of every model at the table.
        n: Number of problems.
        solve_rate: Share of problems solved, in [0, 1].
        solve_rate_ci95: Wilson score interval of `solve_rate`.
        team_reward: Mean shared reward.
        own_return: Mean return of the agent: shared and own rewards minus its private cost.
        effort_own: Mean effort of the agent, in the task's unit.
        effort_partner: Mean effort of all other seats together.
        metrics: Means of the task's own numbers, each over the episodes that have it; and `reply_numbers`.
    """

    run: str
    arm: str
    seat: str
    partner: str
    decoding: str
    n: int
    solve_rate: float
    solve_rate_ci95: tuple[float, float]
    team_reward: float
    own_return: float
    effort_own: float
    effort_partner: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Of the episodes that it counts."""
        return self.run, self.seat, self.partner, self.decoding

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "Record":
        """From an object of `results.json`.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        values = {f.name: item[f.name] for f in fields(cls) if f.name in item or f.default_factory is MISSING}
        low, high = (checked("solve_rate_ci95", bound, float) for bound in values["solve_rate_ci95"])
        for name in ("run", "arm", "seat", "partner", "decoding"):
            checked(name, values[name], str)
        checked("n", values["n"], int)
        for name in ("solve_rate", "team_reward", "own_return", "effort_own", "effort_partner"):
            checked(name, values[name], float)
        checked_numbers("metrics", values.get("metrics", {}))
        return cls(**{**values, "solve_rate_ci95": (float(low), float(high))})


@dataclass(frozen=True)
class TeamRecord:
    """What a run's team earned with others in some of its seats.

    Attributes:
        run: The team's run.
        arm: Its objective.
        decoding: `greedy` or `sampled`.
        replaced: The seats in which others sit.
        by: Who sits there; see `Coalition`.
        n: Number of problems.
        reward: Mean reward, team's and own without costs, averaged over the seats.
        rewards: The same of each problem, in the order in which all teams played them.
    """

    run: str
    arm: str
    decoding: str
    replaced: tuple[str, ...]
    by: str
    n: int
    reward: float
    rewards: tuple[float, ...]

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "TeamRecord":
        """From an object of `results.json`.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        for name in ("run", "arm", "decoding", "by"):
            checked(name, item[name], str)
        checked("reward", item["reward"], float)
        for reward in item["rewards"]:
            checked("rewards", reward, float)
        return cls(**{**item, "replaced": tuple(item["replaced"]), "rewards": tuple(item["rewards"])})


@dataclass(frozen=True)
class Summary:
    """What `results.json` holds.

    Attributes:
        records: Records of runs in self-play and with partners.
        settings: Settings of the evaluation: `split`, `seed`, `roster`, and if there are any, `task_args` and the
            task's `headline` and `idle`.
        missing: By name, why a partner of the roster was not played.
        cross_play: Records of runs with each other: `partner` is the other run. Not among `records`.
        teams: Records of runs' teams with others in some of their seats.
        kinds: By the name of a partner of the roster, its group, such as `scripted` or `learned`.
    """

    records: tuple[Record, ...]
    settings: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)
    cross_play: tuple[Record, ...] = ()
    teams: tuple[TeamRecord, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedEpisode:
    """A line of `episodes.jsonl`: an episode as one agent's. In self-play it is the line of several agents.

    Attributes:
        run: The agent's run.
        arm: Its objective; empty where an earlier version did not write it.
        seat: Where the agent sat.
        partner: See `Record`.
        decoding: The same.
        episode: What was played.
    """

    run: str
    arm: str
    seat: str
    partner: str
    decoding: str
    episode: EpisodeRecord

    @property
    def key(self) -> Key:
        """Of the record that counts it."""
        return self.run, self.seat, self.partner, self.decoding

    def line(self) -> dict[str, Any]:
        """As JSON has it: whose episode it is, before what an `EpisodeRecord` has."""
        return {**{name: getattr(self, name) for name in WHOSE}, **self.episode.line()}

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> "EvaluatedEpisode":
        """From a line's JSON object, of this version or an earlier one.

        Raises:
            ValueError: If it is not one.
        """
        if missing := [key for key in WHOSE if key != "arm" and key not in item]:
            raise ValueError(f"a line does not say whose episode it holds: no {', '.join(missing)}")
        for key in WHOSE:
            checked(key, item.get(key, ""), str)
        return cls(**{"arm": "", **{key: item[key] for key in WHOSE if key in item}}, episode=EpisodeRecord.read(item))


def team_record(coalition: Coalition, episodes: Sequence[EpisodeRecord]) -> TeamRecord:
    """Count a team's episodes."""
    rewards = tuple(round(episode.gross(), 6) for episode in episodes)
    return TeamRecord(
        run=coalition.team.run,
        arm=coalition.team.arm,
        decoding=coalition.decoding,
        replaced=coalition.replaced,
        by=coalition.by,
        n=len(rewards),
        reward=fmean(rewards),
        rewards=rewards,
    )


def cell_record(cell: Cell, episodes: Sequence[EpisodeRecord]) -> Record:
    """Count a cell's episodes."""
    solved = sum(episode.solved for episode in episodes)
    counted: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for name, value in episode.metrics.items():
            counted[name].append(value)
    interval = binomtest(solved, len(episodes)).proportion_ci(0.95, method="wilson")
    return Record(
        run=cell.team.run,
        arm=cell.team.arm,
        seat=cell.seat,
        partner=cell.partner,
        decoding=cell.decoding,
        n=len(episodes),
        solve_rate=solved / len(episodes),
        solve_rate_ci95=(float(interval.low), float(interval.high)),
        team_reward=fmean(episode.team_reward(cell.seat) for episode in episodes),
        own_return=fmean(episode.total(cell.seat) for episode in episodes),
        effort_own=fmean(episode.effort.get(cell.seat, 0.0) for episode in episodes),
        effort_partner=fmean(
            sum(effort for seat, effort in episode.effort.items() if seat != cell.seat) for episode in episodes
        ),
        metrics={name: fmean(values) for name, values in counted.items()} | reply_numbers(episodes),
    )


def reply_numbers(episodes: Iterable[EpisodeRecord]) -> dict[str, float]:
    """How long each seat's replies are and how probable they were, over all turns and by turn, counted from 0.

    Returns:
        For every seat that spoke, `reply_chars/SEAT_p50` and `_p95`, lengths in characters; of models, `surprise/SEAT`:
        -log p per token of what the model said, in nats, which estimates the model's entropy in sampled play and lies
        below it in greedy play. `reply_chars/TURN/SEAT_...` and `surprise/TURN/SEAT` are those of one turn.
    """
    lengths: dict[str, list[float]] = defaultdict(list)
    surprise: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for episode in episodes:
        for seat in episode.policies:
            turns = [turn for turn in episode.turns if turn.seat == seat]
            alone = reported(range(len(turns)))
            for number, turn in enumerate(turns):
                for name in (seat, f"{number}/{seat}") if number in alone else (seat,):
                    lengths[f"reply_chars/{name}"].append(float(len(turn.text)))
                    if turn.mean_logprob is not None:
                        surprise[f"surprise/{name}"].append((-turn.mean_logprob, turn.tokens))
    means = {name: sum(nats * n for nats, n in said) / sum(n for _, n in said) for name, said in surprise.items()}
    return percentiles(lengths) | means
