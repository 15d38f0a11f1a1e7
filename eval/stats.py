"""Numbers of an evaluation: intervals, paired differences between runs and arms, and what says who works.

The first half is pure functions of arrays; the second half applies them to results. All intervals are two-sided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest
from scipy.stats import t as student_t

from eval.results import Results
from llm_sra.evaluation import Record
from llm_sra.rosters import SELF_PLAY

LAZY = "lazy"
LEVEL = 0.95
RESAMPLES = 10_000
CHUNK = 4_000_000  # numbers held at once while resampling


class StatsError(ValueError):
    """Numbers from which nothing can be computed; says what was expected."""


@dataclass(frozen=True)
class Estimate:
    """A number and its interval.

    Attributes:
        value: The estimate itself.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """How one run's agent did in one seat, with its own partner and with strangers.

    Attributes:
        run: Name of the run.
        arm: Its objective.
        seat: Where the agent sat.
        decoding: `greedy` or `sampled`.
        n: Problems per partner.
        self_play: Solve rate with its own partner, in [0, 1].
        partners: Solve rate with each partner of the roster, in the roster's order.
        mean: Of `partners`; None if the roster is empty, as are the next two.
        worst: Smallest of `partners`.
        spread: Largest of `partners` less the smallest.
        effort: Its own effort in self-play, in the task's unit.
        contribution_share: Own effort in self-play over all seats' effort, in [0, 1]; with two seats 0.5 is even and
            0 rests on the other. None if nobody made any.
        reliance: Solve rate in self-play less that with the partner named `lazy`, in [-1, 1]: what the agent owes to
            its partner's work. None if the roster has no `lazy`.
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
    """A later run less the first, on the same problems with the same partners.

    Attributes:
        first: Name of the run that is compared with.
        later: Name of the other.
        decoding: `greedy` or `sampled`.
        mean: Difference of the solve rate averaged over seats and partners; the problems are resampled. None if the
            roster is empty.
        self_play: The same with their own partners.
    """

    first: str
    later: str
    decoding: str
    mean: Estimate | None
    self_play: Estimate


@dataclass(frozen=True)
class ArmDifference:
    """One arm less another over several seeds.

    Attributes:
        decoding: `greedy` or `sampled`.
        seeds: Which, in order.
        per_seed: Difference of each seed.
        problems_and_seeds: Their mean, with problems and seeds resampled.
        over_seeds: Their mean, with Student's t over the seeds' differences; None with one seed.
    """

    decoding: str
    seeds: tuple[int, ...]
    per_seed: tuple[float, ...]
    problems_and_seeds: Estimate
    over_seeds: Estimate | None


def wilson(solved: int, n: int, level: float = LEVEL) -> Estimate:
    """A share and its Wilson score interval.

    Args:
        solved: How many, in 0..n.
        n: Of how many, 1 or more.
        level: Confidence, in (0, 1).

    Raises:
        ValueError: If the counts make no share.
    """
    interval = binomtest(solved, n).proportion_ci(level, method="wilson")
    return Estimate(solved / n, float(interval.low), float(interval.high))


def paired_bootstrap(
    first: ArrayLike, later: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean difference of two runs' outcomes on the same problems, with a percentile interval over the problems.

    What it covers is the choice of problems; both runs, and the partners they met, are taken as they are.

    Args:
        first: Outcome per problem, shape (problems,).
        later: The same of the other run, in the same order.
        level: Confidence, in (0, 1).
        resamples: How often the problems are drawn.
        seed: Of the draws.

    Returns:
        `later` less `first`.

    Raises:
        StatsError: If the shapes differ or are empty, or a number is not finite.
    """
    return hierarchical_bootstrap(
        np.atleast_2d(np.asarray(first, dtype=np.float64)),
        np.atleast_2d(np.asarray(later, dtype=np.float64)),
        level=level,
        resamples=resamples,
        seed=seed,
    )


