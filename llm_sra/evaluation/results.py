"""What an evaluation leaves: `results.json` and `episodes.jsonl`, written and read. No statistics here.

If a task names a headline metric, a share in [0, 1], `Results` has it in place of the share solved.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_sra.evaluation.best_responses import BestResponses
from llm_sra.evaluation.records import EvaluatedEpisode, Key, Record, Summary, TeamRecord
from llm_sra.files import json_lines, read_json_lines, to_json, write_whole, writing
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.untrusted import checked, parse_json, read_text

RESULTS, EPISODES = "results.json", "episodes.jsonl"
DIVERGENCE = "divergence/"  # how names of the metrics begin that `--divergence` adds
NORMAL = 1.959964  # 97.5 % quantile of the normal distribution
LARGEST = 256 << 20  # bytes of `results.json`


class ResultsError(ValueError):
    """Results are missing, or do not hold what is asked of them."""


@dataclass(frozen=True)
class Results:
    """One evaluation, or several of the same runs' task joined by `merge`.

    Attributes:
        records: As `llm_sra.evaluate` returns them; but with a headline, `solve_rate` is its mean.
        problems: By (run, seat, partner, decoding), the ids of the problems in the order in which they were played.
        solved: By the same key, whether each was solved, 0 or 1, or its headline: shape (problems,), in [0, 1].
        settings: See `Summary`, as of the rest.
        missing: By name, why a partner of the roster was not played.
        cross_play: Records of runs with each other.
        teams: Records of runs' teams with others in some of their seats.
        nats: By the same key, how far the partners' replies were from the training partners', Σ log p - log q over all
            of their seats: shape (problems,). Only where `--divergence` measured it.
        returns: By the same key, the agent's own return: shape (problems,), in units of the reward.
        best: What best responses to the partners earn, if that is known.
        kinds: By partner, its group; an earlier version did not write it.
    """

    records: tuple[Record, ...]
    problems: Mapping[Key, tuple[str, ...]]
    solved: Mapping[Key, NDArray[np.float64]]
    settings: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)
    cross_play: tuple[Record, ...] = ()
    teams: tuple[TeamRecord, ...] = ()
    nats: Mapping[Key, NDArray[np.float64]] = field(default_factory=dict)
    returns: Mapping[Key, NDArray[np.float64]] = field(default_factory=dict)
    best: BestResponses | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def measure(self) -> str:
        """What the shares measure, in words."""
        return self.settings.get("headline") or "share of problems solved"

    @property
    def idle(self) -> str | None:
        """The task's partner that does no work, if it names one."""
        return self.settings.get("idle")

    @property
    def interval_name(self) -> str:
        """How the intervals of records were computed."""
        return "score" if self.settings.get("headline") else "Wilson"

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs, in the order in which they were evaluated."""
        return tuple(dict.fromkeys(record.run for record in self.records))

    @property
    def seats(self) -> tuple[str, ...]:
        """Names of the seats."""
        return tuple(dict.fromkeys(record.seat for record in self.records))

    @property
    def partners(self) -> tuple[str, ...]:
        """Names of the roster's partners, in its order; self-play is not among them."""
        return tuple(dict.fromkeys(record.partner for record in self.records if record.partner != SELF_PLAY))

    @property
    def decodings(self) -> tuple[str, ...]:
        """`greedy`, `sampled` or both."""
        return tuple(dict.fromkeys(record.decoding for record in self.records))

    @cached_property
    def _records(self) -> Mapping[Key, Record]:
        return {record.key: record for record in self.records}

    @cached_property
    def _crossed(self) -> Mapping[Key, Record]:
        return {record.key: record for record in self.cross_play}

    def record(self, run: str, seat: str, partner: str, decoding: str) -> Record:
        """One record.

        Raises:
            ResultsError: If there is none.
        """
        found = self._records.get((run, seat, partner, decoding))
        if found is None:
            raise ResultsError(f"no record of run {run!r}, seat {seat!r}, partner {partner!r}, decoding {decoding!r}")
        return found

    def rate(self, runs: Iterable[str], seats: Sequence[str], partners: Sequence[str], decoding: str) -> float:
        """The share of problems solved, or the task's headline: mean over some runs, seats and partners, all alike.

        Raises:
            ResultsError: If one of them was not played.
        """
        each = product(runs, seats, partners)
        return fmean(self.record(run, seat, partner, decoding).solve_rate for run, seat, partner in each)

    def between(self, run: str, seat: str, other: str, decoding: str) -> Record | None:
        """A run with another, or with itself: None if they did not play."""
        if run == other:
            return self.record(run, seat, SELF_PLAY, decoding)
        return self._crossed.get((run, seat, other, decoding))

    def per_problem(self, run: str, decoding: str, partners: Sequence[str]) -> NDArray[np.float64]:
        """Of each problem, the share of seats and partners with whom a run solved it.

        Args:
            run: Its name.
            decoding: `greedy` or `sampled`.
            partners: Which, `self-play` included if wanted.

        Returns:
            Shape (problems,), in [0, 1], in the order of `problem_ids`.

        Raises:
            ResultsError: If the run did not play all of them on the same problems.
        """
        self.problem_ids(run, decoding, partners)
        keys = [(run, seat, partner, decoding) for seat in self.seats for partner in partners]
        return np.asarray(np.mean([self.solved[key] for key in keys], axis=0, dtype=np.float64))

    def problem_ids(self, run: str, decoding: str, partners: Sequence[str]) -> tuple[str, ...]:
        """The problems on which a run met these partners, in each seat.

        Raises:
            ResultsError: If they were not the same for all of them, or a partner was not met.
        """
        keys = [(run, seat, partner, decoding) for seat in self.seats for partner in partners]
        if not keys:
            raise ResultsError("no partner is named: give at least one")
        for key in keys:
            if key not in self.problems:
                raise ResultsError(f"no episodes of run {key[0]!r}, seat {key[1]!r}, partner {key[2]!r}, {key[3]}")
            if self.problems[key] != self.problems[keys[0]]:
                raise ResultsError(f"{key} and {keys[0]} were played on different problems, so they cannot be compared")
        return self.problems[keys[0]]


