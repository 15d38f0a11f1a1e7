"""Runs and arms of an evaluation: how each agent did, and how one run or arm differs from another.

The numbers come from `Results` and records; the mathematics is in the modules beside this one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from eval.stats.intervals import Estimate, StatsError, seed_interval
from eval.stats.power import seeds_needed
from eval.stats.resampling import hierarchical_bootstrap, paired_bootstrap
from eval.stats.shares import contribution_shares
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import Results
from llm_sra.partners.rosters import SELF_PLAY


@dataclass(frozen=True)
class Summary:
    """How one run's agent did in one seat, with its own partner and with strangers.

    Attributes:
        run: Name of the run.
        arm: Its objective.
        seat: The agent's seat.
        decoding: `greedy` or `sampled`.
        n: Problems per partner.
        self_play: Solve rate with its own partner, in [0, 1].
        partners: Solve rate with each partner of the roster, in the roster's order.
        mean: Mean of `partners`. `mean`, `worst` and `spread` are None if the roster is empty.
        worst: Smallest of `partners`; biased downwards, see `worst_partner`.
        spread: Largest - smallest of `partners`; grows with sampling noise, see `partner_spread`.
        effort: Its own effort in self-play, in the task's unit.
        contribution_share: Own effort in self-play as a share of all seats' effort, in [0, 1]. With two seats 0.5 is
            even, and 0 leaves all work to the other. None if no seat made an effort.
        reliance: Solve rate in self-play - solve rate with the task's idle partner, in [-1, 1]: how much the agent
            relies on its partner's work. None if it did not play with the idle partner.
    """

    run: str
    arm: str
    seat: str
    decoding: str
    n: int
    self_play: float
    partners: Mapping[str, float]
    mean: float | None
    worst: float | None
    spread: float | None
    effort: float
    contribution_share: float | None
    reliance: float | None


@dataclass(frozen=True)
class RunDifference:
    """The difference `later - first` of two runs, on the same problems with the same partners.

    Attributes:
        first: Name of the run that is compared with.
        later: Name of the other.
        decoding: `greedy` or `sampled`.
        resampled: Difference of the solve rate averaged over seats and partners; the problems are resampled.
        student: The same, with Student's t over the problems, cut to [-1, 1]; None with one problem.
    """

    first: str
    later: str
    decoding: str
    resampled: Estimate
    student: Estimate | None


@dataclass(frozen=True)
class ArmDifference:
    """The difference `later - first` of two arms over several seeds.

    Attributes:
        decoding: `greedy` or `sampled`.
        seeds: The seeds, in order.
        per_seed: The difference of each seed.
        problems_and_seeds: Mean of these differences, with problems and seeds resampled.
        over_seeds: The same mean, with Student's t over the seeds' differences, cut to [-1, 1]; None with one seed.
    """

    decoding: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    problems_and_seeds: Estimate
    over_seeds: Estimate | None

    @property
    def is_clear(self) -> bool:
        """Whether no interval contains 0.

        Resampling a few seeds understates how they vary: with 2 to 5 seeds its interval alone leaves out 0 in 10 to
        25 % of comparisons without a difference. Student's t over the seeds knows nothing of the choice of problems.
        With one seed the interval over problems decides, and speaks of these two runs alone.
        """
        return all(one.leaves_out_zero for one in (self.problems_and_seeds, self.over_seeds) if one is not None)

    @property
    def seeds_needed(self) -> int | None:
        """How many seeds show a difference of this size with these seeds' spread; None if that cannot be told."""
        if len(self.per_seed) < 2 or fmean(self.per_seed) == 0:
            return None
        return seeds_needed(fmean(self.per_seed), stdev(self.per_seed))


def summarise(records: Sequence[Record], idle: str | None = None) -> list[Summary]:
    """One summary per run, decoding and seat, in the order of the records.

    Args:
        records: Records of agents with partners and in self-play.
        idle: Name of the partner that does no work, if there is one.

    Raises:
        StatsError: If one of them has no record of self-play, or an effort is negative.
    """
    groups: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in records:
        groups.setdefault((record.run, record.decoding, record.seat), {})[record.partner] = record
    for key, by_partner in groups.items():
        if SELF_PLAY not in by_partner:
            raise StatsError(f"no record of {SELF_PLAY} for run, decoding, seat {key}")
    return [_summary(by_partner, idle) for by_partner in groups.values()]


def compare_runs(results: Results, first: str, later: str, decoding: str, partners: Sequence[str]) -> RunDifference:
    """The difference `later - first` of two runs with some partners.

    Raises:
        ResultsError: If they did not play the same partners on the same problems.
        StatsError: As `paired_bootstrap`.
    """
    (a,), (b,) = _paired(results, [first], [later], decoding, partners)
    student = seed_interval(a, b).within(-1, 1) if len(a) > 1 else None
    return RunDifference(first, later, decoding, paired_bootstrap(a, b), student)


def compare_arms(
    results: Results,
    first: Mapping[int, str],
    later: Mapping[int, str],
    decoding: str,
    partners: Sequence[str] | None = None,
) -> ArmDifference:
    """The difference `later - first` of two arms, their seeds paired by number.

    Args:
        results: Results of all their runs.
        first: Name of the run of each seed.
        later: The same of the other arm.
        decoding: `greedy` or `sampled`.
        partners: Partners over which, with all seats, the solve rate is averaged; None: all of the roster.

    Raises:
        StatsError: If the arms do not have the same seeds.
        ResultsError: If the runs did not play the same partners on the same problems.
    """
    if set(first) != set(later) or not first:
        raise StatsError(f"both arms need the same seeds, got {sorted(first)} and {sorted(later)}")
    seeds = tuple(sorted(first))
    runs = [first[number] for number in seeds], [later[number] for number in seeds]
    a, b = _paired(results, *runs, decoding, results.partners if partners is None else partners)
    over_seeds = seed_interval(a.mean(axis=1), b.mean(axis=1)).within(-1, 1) if len(seeds) > 1 else None
    per_seed = tuple(float(value) for value in (b - a).mean(axis=1))
    return ArmDifference(decoding, seeds, per_seed, hierarchical_bootstrap(a, b), over_seeds)


def _paired(
    results: Results, first: Sequence[str], later: Sequence[str], decoding: str, partners: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outcomes of shape (runs, problems) on both sides; all on the same problems."""
    runs = [*first, *later]
    ids = {run: results.problem_ids(run, decoding, partners) for run in runs}
    for run in runs[1:]:
        if ids[run] != ids[runs[0]]:
            raise StatsError(f"runs {runs[0]!r} and {run!r} played different problems, so they cannot be paired")
    outcomes = {run: results.per_problem(run, decoding, partners) for run in runs}
    return np.stack([outcomes[run] for run in first]), np.stack([outcomes[run] for run in later])


def _summary(by_partner: Mapping[str, Record], idle: str | None) -> Summary:
    own = by_partner[SELF_PLAY]
    rates = {name: record.solve_rate for name, record in by_partner.items() if name != SELF_PLAY}
    shares = contribution_shares({"own": own.effort_own, "others": own.effort_partner})
    return Summary(
        run=own.run,
        arm=own.arm,
        seat=own.seat,
        decoding=own.decoding,
        n=own.n,
        self_play=own.solve_rate,
        partners=rates,
        mean=fmean(rates.values()) if rates else None,
        worst=min(rates.values()) if rates else None,
        spread=max(rates.values()) - min(rates.values()) if rates else None,
        effort=own.effort_own,
        contribution_share=shares["own"] if shares else None,
        reliance=own.solve_rate - rates[idle] if idle in rates else None,
    )
