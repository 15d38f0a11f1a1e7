"""Plays agents with partners that they were never trained with, and counts.

`evaluate` opens runs, loads every model once and plays all matches; `DevEvaluation` does the same with adapters that
are being trained, for the development roster. Statistics over several runs and pictures are not made here.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import binomtest

from llm_sra.adapters import AdapterBank, AdapterError, read_config
from llm_sra.engines import Engine
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.loading import load_partner, load_task
from llm_sra.models import load_model
from llm_sra.play import Table, play
from llm_sra.policies import EnginePolicy, Match, Policy, Scripted
from llm_sra.render import Renderer
from llm_sra.rosters import SELF_PLAY, Entry, read_roster
from llm_sra.runs import Run, RunError
from llm_sra.task import Episode, Problem, Sampling, Task

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


@dataclass(frozen=True)
class Agents:
    """The policies of one run, ready to be seated.

    Attributes:
        run: Name of the run.
        arm: Its objective.
        heroes: Adapter of each seat, as the engine knows it.
        engine: Name of the engine.
    """

    run: str
    arm: str
    heroes: Mapping[str, str | None]
    engine: str


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
) -> list[Record]:
    """Play the agents of runs with every partner of a roster, in each seat, on the same problems for everyone.

    Args:
        run_paths: Run folders of one task.
        roster: YAML file; see `llm_sra.rosters`.
        out: Folder for `results.json` and `episodes.jsonl`; nothing is written if None.
        problems: How many.
        split: `dev` or `test`.
        decodings: `greedy`, `sampled` or both.
        seed: Chooses the problems and every reply's chance.

    Returns:
        One record per run, seat, partner and decoding.

    Raises:
        RunError: If a folder is not a run, or the runs are of different tasks.
        RosterError: If the roster cannot be used.
    """
    opened = [path if isinstance(path, Run) else Run.open(path) for path in run_paths]
    entries = read_roster(roster)
    task = _task_of(opened)
    chosen = task.problems(split, problems, seed)
    studio = Studio(task)
    agents = [studio.agents(run) for run in opened]
    partners = {entry.name: studio.partner(entry) for entry in entries}
    records, episodes = [], []
    for cell, played in play_cells(task, cells(task, agents, partners, decodings), chosen, studio.engines, seed):
        records.append(summarise(cell, played))
        episodes += [_episode_line(cell, episode) for episode in played]
    if out is not None:
        write_results(Path(out), records, episodes, {"split": split, "seed": seed, "roster": str(roster)})
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
    """

    def __init__(
        self, task: Task, heroes: Mapping[str, str], engine: Engine, roster: str | Path, problems: int, seed: int
    ) -> None:
        self._task, self._seed = task, seed
        studio = Studio(task)
        partners = {entry.name: studio.partner(entry) for entry in read_roster(roster)}
        self._engines = {**studio.engines, "training": engine}
        agents = Agents("training", "", heroes, "training")
        self._cells = cells(task, [agents], partners, ["sampled"])
        self._problems = task.problems("dev", problems, seed)

    def __call__(self) -> dict[str, float]:
        """`self_play`, `<partner>/<seat>`, `mean_partner` and `worst_partner` (over seats and partners), as solve
        rates; `effort/<seat>` in self-play."""
        numbers: dict[str, float] = {}
        strangers = []
        for cell, played in play_cells(self._task, self._cells, self._problems, self._engines, self._seed):
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
                    others = {other: _decoded(policies[other], decoding) for other in task.seats}
                    match = Match(f"{seat}/{name}/{decoding}", {**others, seat: own[seat]})
                    made.append(Cell(team, seat, name, decoding, match))
    return made


def play_cells(
    task: Task, todo: Sequence[Cell], problems: Sequence[Problem], engines: Mapping[str, Engine], seed: int
) -> Iterator[tuple[Cell, list[Episode]]]:
    """Play every cell on all problems; self-play once for all seats of a run."""
    together: dict[tuple[str, str], list[Episode]] = {}
    for cell in todo:
        key = (cell.agents.run, cell.decoding)
        if cell.partner == SELF_PLAY and key in together:
            yield cell, together[key]
            continue
        played = play(task, [Table(problem, cell.match) for problem in problems], engines, seed=seed)
        if cell.partner == SELF_PLAY:
            together[key] = played
        yield cell, played


