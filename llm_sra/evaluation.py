"""Plays agents with partners that they were never trained with, and counts.

`evaluate` opens runs, loads every model once and plays all matches; `DevEvaluation` does the same with adapters that
are being trained, for the development roster. Statistics over several runs and pictures are not made here.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import binomtest

from llm_sra.diagnostics import reply_numbers
from llm_sra.engines import ENGINES, Engine, EngineOptions
from llm_sra.loading import load_task, unknown
from llm_sra.play import Table, play
from llm_sra.policies import EnginePolicy, Match, Policy, UnavailableError, decoded
from llm_sra.rosters import SELF_PLAY, Entry, read_roster
from llm_sra.runs import Run, RunError
from llm_sra.studio import CANNOT_BE_HAD, Agents, Studio
from llm_sra.task import Episode, Problem, Sampling, Task

__all__ = ["DECODINGS", "Agents", "Cell", "DevEvaluation", "Record", "Studio", "evaluate"]
LONGEST_REASON = 1000  # characters
logger = logging.getLogger(__name__)
DECODINGS = {"greedy": Sampling(temperature=0.0), "sampled": Sampling(temperature=1.0)}


@dataclass(frozen=True)
class Record:
    """How one agent did with one partner.

    Attributes:
        run: The agent's run.
        arm: Its objective.
        seat: Where the agent sat; the partner had all other seats.
        partner: `self-play` for the agent's own partner.
        decoding: `greedy` or `sampled`, of every model at the table.
        n: Number of problems.
        solve_rate: Share of problems solved, in [0, 1].
        solve_rate_ci95: Wilson score interval of `solve_rate`.
        team_reward: Mean shared reward.
        own_return: Mean return of the agent: shared and own rewards less its private cost.
        effort_own: Mean effort of the agent, in the task's unit.
        effort_partner: Mean effort of all other seats together.
        metrics: Means of the task's own numbers, each over the episodes that have it; and what `reply_numbers` counts.
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
class Cell:
    """One agent, one partner, one decoding: a row of results."""

    agents: Agents
    seat: str
    partner: str
    decoding: str
    match: Match


def evaluate(
    run_paths: Sequence[str | Path | Run],
    roster: str | Path,
    out: str | Path | None = None,
    *,
    problems: int = 64,
    split: str = "test",
    decodings: Sequence[str] = tuple(DECODINGS),
    seed: int = 0,
    engine: EngineOptions | str = "transformers",
) -> list[Record]:
    """Play the agents of runs with every partner of a roster, in each seat, on the same problems for everyone.

    Args:
        run_paths: Run folders of one task.
        roster: YAML file; see `llm_sra.rosters`.
        out: Folder for `results.json` and `episodes.jsonl`; nothing is written if None. `missing` in `results.json`
            names the partners that could not be had, or not to the end, and why: they have no records.
        problems: How many.
        split: `dev` or `test`.
        decodings: `greedy`, `sampled` or both.
        seed: Chooses the problems and every reply's chance.
        engine: What plays the runs' agents and all adapters on their base; other models are played by transformers.

    Returns:
        One record per run, seat, partner that could be had, and decoding.

    Raises:
        RunError: If a folder is not a run, or the runs do not compare, or two have the same name.
        RosterError: If the roster cannot be used.
        ValueError: If a decoding or the engine is unknown, or there are no problems.
        EngineError: If the engine cannot be had.
        PolicyError: If a scripted partner fails.
    """
    options = EngineOptions(kind=engine) if isinstance(engine, str) else engine
    if options.kind not in ENGINES:
        raise unknown("engine", options.kind, ENGINES)
    opened = [path if isinstance(path, Run) else Run.open(path) for path in run_paths]
    entries = read_roster(roster)
    for decoding in decodings:
        if decoding not in DECODINGS:
            raise unknown("decoding", decoding, DECODINGS)
    task = _task_of(opened)
    chosen = task.problems(split, problems, seed)
    if not chosen:
        raise ValueError(f"no problems to play: asked for {problems} of the {split} split")
    records, episodes = [], []
    limit = opened[0].config["max_completion_length"]
    with Studio(task, options, limit) as studio:
        agents = [studio.agents(run) for run in opened]
        partners, missing = _partners(studio, entries)
        todo = cells(task, agents, partners, decodings)
        for cell, played in play_cells(task, todo, chosen, studio.engines, seed, limit, missing):
            records.append(summarise(cell, played))
            episodes += [_episode_line(cell, episode) for episode in played]
    if out is not None:
        settings = {"split": split, "seed": seed, "roster": str(roster)}
        write_results(Path(out), records, episodes, settings, missing)
    return records


