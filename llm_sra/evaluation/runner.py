"""`evaluate`: plays agents with partners that they were never trained with, and with each other.

Three steps: plan who meets whom, play what no earlier evaluation left in the same folder, count and write. Statistics
over several runs, tables and pictures are `eval`'s.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from llm_sra.evaluation.best_responses import find_best_responses, usable
from llm_sra.evaluation.options import EvaluationKeywords, EvaluationOptions
from llm_sra.evaluation.plan import Plan, Planned, make_plan
from llm_sra.evaluation.play_missing import Played, Processes, play_missing
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary, cell_record, team_record
from llm_sra.evaluation.results import write_results
from llm_sra.evaluation.settings import Setting, options_of, task_of
from llm_sra.evaluation.store import Store
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry, RosterError, read_playable
from llm_sra.protocol.check import require_task
from llm_sra.protocol.rules import Rules
from llm_sra.runs import Run, RunError

STORE = "store"  # folder of the episodes, below that of the results


def evaluate(
    runs: Sequence[str | Path | Run],
    roster: str | Path | None,
    out: str | Path | None = None,
    **keywords: Unpack[EvaluationKeywords],
) -> list[Record]:
    """Play the agents of runs with every partner of a roster, in each seat, on the same problems for everyone.

    Each episode is kept in `out` as soon as it has ended, under a hash of all that it depends on. What is there is not
    played again: after a kill, or with another run, partner or problem, only what is missing is. Under `accelerate
    launch` every process plays a share of it, and the first one writes the results.

    Args:
        runs: Run folders of one task.
        roster: A YAML file (see `llm_sra.partners.rosters`) or the name of a shipped roster. None: no partners.
        out: Folder for `results.json`, `episodes.jsonl` and the episodes in `store/`; nothing is written if None.
            `missing` in `results.json` names the partners that were not available, or not to the end, and why: they
            have no records.
        **keywords: The fields of `llm_sra.evaluation.options.EvaluationOptions`: `problems`, `split`, `seed`,
            `task_args`, `decodings`, `cross_play`, `contributions`, `divergence`, `engine`, `chunk`, `disable_tqdm`,
            `trust_remote_code`, `trust_task`, `trust_scripts`, `best_responses`.

    Returns:
        One record per run, seat, available partner and decoding; with `cross_play`, after them, one per run, seat,
        other run and decoding.

    Raises:
        RunError: If a folder is not a run, or the runs cannot be compared, or two have the same name, or `task_args`
            change the seats.
        RosterError: If the roster cannot be used, or names Python that may not run.
        BestResponseError: If the file of best responses cannot be used.
        StoreError: If `out` holds episodes of another task, or another evaluation writes there now.
        ValueError: If an option is unknown or cannot be used, or there are no problems.
        EngineError: If the engine cannot be started.
        PolicyError: If an agent of a run fails. Partners that do are missing, or lost, with the reason.
        AdapterError, ModelError: If an agent's weights cannot be used.
        TaskError: If the task does not keep to its protocol; its first episode is checked with stand-in replies.
    """
    options = EvaluationOptions.of(keywords)
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    entries = []
    if roster is not None:
        entries = read_playable(
            roster, trust_scripts=options.trust_scripts, trust_remote_code=options.trust_remote_code
        )
    if options.cross_play:
        _check_cross_play(opened, entries)
    found = find_best_responses(roster, options.best_responses)
    task = task_of(opened, options.task_args, options.trust_task)
    processes = Processes()
    require_task(task, options.seed, quiet=processes.rank > 0)
    problems = Rules(task).problems(options.split, options.problems, options.seed)
    if not problems:
        raise ValueError(f"no problems to play: asked for {options.problems} of the {options.split} split")
    if processes.count > 1 and out is None:
        raise ValueError("several processes share their episodes in a folder: name it in `out`")
    limit = opened[0].config["max_completion_length"]
    with PolicyLoader(task, options.engine_options, limit, trust_remote_code=options.trust_remote_code) as loader:
        setting = Setting(
            task,
            loader.engines,
            problems,
            split=options.split,
            seed=options.seed,
            max_reply_tokens=limit,
            task_args=options_of(opened[0], options.task_args),
            chunk=options.chunk,
            disable_tqdm=options.disable_tqdm,
        )
        plan = make_plan(setting, loader, opened, entries, options)
        with _opened_store(out, opened[0], processes) as store:
            played = play_missing(setting, plan, store, processes)
    kinds = {entry.name: entry.counted_as for entry in entries}
    summary, episodes = _counted(plan, played, _described(setting, roster, options), kinds)
    if found is not None:
        found = usable(found, task, str(opened[0].config["task"]), setting.task_args, entries)
    if out is not None and processes.rank == 0:
        write_results(Path(out), summary, episodes, found)
    return [*summary.records, *summary.cross_play]


def _counted(
    plan: Plan, played: Played, settings: dict[str, Any], kinds: Mapping[str, str]
) -> tuple[Summary, list[EvaluatedEpisode]]:
    """The results of everyone who was available, and their episodes, each as one agent's."""

    def episodes_of(planned: Planned[Any]) -> list[Any]:
        return [played.episodes[key] for key in planned.keys]

    lines: list[EvaluatedEpisode] = []
    counted: list[list[Record]] = []
    for part in (plan.with_partners, plan.cross_play):
        records = []
        for planned in part:
            cell = planned.pairing
            if cell.partner not in played.unavailable:
                episodes = episodes_of(planned)
                records.append(cell_record(cell, episodes))
                whose = cell.team.run, cell.team.arm, cell.seat, cell.partner, cell.decoding
                lines += [EvaluatedEpisode(*whose, episode) for episode in episodes]
        counted.append(records)
    own, crossed = counted
    teams = [team_record(planned.pairing, episodes_of(planned)) for planned in plan.teams]
    return Summary(tuple(own), settings, played.unavailable, tuple(crossed), tuple(teams), kinds), lines


def _described(setting: Setting, roster: str | Path | None, options: EvaluationOptions) -> dict[str, Any]:
    """`settings` of `results.json`."""
    task = setting.task
    return {
        "split": setting.split,
        "seed": setting.seed,
        "roster": str(roster or ""),
        **({"task_args": dict(options.task_args)} if options.task_args else {}),
        **({"headline": task.headline} if task.headline else {}),
        **({"idle": task.idle} if task.idle else {}),
    }


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


def _check_cross_play(runs: Sequence[Run], entries: Sequence[Entry]) -> None:
    if len(runs) < 2:
        raise RunError(f"cross-play needs two runs or more, got {len(runs)}")
    if both := sorted({run.name for run in runs} & {entry.name for entry in entries}):
        raise RosterError(
            f"a partner and a run have one name, so results could not say which is meant: {', '.join(both)}. Rename "
            "the partner"
        )