def hierarchical_bootstrap(
    first: ArrayLike, later: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean difference of two arms, with a percentile interval over seeds and problems.

    Each time seeds are drawn with replacement, and problems with replacement, the same problems for all seeds and
    both arms: all seeds play the same problems, so drawing afresh within each seed would count the problems' common
    difficulty as noise that averages out (A. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007;
    the interval errs on the wide side where seeds and problems interact). Few seeds are drawn from few: below about
    ten of them look at `seed_interval` too.

    Args:
        first: Outcome per seed and problem, shape (seeds, problems).
        later: The same of the other arm; a row is the same seed, a column the same problem.
        level: Confidence, in (0, 1).
        resamples: How often seeds and problems are drawn.
        seed: Of the draws.

    Returns:
        `later` less `first`.

    Raises:
        StatsError: If the shapes differ or are empty, or a number is not finite.
    """
    difference = _differences(first, later, dimensions=2)
    seeds, problems = difference.shape
    rng = np.random.default_rng(seed)
    at_once = max(1, CHUNK // difference.size)
    means = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        rows = rng.integers(seeds, size=(count, seeds))
        columns = rng.integers(problems, size=(count, problems))
        means.append(difference[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2)))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(difference.mean()), float(low), float(high))


def seed_interval(first: ArrayLike, later: ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean difference of two arms over paired seeds, with Student's t interval.

    Args:
        first: One number per seed, shape (seeds,), 2 seeds or more.
        later: The same of the other arm, in the same order.
        level: Confidence, in (0, 1).

    Returns:
        `later` less `first`.

    Raises:
        StatsError: If the shapes differ, there are fewer than 2 seeds, or a number is not finite.
    """
    return mean_interval(_differences(first, later, dimensions=1), level)


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """A mean with Student's t interval.

    Args:
        values: Shape (n,), 2 or more.
        level: Confidence, in (0, 1).

    Raises:
        StatsError: If there are fewer than 2 numbers, or one is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) < 2 or not np.isfinite(numbers).all():
        raise StatsError(f"an interval over seeds needs 2 finite numbers or more, got {numbers.tolist()}")
    mean = float(numbers.mean())
    half = float(student_t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Estimate(mean, mean - half, mean + half)


def summarise(records: Sequence[Record]) -> list[Summary]:
    """One summary per run, decoding and seat, in the order of the records.

    Raises:
        StatsError: If one of them has no record of self-play.
    """
    groups: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in records:
        groups.setdefault((record.run, record.decoding, record.seat), {})[record.partner] = record
    for key, by_partner in groups.items():
        if SELF_PLAY not in by_partner:
            raise StatsError(f"no record of {SELF_PLAY} for run, decoding, seat {key}")
    return [_summary(by_partner) for by_partner in groups.values()]


def compare_runs(results: Results, first: str, later: str, decoding: str, seed: int = 0) -> RunDifference:
    """A later run less the first one.

    Raises:
        ResultsError: If they did not play the same partners on the same problems.
        StatsError: As `paired_bootstrap`.
    """

    def difference(partners: Sequence[str]) -> Estimate:
        return paired_bootstrap(*_paired(results, [first], [later], decoding, partners), seed=seed)

    mean = difference(results.partners) if results.partners else None
    return RunDifference(first, later, decoding, mean, difference([SELF_PLAY]))


def compare_arms(
    results: Results,
    first: Mapping[int, str],
    later: Mapping[int, str],
    decoding: str,
    partners: Sequence[str] | None = None,
    seed: int = 0,
) -> ArmDifference:
    """One arm less another, their seeds paired by number.

    Args:
        results: Of all their runs.
        first: Name of the run of each seed.
        later: The same of the other arm.
        decoding: `greedy` or `sampled`.
        partners: Over which (and all seats) the solve rate is averaged; all of the roster if None.
        seed: Of the bootstrap.

    Raises:
        StatsError: If the arms do not have the same seeds.
        ResultsError: If the runs did not play the same partners on the same problems.
    """
    if set(first) != set(later) or not first:
        raise StatsError(f"both arms need the same seeds, got {sorted(first)} and {sorted(later)}")
    seeds = tuple(sorted(first))
    runs = [first[number] for number in seeds], [later[number] for number in seeds]
    a, b = _paired(results, *runs, decoding, results.partners if partners is None else partners)
    over_seeds = seed_interval(a.mean(axis=1), b.mean(axis=1)) if len(seeds) > 1 else None
    per_seed = tuple(float(value) for value in (b - a).mean(axis=1))
    return ArmDifference(decoding, seeds, per_seed, hierarchical_bootstrap(a, b, seed=seed), over_seeds)


def _differences(first: ArrayLike, later: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(later, dtype=np.float64)
    if a.shape != b.shape or a.ndim != dimensions or not a.size:
        raise StatsError(f"expected two arrays of one shape with {dimensions} dimension(s), got {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise StatsError("every outcome must be a finite number")
    return b - a


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


def _summary(by_partner: Mapping[str, Record]) -> Summary:
    own = by_partner[SELF_PLAY]
    rates = {name: record.solve_rate for name, record in by_partner.items() if name != SELF_PLAY}
    effort = own.effort_own + own.effort_partner
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
        contribution_share=own.effort_own / effort if effort else None,
        reliance=own.solve_rate - rates[LAZY] if LAZY in rates else None,
    )