class DevEvaluation:
    """Plays adapters that are being trained with the development roster, sampled, on the dev split.

    Args:
        task: The rules.
        heroes: Adapter of each seat.
        engine: Plays the heroes.
        roster: YAML file; its models are loaded once, apart from the one that is trained.
        problems: How many.
        seed: Of the run.
        max_reply_tokens: Token limit of a reply; the task's own if None.
    """

    def __init__(
        self,
        task: Task,
        heroes: Mapping[str, str],
        engine: Engine,
        roster: str | Path,
        problems: int,
        seed: int,
        max_reply_tokens: int | None = None,
    ) -> None:
        self._task, self._seed, self._limit = task, seed, max_reply_tokens
        studio = Studio(task)
        partners = {entry.name: studio.partner(entry) for entry in read_roster(roster)}
        self._engines = {**studio.engines, "training": engine}
        agents = Agents("training", "", heroes, "training")
        self._cells = cells(task, [agents], partners, ["sampled"])
        self._problems = task.problems("dev", problems, seed)

    def __call__(self) -> dict[str, float]:
        """Play, and count.

        Returns:
            Solve rates: `self_play`, `<partner>/<seat>`, `mean_partner` and `worst_partner` (over seats and partners);
            and `effort/<seat>` in self-play.
        """
        numbers: dict[str, float] = {}
        strangers = []
        for cell, played in play_cells(self._task, self._cells, self._problems, self._engines, self._seed, self._limit):
            record = summarise(cell, played)
            if cell.partner == SELF_PLAY:
                numbers["self_play"] = record.solve_rate
                numbers[f"effort/{cell.seat}"] = record.effort_own
            else:
                numbers[f"{cell.partner}/{cell.seat}"] = record.solve_rate
                strangers.append(record.solve_rate)
        if strangers:
            numbers |= {"mean_partner": fmean(strangers), "worst_partner": min(strangers)}
        return numbers


def cells(
    task: Task,
    agents: Iterable[Agents],
    partners: Mapping[str, Mapping[str, Policy]],
    decodings: Sequence[str],
) -> list[Cell]:
    """Every agent in every seat with itself and with every partner.

    Args:
        task: Names the seats.
        agents: Of the runs.
        partners: By name, the policy for each seat.
        decodings: Keys of `DECODINGS`.
    """
    made = []
    for team in agents:
        for decoding in decodings:
            own = {
                seat: EnginePolicy(f"{team.run}:{adapter or 'base'}", team.engine, adapter, DECODINGS[decoding])
                for seat, adapter in team.heroes.items()
            }
            # Match names leave the run out: replies of all runs then have the same seeds, and differences are paired.
            together = Match(f"{SELF_PLAY}/{decoding}", own)
            for seat in task.seats:
                made.append(Cell(team, seat, SELF_PLAY, decoding, together))
                for name, policies in partners.items():
                    others = {other: decoded(policies[other], DECODINGS[decoding]) for other in task.seats}
                    match = Match(f"{seat}/{name}/{decoding}", {**others, seat: own[seat]})
                    made.append(Cell(team, seat, name, decoding, match))
    return made