def write_results(
    out: Path, summary: Summary, episodes: Iterable[EvaluatedEpisode], best: BestResponses | None = None
) -> None:
    """Write `results.json` and `episodes.jsonl`; earlier files are replaced only once the new ones are whole.

    Args:
        out: Folder; made if missing.
        summary: What was counted.
        episodes: What it was counted from.
        best: What best responses to the partners earn, if that is known.

    Raises:
        ValueError: If a number is not finite; says where. Nothing is written then.
        OSError: If the disk does not take them.
    """
    results = {
        "records": [asdict(record) for record in summary.records],
        "missing": [{"partner": partner, "reason": reason} for partner, reason in summary.missing.items()],
        "settings": dict(summary.settings),
        **({"cross_play": [asdict(record) for record in summary.cross_play]} if summary.cross_play else {}),
        **({"teams": [asdict(record) for record in summary.teams]} if summary.teams else {}),
        **({"best_responses": asdict(best)} if best else {}),
        **({"kinds": dict(summary.kinds)} if summary.kinds else {}),
    }
    summary_text, lines = (
        to_json(results, indent=1, ensure_ascii=True) + "\n",
        json_lines(episode.line() for episode in episodes),
    )
    with writing("the results of the evaluation", out):
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / RESULTS, summary_text)
        write_whole(out / EPISODES, lines)


def read_summary(folder: str | Path) -> Summary:
    """Read `results.json` from an evaluation's folder.

    Raises:
        ResultsError: If it is missing, or not what an evaluation writes.
    """
    return _read(folder)[0]


def _read(folder: str | Path) -> tuple[Summary, BestResponses | None]:
    path = _existing(Path(folder) / RESULTS)
    try:
        loaded = parse_json(read_text(path, LARGEST))
        best = BestResponses.read(loaded["best_responses"]) if "best_responses" in loaded else None
        summary = Summary(
            records=tuple(Record.read(item) for item in loaded["records"]),
            settings=checked("settings", loaded.get("settings", {}), Mapping),
            missing={
                checked("partner", item["partner"], str): checked("reason", item["reason"], str)
                for item in loaded.get("missing", [])
            },
            cross_play=tuple(Record.read(item) for item in loaded.get("cross_play", ())),
            teams=tuple(TeamRecord.read(item) for item in loaded.get("teams", ())),
            kinds={
                str(name): checked("kind", kind, str)
                for name, kind in checked("kinds", loaded.get("kinds", {}), Mapping).items()
            },
        )
        return summary, best
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResultsError(f"{path} is not what `llm-sra eval` writes: {type(error).__name__} {error}") from error


def read_episodes(folder: str | Path) -> Iterator[EvaluatedEpisode]:
    """Read `episodes.jsonl` from an evaluation's folder.

    Raises:
        ResultsError: If it is missing, or a line is not what an evaluation writes.
    """
    path = _existing(Path(folder) / EPISODES)
    for number, item in read_json_lines(path):
        try:
            yield EvaluatedEpisode.read(item or {})
        except ValueError as error:
            raise ResultsError(f"{path}, line {number}: {error}") from error


