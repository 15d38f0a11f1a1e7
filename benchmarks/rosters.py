"""Whether learned strangers change what a comparison says: the same agents with a test roster and with a learned one.

    python -m benchmarks.rosters worksheet kitchen tag hanabi --write

trains the arms of each task over seeds, below `runs/rosters`, plays them with both rosters, and prints two tables: what
each roster says of the arms, and how far the learned strangers lie from the scripted ones. With `--write` both go into
the documentation. A finished training is kept, an interrupted one goes on.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product, starmap
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.learned_strangers import LEARNED, set_cells
from benchmarks.measure import table as as_table
from benchmarks.pages import between, put_between
from benchmarks.study import fill
from benchmarks.study_report import by_seed, spent
from eval.stats import compare_arms
from eval.table import NOTHING, difference
from llm_sra.evaluation.results import Results, read_results
from llm_sra.registry import find_roster
from recipes.comparing.cells import Cell, make_cells
from recipes.comparing.evaluating import Played, evaluate
from recipes.terminal import run_command

PAGE = Path(__file__).resolve().parent.parent / "docs" / "partners.md"
BEGIN, END = "<!-- rosters: python -m benchmarks.rosters -->\n", "<!-- end of rosters -->\n"
ARMS, SEEDS = ("ippo", "srpo", "untrained"), (1, 2, 3)
TASKS = ("worksheet", "kitchen", "tag", "hanabi")
ROSTERS = ("test", LEARNED)
SCRIPTED = "scripted"
DECODING = "sampled"
PROBLEMS = 16  # with each partner and seat
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """A task's agents with the partners of two rosters.

    Attributes:
        task: Its name.
        results: By roster, what they played.
        seconds: Of the steps of the trainings that made the learned strangers, pools included, one after the other.
    """

    task: str
    results: Mapping[str, Results]
    seconds: float

    @property
    def scripted(self) -> list[Array]:
        """The profile of each scripted partner of the test roster."""
        results = self.results["test"]
        return [profile(results, name) for name in results.partners if results.kinds[name] == SCRIPTED]

    @property
    def learned(self) -> list[Array]:
        """The profile of each partner of the learned roster, its untrained models included."""
        return [profile(self.results[LEARNED], name) for name in self.results[LEARNED].partners]

    @property
    def noise(self) -> float:
        """How far apart two profiles of one and the same partner would lie on average, as other chance made them."""
        results = self.results[LEARNED]
        keys = [record.key for record in results.records if record.partner in results.partners]
        return float(np.sqrt(fmean(2 * np.var(results.solved[key], ddof=1) / len(results.solved[key]) for key in keys)))


def cells_of(task: str, arms: Sequence[str] = ARMS, seeds: Sequence[int] = SEEDS) -> list[Cell]:
    """The trainings whose agents are compared: one recipe, so that the arms differ in nothing else."""
    return make_cells([f"{task}/srpo"], arms, seeds)


def make(task: str, out: Path, jobs: int) -> Compared:
    """Train what is missing of a task's cells, and play them with both rosters.

    Args:
        task: Its name.
        out: Folder of the comparison, below which each task has one.
        jobs: Trainings at a time.

    Raises:
        ComparisonError, TrainingError: As comparisons do.
    """
    folder, cells = out / task, cells_of(task)
    fill(cells, folder, jobs)
    for roster in ROSTERS:
        where = f"eval/{roster}"
        played = Played(f"{task}_{roster}", PROBLEMS, decodings=[DECODING], cross_play=False, folder=where)
        evaluate(played, cells, folder)
    learned = out.parent / LEARNED / task
    made = [cell for group in set_cells(task, learned) for cell in group]
    return Compared(
        task,
        {roster: read_results(folder / "eval" / roster) for roster in ROSTERS},
        sum(spent(learned / cell.name).seconds for cell in made),
    )


def profile(results: Results, partner: str) -> Array:
    """How each agent fared with a partner: its headline or share solved, shape (runs x seats,), in [0, 1]."""
    records = [results.record(run, seat, partner, DECODING) for run in results.runs for seat in results.seats]
    return np.array([record.solve_rate for record in records])


def distance(one: Array, other: Array) -> float:
    """Root mean square of the differences between two profiles."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


def apart(profiles: Sequence[Array]) -> float:
    """Mean distance between two of several partners; NaN of one alone."""
    pairs = list(combinations(profiles, 2))
    return fmean(distance(*pair) for pair in pairs) if pairs else float("nan")


def unlike(learned: Sequence[Array], scripted: Sequence[Array]) -> float:
    """Mean distance of a learned partner to the scripted one that is most like it."""
    return fmean(min(distance(one, other) for other in scripted) for one in learned)