def play_cells(
    task: Task,
    todo: Sequence[Cell],
    problems: Sequence[Problem],
    engines: Mapping[str, Engine],
    seed: int,
    max_reply_tokens: int | None = None,
    missing: dict[str, str] | None = None,
) -> Iterator[tuple[Cell, list[Episode]]]:
    """Play every cell on all problems, all at once; a match that several seats share, as in self-play, only once.

    Args:
        task: The rules.
        todo: What is played.
        problems: The same for every cell.
        engines: By name.
        seed: Of every reply's chance.
        max_reply_tokens: Token limit of a reply; the task's own if None.
        missing: Where a partner that is lost on the way is put, with its reason; its cells are left out then. None
            raises the error.
    """
    matches = {id(cell.match): cell.match for cell in todo}
    tables = [Table(problem, match) for match in matches.values() for problem in problems]
    lost: list[Policy] = []

    def on_lost(policy: Policy, error: UnavailableError) -> None:
        assert missing is not None
        lost.append(policy)
        for cell in todo:
            if policy in cell.match.seats.values() and cell.partner not in missing:
                _miss(missing, cell.partner, error)

    losing = None if missing is None else on_lost
    episodes = iter(play(task, tables, engines, seed=seed, max_reply_tokens=max_reply_tokens, on_lost=losing))
    whole = [key for key, match in matches.items() if not any(p in lost for p in match.seats.values())]
    played = {key: list(islice(episodes, len(problems))) for key in whole}
    for cell in todo:
        if cell.partner not in (missing or ()):
            yield cell, played[id(cell.match)]


def summarise(cell: Cell, episodes: Sequence[Episode]) -> Record:
    """Count a cell's episodes."""
    solved = sum(episode.outcome.solved for episode in episodes)
    counted: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        for name, value in episode.outcome.metrics.items():
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
        effort_own=fmean(episode.outcome.effort.get(cell.seat, 0.0) for episode in episodes),
        effort_partner=fmean(
            sum(effort for seat, effort in episode.outcome.effort.items() if seat != cell.seat) for episode in episodes
        ),
        metrics={name: fmean(values) for name, values in counted.items()} | reply_numbers(episodes),
    )


def write_results(
    out: Path,
    records: Sequence[Record],
    episodes: Sequence[dict[str, Any]],
    settings: Mapping[str, Any],
    missing: Mapping[str, str] | None = None,
) -> None:
    """Write `results.json` and `episodes.jsonl`; earlier files are replaced only once the new ones are whole."""
    out.mkdir(parents=True, exist_ok=True)
    results = {
        "records": [asdict(record) for record in records],
        "missing": [{"partner": partner, "reason": reason} for partner, reason in (missing or {}).items()],
        "settings": dict(settings),
    }
    for name, text in (
        ("results.json", json.dumps(results, indent=1)),
        ("episodes.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in episodes)),
    ):
        partial = out / f".{name}.partial"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(out / name)


def _episode_line(cell: Cell, episode: Episode) -> dict[str, Any]:
    return {
        "run": cell.agents.run,
        "arm": cell.agents.arm,
        "seat": cell.seat,
        "partner": cell.partner,
        "decoding": cell.decoding,
        "problem": episode.problem.id,
        "solved": episode.outcome.solved,
        "own_return": round(episode.total(cell.seat), 6),
        "effort": dict(episode.outcome.effort),
        "said": [[turn.seat, turn.reply.text] for turn in episode.turns],
    }


def _partners(studio: Studio, entries: Sequence[Entry]) -> tuple[dict[str, dict[str, Policy]], dict[str, str]]:
    """The policies of the partners that can be had, by seat, and why the others cannot."""
    partners: dict[str, dict[str, Policy]] = {}
    missing: dict[str, str] = {}
    for entry in entries:
        try:
            partners[entry.name] = studio.partner(entry)
        except CANNOT_BE_HAD as error:
            _miss(missing, entry.name, error)
    return partners, missing


def _miss(missing: dict[str, str], partner: str, error: Exception) -> None:
    reason = " ".join(str(error).split())  # it may hold what a server said
    missing[partner] = "".join(c if c.isprintable() else "?" for c in reason)[:LONGEST_REASON]
    logger.warning("partner %r is missing, the others are played: %s", partner, missing[partner])


def _task_of(opened: Sequence[Run]) -> Task:
    if not opened:
        raise RunError("no run to evaluate: name at least one")
    first = opened[0].config
    for run in opened[1:]:
        for key in ("task", "task_args", "max_completion_length"):
            if run.config[key] != first[key]:
                raise RunError(
                    f"{opened[0].path} and {run.path} do not compare: their {key} is {first[key]!r} and "
                    f"{run.config[key]!r}"
                )
    names = [run.name for run in opened]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(f"runs are told apart by their last two folders, and these are not: {', '.join(twice)}")
    return load_task(first["task"], first["task_args"])