def read_results(folder: str | Path) -> Results:
    """Read `results.json` and `episodes.jsonl` from an evaluation's folder.

    Raises:
        ResultsError: If one is missing, or they are not of one evaluation.
    """
    folder = Path(folder)
    summary, best = _read(folder)
    headline = summary.settings.get("headline")
    problems: dict[Key, list[str]] = {}
    solved: dict[Key, list[bool]] = {}
    shares: dict[Key, list[float]] = {}
    nats: dict[Key, list[float]] = {}
    returns: dict[Key, list[float]] = {}
    for line in read_episodes(folder):
        problems.setdefault(line.key, []).append(line.episode.problem)
        solved.setdefault(line.key, []).append(line.episode.solved)
        if line.seat in (earned := line.episode.returns):
            returns.setdefault(line.key, []).append(earned[line.seat])
        if headline and headline not in line.episode.metrics:
            raise ResultsError(f"{folder / EPISODES}: an episode of {line.key} lacks the headline {headline!r}")
        shares.setdefault(line.key, []).append(line.episode.metrics[headline] if headline else line.episode.solved)
        if apart := [n for name, n in line.episode.metrics.items() if name.startswith(DIVERGENCE)]:
            nats.setdefault(line.key, []).append(sum(apart))
    for record in (*summary.records, *summary.cross_play):
        found = solved.get(record.key, [])
        if (len(found), sum(found)) != (record.n, round(record.n * record.solve_rate)):
            raise ResultsError(
                f"{folder / RESULTS} and {folder / EPISODES} are not of one evaluation: they differ on {record.key}"
            )
    measured = {key: np.array(values, dtype=np.float64) for key, values in shares.items()}
    records, cross_play = (
        tuple(_with_headline(record, measured) if headline else record for record in part)
        for part in (summary.records, summary.cross_play)
    )
    ids = {key: tuple(found) for key, found in problems.items()}
    nats_by_key, returns_by_key = (
        {key: np.array(found, dtype=np.float64) for key, found in lists.items()} for lists in (nats, returns)
    )
    return Results(
        records, ids, measured, summary.settings, summary.missing, cross_play, summary.teams, nats_by_key,
        returns_by_key, best, summary.kinds,
    )  # fmt: skip


def merge(parts: Sequence[Results]) -> Results:
    """Join evaluations of different runs with one roster.

    Raises:
        ResultsError: If there are none, one run is in two of them, or their partners or settings differ.
    """
    if not parts:
        raise ResultsError("no results to merge")
    runs = [run for part in parts for run in part.runs]
    if twice := sorted({run for run in runs if runs.count(run) > 1}):
        raise ResultsError(f"evaluated more than once: {', '.join(twice)}")
    for part in parts[1:]:
        if set(part.partners) != set(parts[0].partners) or dict(part.settings) != dict(parts[0].settings):
            raise ResultsError(f"{part.runs} and {parts[0].runs} were not evaluated with one roster and one setting")
        if part.best != parts[0].best:
            raise ResultsError(
                f"{part.runs} and {parts[0].runs} were evaluated with different best responses: evaluate both again, "
                "which plays nothing twice"
            )
    return Results(
        tuple(record for part in parts for record in part.records),
        {key: ids for part in parts for key, ids in part.problems.items()},
        {key: flags for part in parts for key, flags in part.solved.items()},
        parts[0].settings,
        {partner: reason for part in parts for partner, reason in part.missing.items()},
        tuple(record for part in parts for record in part.cross_play),
        tuple(record for part in parts for record in part.teams),
        {key: found for part in parts for key, found in part.nats.items()},
        {key: found for part in parts for key, found in part.returns.items()},
        next((part.best for part in parts if part.best), None),
        {partner: kind for part in parts for partner, kind in part.kinds.items()},
    )


def labels(runs: Sequence[str]) -> dict[str, str]:
    """Short names: without the folder above, if all runs lie in the same one."""
    short = [run.rsplit("/", 1) for run in runs]
    same = len({tuple(parts[:-1]) for parts in short}) == 1
    return {run: parts[-1] if same else run for run, parts in zip(runs, short, strict=True)}


def _with_headline(record: Record, shares: Mapping[Key, NDArray[np.float64]]) -> Record:
    """The record with the mean of its headline and a 95 % score interval, in place of the share solved."""
    values = shares[record.key]
    return replace(record, solve_rate=float(values.mean()), solve_rate_ci95=score_interval(values))


def score_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of a mean of numbers in [0, 1]: Wilson's, for as many trials as would have their variance.

    Of zeros and ones it is Wilson's. It stays in [0, 1], and has a width even if all numbers are equal.

    Args:
        values: Shape (n,), 1 or more.
    """
    n, mean = len(values), float(values.mean())
    most = mean * (1 - mean)  # the variance of zeros and ones
    trials = n * most / max(float(values.var()), most / n) if most else n
    middle, reach = mean + NORMAL**2 / (2 * trials), NORMAL * (most / trials + (NORMAL / (2 * trials)) ** 2) ** 0.5
    low, high = ((middle + sign * reach) / (1 + NORMAL**2 / trials) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ResultsError(f"no {path}: expected an evaluation's folder, as `llm-sra eval --out` writes it")
    return path