def summarise(cell: Cell, episodes: Sequence[Episode]) -> Record:
    """Count a cell's episodes."""
    solved = sum(episode.outcome.solved for episode in episodes)
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
    )


def write_results(
    out: Path, records: Sequence[Record], episodes: Sequence[dict[str, Any]], settings: Mapping[str, Any]
) -> None:
    """Write `results.json` and `episodes.jsonl`; earlier files are replaced only once the new ones are whole."""
    out.mkdir(parents=True, exist_ok=True)
    results = {"records": [asdict(record) for record in records], "settings": dict(settings)}
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


def _decoded(policy: Policy, decoding: str) -> Policy:
    if isinstance(policy, EnginePolicy):
        return EnginePolicy(policy.name, policy.engine, policy.adapter, DECODINGS[decoding])
    return policy


def _task_of(opened: Sequence[Run]) -> Task:
    if not opened:
        raise RunError("no run to evaluate: name at least one")
    first = opened[0].config
    for run in opened[1:]:
        if (run.config["task"], run.config["task_args"]) != (first["task"], first["task_args"]):
            raise RunError(f"{opened[0].path} and {run.path} are of different tasks, so their results do not compare")
    return load_task(first["task"], first["task_args"])


class Studio:
    """Loads each base model once, and every adapter onto its own base."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.engines: dict[str, Engine] = {}
        self._banks: dict[str, AdapterBank] = {}

    def agents(self, run: Run) -> Agents:
        """The final heroes of a run."""
        base = str(run.config["model_name_or_path"])
        heroes = {}
        for seat, name in run.heroes.items():
            heroes[seat] = self._adapter(base, run.adapters / name, run.config)
        return Agents(run.name, str(run.config["arm"]), heroes, base)

    def partner(self, entry: Entry) -> dict[str, Policy]:
        """The policy of a roster's entry for each seat."""
        if entry.kind == "scripted":
            return dict.fromkeys(self.task.seats, Scripted(entry.name, load_partner(entry.policy, self.task)))
        if entry.kind == "model":
            self._engine(entry.policy, entry.options)
            return dict.fromkeys(self.task.seats, EnginePolicy(entry.name, entry.policy))
        policies: dict[str, Policy] = {}
        for seat in self.task.seats:
            folder = Path(entry.policy.replace("{seat}", seat))
            base = str(entry.options.get("base") or read_config(folder).base_model_name_or_path)
            policies[seat] = EnginePolicy(entry.name, *self._placed(base, folder))
        return policies

    def _placed(self, base: str, folder: Path) -> tuple[str, str]:
        """Engine and adapter name of a saved adapter, on a loaded base of the same weights if there is one."""
        for name, bank in self._banks.items():
            try:
                return name, self._load(bank, folder)
            except AdapterError as error:
                logger.debug("adapter %s is not of base %s: %s", folder, name, error)
        return base, self._adapter(base, folder, {})

    def _adapter(self, base: str, folder: Path, config: Mapping[str, Any]) -> str:
        if base not in self.engines:
            self._engine(base, config)
        return self._load(self._banks[base], folder)

    @staticmethod
    def _load(bank: AdapterBank, folder: Path) -> str:
        name = "-".join(part for part in folder.resolve().parts[1:]).replace(".", "_").replace(" ", "_")
        if name not in bank.names:
            bank.load(folder, name)
        return name

    def _engine(self, base: str, config: Mapping[str, Any]) -> None:
        if base in self.engines:
            return
        model, tokenizer = load_model(
            base, dtype=config.get("dtype"), trust_remote_code=bool(config.get("trust_remote_code", False))
        )
        bank = AdapterBank(model)
        self._banks[base] = bank
        renderer = Renderer(tokenizer, config.get("chat_template_kwargs"))
        self.engines[base] = TransformersEngine(bank, renderer, int(config.get("rollout_batch_size") or 256))
