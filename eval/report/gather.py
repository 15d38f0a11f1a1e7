"""Reads what is known about runs: their folders, the evaluations that hold them, the roster. Computes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.groups import Group, groups
from llm_sra.evaluation.results import RESULTS, Results, ResultsError, merge, read_results
from llm_sra.evaluation.single.results import SINGLE, Single, read_single
from llm_sra.partners.rosters import Entry, read_roster
from llm_sra.runs import Run, read_metrics


class ReportError(ValueError):
    """There is nothing to report on; says what to run first."""


@dataclass(frozen=True)
class Gathered:
    """What is known about the runs of a report.

    Attributes:
        runs: The runs, in the order in which they were named.
        groups: Groups of runs that differ only in their seed.
        results: Results of those runs that were evaluated.
        folders: By run, the folder of its evaluation.
        unevaluated: Names of the runs that no evaluation holds.
        metrics: By run, the lines of its `metrics.jsonl`.
        roster: Entries of the roster; None if it was not given.
        singles: What lm-eval said of the runs, from each folder that holds something of them.
    """

    runs: tuple[Run, ...]
    groups: tuple[Group, ...]
    results: Results
    folders: Mapping[str, Path]
    unevaluated: tuple[str, ...]
    metrics: Mapping[str, Sequence[Mapping[str, Any]]]
    roster: tuple[Entry, ...] | None
    singles: tuple[Single, ...] = ()

    @property
    def decoding(self) -> str:
        """The decoding that is shown first: `sampled`, as in training, if it was played."""
        return "sampled" if "sampled" in self.results.decodings else self.results.decodings[0]

    @property
    def known(self) -> tuple[Group, ...]:
        """Groups with at least one run in the results."""
        return tuple(group for group in self.groups if self.evaluated(group))

    def run(self, name: str) -> Run:
        """The run of that name."""
        return next(run for run in self.runs if run.name == name)

    def evaluated(self, group: Group) -> dict[int, str]:
        """By seed, the runs of a group that the results hold."""
        return {seed: run for seed, run in group.runs.items() if run in self.results.runs}

    def rate(self, group: Group, partner: str) -> float:
        """The share of problems solved with a partner, mean over a group's runs and the seats."""
        return self.results.rate(self.evaluated(group).values(), self.results.seats, [partner], self.decoding)


def gather(
    runs: Sequence[Run], evaluations: Sequence[str | Path] | None = None, roster: str | Path | None = None
) -> Gathered:
    """Read everything.

    Args:
        runs: The runs to report on.
        evaluations: Folders that `llm-sra eval --out` wrote, each of one run or more; if empty, `RUN/report` of each
            run.
        roster: Roster of the evaluations, which says how much perturbed partners are perturbed.

    Raises:
        ReportError: If no evaluation holds any of the runs, or two hold the same one.
        ResultsError: If the evaluations do not belong together.
        SingleError: If what lm-eval said cannot be read.
        RosterError: If the roster cannot be used.
    """
    results, folders = _find(runs, evaluations)
    return Gathered(
        runs=tuple(runs),
        groups=groups(runs),
        results=results,
        folders=folders,
        unevaluated=tuple(run.name for run in runs if run.name not in folders),
        metrics={run.name: read_metrics(run.path / "metrics.jsonl") for run in runs},
        roster=None if roster is None else tuple(read_roster(roster)),
        singles=_singles(runs, evaluations),
    )


def _find(runs: Sequence[Run], evaluations: Sequence[str | Path] | None) -> tuple[Results, dict[str, Path]]:
    """The runs' results joined, in the order of the runs, and the folder of each."""
    own = {run.name: run.path / "report" for run in runs}
    named = [Path(folder) for folder in evaluations or ()]
    there = [folder for folder in own.values() if (folder / RESULTS).is_file()]
    played = [folder for folder in named if (folder / RESULTS).is_file() or not (folder / SINGLE).is_file()]
    read = {folder.resolve(): read_results(folder) for folder in (played if named else there)}
    folders: dict[str, Path] = {}
    for run in runs:
        holding = [folder for folder, results in read.items() if run.name in results.runs]
        if not named and own[run.name].resolve() in holding:
            holding = [own[run.name].resolve()]
        if len(holding) > 1:
            raise ReportError(f"{run.name} is in {' and in '.join(map(str, holding))}: name one of them with --eval")
        if holding:
            folders[run.name] = holding[0]
    if not folders:
        raise ReportError(_nothing(runs, named, read))
    parts = [_only(read[folders[run.name]], run.name) for run in runs if run.name in folders]
    return _joined(parts), folders


def _singles(runs: Sequence[Run], evaluations: Sequence[str | Path] | None) -> tuple[Single, ...]:
    """What lm-eval said of the runs, by folder."""
    names = [run.name for run in runs]
    folders = [Path(folder) for folder in evaluations or ()] or [run.path / "report" for run in runs]
    parts = [found.of(names) for folder in dict.fromkeys(folders) if (found := read_single(folder))]
    return tuple(part for part in parts if part.records)


def _nothing(runs: Sequence[Run], named: Sequence[Path], read: Mapping[Path, Results]) -> str:
    names = ", ".join(run.name for run in runs)
    held = sorted({run for results in read.values() for run in results.runs})
    where = (
        f"{' '.join(map(str, named))} (which hold {', '.join(held) or 'no run'})"
        if named
        else " or ".join(str(run.path / "report") for run in runs[:3])
    )
    paths = " ".join(_argument(run) for run in runs)
    out = named[0] if named else runs[0].path / "report"
    return f"no evaluation of {names} in {where}: run llm-sra eval --run {paths} --roster ROSTER --out {out}"


def _argument(run: Run) -> str:
    return f"{run.path}@{run.checkpoint}" if run.checkpoint else str(run.path)


def _only(results: Results, run: str) -> Results:
    """One run's part."""
    return Results(
        tuple(record for record in results.records if record.run == run),
        {key: ids for key, ids in results.problems.items() if key[0] == run},
        {key: flags for key, flags in results.solved.items() if key[0] == run},
        results.settings,
        results.missing,
        tuple(record for record in results.cross_play if record.run == run),
        tuple(record for record in results.teams if record.run == run),
        {key: nats for key, nats in results.nats.items() if key[0] == run},
        {key: earned for key, earned in results.returns.items() if key[0] == run},
        results.best,
        results.kinds,
    )


def _joined(parts: Sequence[Results]) -> Results:
    try:
        return merge(parts)
    except ResultsError as error:
        raise ResultsError(
            f"{error}: evaluate all runs alike (llm-sra eval --run RUN RUN ... --roster ROSTER)"
        ) from error