def missed(learned: Sequence[Array], scripted: Sequence[Array], noise: float) -> float:
    """How much of the spread between learned partners the scripted ones miss.

    The mean squared distance of a learned partner to the scripted one that is most like it, over the mean squared
    distance between two learned ones; what chance alone makes is taken off both.

    Args:
        learned: Profiles of two or more.
        scripted: Profiles of one or more.
        noise: See `Compared.noise`.

    Returns:
        0: each learned partner has its like among the scripted ones. 1: a scripted one says no more of a learned one
        than any other learned one does; it can be more.
    """
    left = fmean(min(distance(one, other) for other in scripted) ** 2 for one in learned) - noise**2
    whole = fmean(distance(*pair) ** 2 for pair in combinations(learned, 2)) - noise**2
    return max(left, 0.0) / whole if whole > 0 else float("nan")


def agree(pairs: Iterable[tuple[Array, Array]]) -> float:
    """Mean Spearman correlation of pairs of profiles; those that rank nobody, all agents being alike, are left out.

    Returns:
        In [-1, 1]; NaN if all are left out.
    """
    both = [(one, other) for one, other in pairs if np.ptp(one) > 0 and np.ptp(other) > 0]
    return fmean(float(spearmanr(one, other).statistic) for one, other in both) if both else float("nan")


def conclusions(found: Sequence[Compared]) -> str:
    """A Markdown table: what each roster says of the arms, means over seeds, seats and partners."""
    head = ["task", "roster", "partners", *ARMS, "order"]
    for arm in ARMS[1:]:
        head += [f"{arm} - {ARMS[0]}", "Student's t"]
    rows = []
    for one in found:
        for roster, results in one.results.items():
            runs = {arm: by_seed(results, arm) for arm in ARMS}
            means = {arm: results.rate(runs[arm].values(), results.seats, results.partners, DECODING) for arm in ARMS}
            order = " > ".join(sorted(ARMS, key=lambda arm: -means[arm]))
            cells = [one.task, f"`{one.task}_{roster}`", str(len(results.partners))]
            cells += [*(f"{means[arm]:.2f}" for arm in ARMS), order]
            for arm in ARMS[1:]:
                told = compare_arms(results, runs[ARMS[0]], runs[arm], DECODING)
                cells += [difference(told.problems_and_seeds), difference(told.over_seeds)]
            rows.append(cells)
    return as_table(head, rows)


def spreads(found: Sequence[Compared]) -> str:
    """A Markdown table: how far strangers lie from each other, and how alike they rank the agents."""
    head = ["task", "worst and best scripted", "worst and best learned", "two scripted", "two learned"]
    head += ["learned to nearest scripted", "by chance", "missed", "rank correlation: rosters", "strangers", "minutes"]
    rows = []
    for one in found:
        scripted, learned = one.scripted, one.learned
        whole = [np.mean([profile(each, name) for name in each.partners], axis=0) for each in one.results.values()]
        figures = [
            *map(apart, (scripted, learned)),
            unlike(learned, scripted),
            one.noise,
            missed(learned, scripted, one.noise),
            agree([(whole[0], whole[1])]),
            agree((a, b) for a in scripted for b in learned),
        ]
        ends = [f"{min(map(np.mean, each)):.2f} to {max(map(np.mean, each)):.2f}" for each in (scripted, learned)]
        told = [NOTHING if np.isnan(value) else f"{value:.2f}" for value in figures]
        rows.append([one.task, *ends, *told, f"{one.seconds / 60:.0f}"])
    return as_table(head, rows)


def with_others(now: str, before: str) -> str:
    """Tables with the rows of tasks that they leave out, as these stood before.

    Args:
        now: Markdown tables with a blank line between them; the first column is the task.
        before: The same tables as they stand in the page.
    """
    return "\n\n".join(starmap(_with_others, zip(_tables(now), _tables(before), strict=True)))


def _with_others(now: list[str], before: list[str]) -> str:
    asked = set(map(_task, now[2:]))
    rows = [*now[2:], *(row for row in before[2:] if _task(row) not in asked)]
    return "\n".join([*now[:2], *sorted(rows, key=lambda row: TASKS.index(_task(row)))])


def _tables(text: str) -> list[list[str]]:
    return [part.splitlines() for part in text.strip().split("\n\n")]


def _task(row: str) -> str:
    return row.split("|")[1].strip()


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser("rosters", description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--out", type=Path, default=Path("runs/rosters"), help="folder of the trainings")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    args = parser.parse_args(argv)
    tasks = args.tasks or TASKS
    for task, roster in product(tasks, ROSTERS):
        find_roster(f"{task}_{roster}")  # an error before any training
    found = [make(task, args.out.resolve(), args.jobs) for task in tasks]
    text = f"{conclusions(found)}\n\n{spreads(found)}"
    print(text)
    if args.write:
        put_between(PAGE, BEGIN, END, with_others(text, between(PAGE, BEGIN, END)) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
