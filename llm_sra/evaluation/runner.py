"""Plays agents with partners that they were never trained with, and with each other.

`evaluate` opens runs, loads every model once and has played what no earlier evaluation left in the same folder;
`DevEvaluation` plays adapters that are being trained with the development roster. Statistics over several runs and
pictures are not made here.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from llm_sra.engines import ENGINES, Engine, EngineOptions
from llm_sra.errors import unknown
from llm_sra.evaluation.divergence import Usual, divergences, usual_partners
from llm_sra.evaluation.matches import DECODINGS, IDLE, Cell, Coalition, cells, coalitions, cross_cells, seated
from llm_sra.evaluation.missing import CHUNK, Processes, fill, play_specs
from llm_sra.evaluation.records import Record, episode_line, summarise, team_record, write_results
from llm_sra.evaluation.settings import setting_of, task_of
from llm_sra.evaluation.store import EpisodeRecord, Store, episode_key
from llm_sra.partners.loader import CANNOT_BE_HAD, Agents, PolicyLoader
from llm_sra.partners.rosters import SELF_PLAY, Entry, RosterError, read_roster
from llm_sra.playing import EpisodeSpec
from llm_sra.policies import Policy, UnavailableError
from llm_sra.runs import Run, RunError
from llm_sra.task import Episode, Problem, Task

__all__ = ["DECODINGS", "Agents", "Cell", "DevEvaluation", "PolicyLoader", "Record", "evaluate", "write_results"]
STORE = "store"  # folder of the episodes, below that of the results
LONGEST_REASON = 1000  # characters
logger = logging.getLogger(__name__)


def evaluate(
    run_paths: Sequence[str | Path | Run],
    roster: str | Path | None,
    out: str | Path | None = None,
    *,
    problems: int = 64,
    split: str = "test",
    decodings: Sequence[str] = tuple(DECODINGS),
    seed: int = 0,
    engine: EngineOptions | str = "transformers",
    cross_play: bool = False,
    contributions: bool = False,
    divergence: bool = False,
    task_args: Mapping[str, Any] | None = None,
    chunk: int = CHUNK,
    disable_tqdm: bool | None = None,
) -> list[Record]:
    """Play the agents of runs with every partner of a roster, in each seat, on the same problems for everyone.

    Each episode is kept in `out` as soon as it is played, under a hash of all that it depends on. What is there is not
    played again: after a kill, or with another run, partner or problem, only what is missing is. Under `accelerate
    launch` every process plays a share of it, and the first one writes the results.

    Args:
        run_paths: Run folders of one task.
        roster: YAML file; see `llm_sra.partners.rosters`. None: no partners.
        out: Folder for `results.json`, `episodes.jsonl` and the episodes in `store/`; nothing is written if None.
            `missing` in `results.json` names the partners that could not be had, or not to the end, and why: they have
            no records.
        problems: How many.
        split: `dev` or `test`.
        decodings: `greedy`, `sampled` or both.
        seed: Chooses the problems and every reply's chance.
        engine: What plays the runs' agents and all adapters on their base; other models are played by transformers.
        cross_play: Whether to play each run's agents with those of every other run, too.
        contributions: Whether to play each run's team with others in some of its seats, too: `teams` in `results.json`,
            from which follows what each agent contributes.
        divergence: Whether to measure, in sampled play, how far each partner is from the one that the agent was trained
            beside: `divergence/SEAT` among a record's metrics, in nats an episode, where the partner draws tokens from
            the same base. Takes the transformers engine.
        task_args: Options of the task that take the place of the runs' own: what agents do in a world that they were
            not trained in. Runs that were trained with unlike options compare if these make them alike.
        chunk: Most episodes at a time; changes what a kill can lose, not the results.
        disable_tqdm: Whether to do without the progress bar; None: where the output is not a terminal.

    Returns:
        One record per run, seat, partner that could be had, and decoding; with `cross_play`, after them, one per run,
        seat, other run and decoding.

    Raises:
        RunError: If a folder is not a run, or the runs do not compare, or two have the same name, or `task_args` change
            the seats.
        RosterError: If the roster cannot be used.
        StoreError: If `out` holds episodes of another task, or another evaluation writes there now.
        ValueError: If a decoding, the engine, the chunk or an option is unknown, or there are no problems.
        EngineError: If the engine cannot be had.
        PolicyError: If a scripted partner fails.
    """
    options = EngineOptions(kind=engine) if isinstance(engine, str) else engine
    opened = [path if isinstance(path, Run) else Run.open(path) for path in run_paths]
    entries = [] if roster is None else read_roster(roster)
    if divergence and options.kind != "transformers":
        raise ValueError("a partner's divergence is measured with the model in this process: engine transformers")
    _check(options.kind, decodings, chunk, opened, entries, cross_play)
    task = task_of(opened, task_args)
    chosen = task.problems(split, problems, seed)
    if not chosen:
        raise ValueError(f"no problems to play: asked for {problems} of the {split} split")
    processes = Processes()
    if processes.count > 1 and out is None:
        raise ValueError("several processes share their episodes in a folder: name it in `out`")
    limit = opened[0].config["max_completion_length"]
    with PolicyLoader(task, options, limit) as loader:
        agents = [loader.agents(run) for run in opened]
        partners, missing = _partners(loader, entries, agents)
        own = [cell for team in agents for cell in cells(task, team, partners[team.run], decodings)]
        crossed = cross_cells(task, agents, decodings) if cross_play else []
        teams = list(coalitions(task, agents, _idle(loader), decodings)) if contributions else []
        setting = {**setting_of(task, opened[0], task_args), "split": split, "seed": seed}
        usual = usual_partners([*own, *crossed]) if divergence else {}
        keys, wanted, compared = _plan([*own, *crossed, *teams], chosen, setting, loader, usual)

        def measure(keys: Sequence[str], episodes: Sequence[Episode]) -> list[dict[str, float]]:
            nats = divergences(task, episodes, [compared.get(key, {}) for key in keys], loader.engines)
            return [{f"divergence/{seat}": value for seat, value in each.items()} for each in nats]

        def on_lost(policy: Policy, error: UnavailableError) -> None:
            for cell in own:
                if policy in cell.match.seats.values() and cell.partner not in missing:
                    _miss(missing, cell.partner, error)

        with _opened_store(out, opened[0], processes) as store:
            played = store.read(wanted) if store else {}
            processes.joined({})  # before one of them writes
            how = {"seed": seed, "max_reply_tokens": limit, "chunk": chunk, "disable_tqdm": disable_tqdm}
            fill(
                task, wanted, played, loader.engines, processes=processes, on_lost=on_lost,
                measure=measure if divergence else None, store=store, **how,
            )  # fmt: skip
            missing = processes.joined(missing)
            if store and processes.count > 1:
                played = store.read(wanted)
    found = [
        [(cell, [played[key] for key in keys[id(cell.match)]]) for cell in part if cell.partner not in missing]
        for part in (own, crossed)
    ]
    records, crossing = ([summarise(*pair) for pair in part] for part in found)
    counted = [team_record(team, [played[key] for key in keys[id(team.match)]]) for team in teams]
    if out is not None and processes.rank == 0:
        lines = [episode_line(cell, episode) for part in found for cell, episodes in part for episode in episodes]
        settings = {"split": split, "seed": seed, "roster": str(roster or "")}
        settings |= {"task_args": dict(task_args)} if task_args else {}
        settings |= {"headline": task.headline} if task.headline else {}
        settings |= {"idle": task.idle} if task.idle else {}
        write_results(Path(out), records, lines, settings, missing, crossing, counted)
    return [*records, *crossing]


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
        loader = PolicyLoader(task)
        agents = Agents("training", "", heroes, "training")
        partners = {entry.name: loader.partner(entry, seated(agents)) for entry in read_roster(roster)}
        self._engines = {**loader.engines, "training": engine}
        self._cells = cells(task, agents, partners, ["sampled"])
        self._problems = task.problems("dev", problems, seed)

    def __call__(self) -> dict[str, float]:
        """Play, and count.

        Returns:
            Solve rates, or what the task has for its headline: `self_play`, `<partner>/<seat>`, `mean_partner` and
            `worst_partner` (over seats and partners); and `effort/<seat>` in self-play.
        """
        numbers: dict[str, float] = {}
        strangers = []
        specs = {
            (cell.match.name, problem.id): EpisodeSpec(problem, cell.match)
            for cell in self._cells
            for problem in self._problems
        }
        played: dict[tuple[str, str], EpisodeRecord] = {}
        for part, _ in play_specs(self._task, specs, self._engines, self._seed, self._limit):
            played |= part
        for cell in self._cells:
            record = summarise(cell, [played[cell.match.name, problem.id] for problem in self._problems])
            share = record.metrics[self._task.headline] if self._task.headline else record.solve_rate
            if cell.partner == SELF_PLAY:
                numbers["self_play"] = share
                numbers[f"effort/{cell.seat}"] = record.effort_own
            else:
                numbers[f"{cell.partner}/{cell.seat}"] = share
                strangers.append(share)
        if strangers:
            numbers |= {"mean_partner": fmean(strangers), "worst_partner": min(strangers)}
        return numbers


@contextmanager
def _opened_store(out: str | Path | None, run: Run, processes: Processes) -> Iterator[Store | None]:
    """The store of an evaluation's folder; None without a folder."""
    if out is None:
        yield None
        return
    store = Store(Path(out) / STORE, str(run.config["task"]).rsplit("/", 1)[-1], processes.rank)
    try:
        yield store
    finally:
        store.close()


