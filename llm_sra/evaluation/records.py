"""What an evaluation comes to: one record for each agent with each partner, and the files that hold them.

Counts what was played; knows neither how it was nor where it is kept. Statistics over several runs are not made here.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import binomtest

from llm_sra.episodes import percentiles, reported
from llm_sra.evaluation.matches import Cell, Coalition
from llm_sra.evaluation.store import EpisodeRecord
from llm_sra.files import write_whole


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
        own_return: Mean return of the agent: shared and own rewards less its private cost.
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


@dataclass(frozen=True)
class TeamRecord:
    """What a run's team earned with others in some of its seats.

    Attributes:
        run: The team's run.
        arm: Its objective.
        decoding: `greedy` or `sampled`.
        replaced: The seats that its agents have lost.
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


def team_record(coalition: Coalition, episodes: Sequence[EpisodeRecord]) -> TeamRecord:
    """Count a team's episodes."""
    rewards = tuple(round(episode.gross(), 6) for episode in episodes)
    return TeamRecord(
        run=coalition.agents.run,
        arm=coalition.agents.arm,
        decoding=coalition.decoding,
        replaced=coalition.replaced,
        by=coalition.by,
        n=len(rewards),
        reward=fmean(rewards),
        rewards=rewards,
    )


def summarise(cell: Cell, episodes: Sequence[EpisodeRecord]) -> Record:
    """Count a cell's episodes."""
    solved = sum(episode.solved for episode in episodes)
    counted: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for name, value in episode.metrics.items():
            counted[name].append(value)
    interval = binomtest(solved, len(episodes)).proportion_ci(0.95, method="wilson")
    return Record(
        run=cell.agents.run,
        arm=cell.agents.arm,
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
    """How long a seat's replies are and how sure their writers were, over all and by turn, counted from 0.

    Returns:
        For every seat that spoke, `reply_chars/SEAT_p50` and `_p95`, lengths in characters; of models, `surprise/SEAT`:
        nats per token that the model itself gave to what it said, which estimates its entropy if it was sampled, and is
        below it if it was not. `reply_chars/TURN/SEAT_...` and `surprise/TURN/SEAT` are those of one turn.
    """
    lengths: dict[str, list[float]] = defaultdict(list)
    surprise: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for episode in episodes:
        for seat in episode.players:
            turns = [turn for turn in episode.turns if turn.seat == seat]
            alone = reported(range(len(turns)))
            for number, turn in enumerate(turns):
                for name in (seat, f"{number}/{seat}") if number in alone else (seat,):
                    lengths[f"reply_chars/{name}"].append(float(len(turn.text)))
                    if turn.logprob is not None:
                        surprise[f"surprise/{name}"].append((-turn.logprob, turn.tokens))
    means = {name: sum(nats * n for nats, n in said) / sum(n for _, n in said) for name, said in surprise.items()}
    return percentiles(lengths) | means


def episode_line(cell: Cell, episode: EpisodeRecord) -> dict[str, Any]:
    """One line of `episodes.jsonl`: an episode as one agent's.

    `steps`, `logprobs` (means), `tokens`, `token_logprobs` and `token_widths` go with `said`.
    """
    return {
        "run": cell.agents.run,
        "arm": cell.agents.arm,
        "seat": cell.seat,
        "partner": cell.partner,
        "decoding": cell.decoding,
        "problem": episode.problem,
        "solved": episode.solved,
        "own_return": round(episode.total(cell.seat), 6),
        "effort": dict(episode.effort),
        "metrics": dict(episode.metrics),
        "said": [[turn.seat, turn.text] for turn in episode.turns],
        "steps": [turn.step for turn in episode.turns],
        "tokens": [turn.tokens for turn in episode.turns],
        "logprobs": [turn.logprob for turn in episode.turns],
        "token_logprobs": [turn.logprobs for turn in episode.turns],
        "token_widths": [turn.widths for turn in episode.turns],
        "rewards": episode.earned(),
    }


def write_results(
    out: Path,
    records: Sequence[Record],
    episodes: Sequence[dict[str, Any]],
    settings: Mapping[str, Any],
    missing: Mapping[str, str] | None = None,
    cross_play: Sequence[Record] = (),
    teams: Sequence[TeamRecord] = (),
) -> None:
    """Write `results.json` and `episodes.jsonl`; earlier files are replaced only once the new ones are whole.

    Args:
        out: Folder; made if missing.
        records: Of runs in self-play and with partners.
        episodes: Lines of both; see `episode_line`.
        settings: Of the evaluation.
        missing: Partners that were not played, and why.
        cross_play: Records of runs with each other.
        teams: Records of teams with others in some of their seats.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = {
        "records": [asdict(record) for record in records],
        "missing": [{"partner": partner, "reason": reason} for partner, reason in (missing or {}).items()],
        "settings": dict(settings),
        **({"cross_play": [asdict(record) for record in cross_play]} if cross_play else {}),
        **({"teams": [asdict(record) for record in teams]} if teams else {}),
    }
    for name, text in (
        ("results.json", json.dumps(results, indent=1)),
        ("episodes.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in episodes)),
    ):
        write_whole(out / name, text + "\n")