def _plan(
    todo: Sequence[Cell | Coalition],
    problems: Sequence[Problem],
    setting: Mapping[str, Any],
    loader: PolicyLoader,
    usual: Mapping[int, Usual],
) -> tuple[dict[int, list[str]], dict[str, EpisodeSpec], dict[str, Usual]]:
    """The keys of each match's episodes, by the match's `id`; by key, what is played and with whom partners compare.

    Equal episodes are played once. `usual` says by match whom partners are compared with.
    """
    identity: Any = cache(loader.identity)
    keys: dict[int, list[str]] = {}
    specs: dict[str, EpisodeSpec] = {}
    compared: dict[str, Usual] = {}
    for match in (cell.match for cell in todo):
        if id(match) not in keys:
            seats = {seat: identity(match.seats[seat]) for seat in loader.task.seats}
            if whom := usual.get(id(match)):
                seats |= {f"{seat} compared": identity(policy) for seat, policy in whom.items()}
            keys[id(match)] = [episode_key(setting, match.name, seats, problem) for problem in problems]
            for key, problem in zip(keys[id(match)], problems, strict=True):
                specs.setdefault(key, EpisodeSpec(problem, match))
                if whom:
                    compared[key] = whom
    return keys, specs, compared


def _check(
    engine: str, decodings: Sequence[str], chunk: int, opened: Sequence[Run], entries: Sequence[Entry], cross_play: bool
) -> None:
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    for decoding in decodings:
        if decoding not in DECODINGS:
            raise unknown("decoding", decoding, DECODINGS)
    if chunk < 1:
        raise ValueError(f"a chunk has 1 episode or more, got {chunk}")
    if cross_play and len(opened) < 2:
        raise RunError(f"cross-play needs two runs or more, got {len(opened)}")
    names = {run.name for run in opened} if cross_play else set()
    if both := sorted(names & {entry.name for entry in entries}):
        raise RosterError(f"a partner and a run have one name, so results would not tell them apart: {', '.join(both)}")


def _idle(loader: PolicyLoader) -> Policy | None:
    """The task's partner that does no work."""
    name = loader.task.idle
    return None if name is None else next(iter(loader.partner(Entry(IDLE, "scripted", name)).values()))


def _partners(
    loader: PolicyLoader, entries: Sequence[Entry], agents: Sequence[Agents]
) -> tuple[dict[str, dict[str, dict[str, Policy]]], dict[str, str]]:
    """By run and name, the policies of the partners that can be had, by seat; and why the others cannot."""
    partners: dict[str, dict[str, dict[str, Policy]]] = {team.run: {} for team in agents}
    missing: dict[str, str] = {}
    for entry in entries:
        try:
            shared = None if entry.innermost.kind == "live" else loader.partner(entry)
            for team in agents:  # a live partner is each run's own
                partners[team.run][entry.name] = shared or loader.partner(entry, seated(team))
        except CANNOT_BE_HAD as error:
            _miss(missing, entry.name, error)
    return partners, missing


def _miss(missing: dict[str, str], partner: str, error: Exception) -> None:
    reason = " ".join(str(error).split())  # it may hold what a server said
    missing[partner] = "".join(c if c.isprintable() else "?" for c in reason)[:LONGEST_REASON]
    logger.warning("partner %r is missing, the others are played: %s", partner, missing[partner])
