"""A whole comparison: the plan, the trainings, the playing, the report, and what the terminal shows last."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from llm_sra.evaluation.results import RESULTS
from llm_sra.partners.rosters import read_playable
from recipes.comparing.cells import (
    Cell,
    Fields,
    check_comparable,
    check_folders,
    check_place,
    check_tasks,
    read_cells,
    remove_runs,
)  # fmt: skip
from recipes.comparing.evaluating import EVAL, LOG, REPORT, Played, evaluate, report
from recipes.comparing.training import Trainings
from recipes.terminal import kept_if_stopped, said_once


@dataclass(frozen=True)
class Comparison:
    """What is trained, and with whom it plays.

    Attributes:
        cells: The trainings.
        out: Folder of everything.
        played: With whom; None: they are only trained.
        jobs: Trainings at a time.
        again: Whether everything that is there is made anew.
        title: Heading of the report; None: one that names the settings.
    """

    cells: Sequence[Cell]
    out: Path
    played: Played | None
    jobs: int = 1
    again: bool = False
    title: str | None = None

    @property
    def trainings(self) -> list[list[str]]:
        """The commands that train."""
        return [cell.command(self.out) for cell in self.cells]

    @property
    def rest(self) -> list[list[str]]:
        """The commands that play and report."""
        if self.played is None:
            return []
        return [
            self.played.command(self.cells, self.out),
            self.played.report_command(self.cells, self.out, self.title),
        ]


def compare(comparison: Comparison, console: Console) -> None:
    """Make what is missing of a comparison.

    Raises:
        ComparisonError: If its folder holds something else.
        ConfigError: If a recipe or a flag cannot be used.
        RosterError, UnknownNameError, ValueError: If the roster, the task or its options cannot be used. Nothing is
            trained then.
        TrainingError: If a training failed.
    """
    cells, out = comparison.cells, comparison.out
    with said_once("llm_sra.trainer.parse"):  # of all cells of a recipe
        read = check(comparison)
        if comparison.again:
            remove(comparison)
        steps = check_folders(read, out)
    trainings = Trainings(cells, out, steps, comparison.jobs, console=console)
    _tell_plan(comparison, trainings, console)
    with kept_if_stopped():
        _make(comparison, trainings, console)


def _make(comparison: Comparison, trainings: Trainings, console: Console) -> None:
    cells, out, played = comparison.cells, comparison.out, comparison.played
    trainings.run()
    if played:
        console.print("Playing ...", markup=False)
        if not evaluate(played, cells, out):
            console.print(f"Played before, kept: {out / played.folder}", markup=False, soft_wrap=True)
        report(played, cells, out, comparison.title)


def check(comparison: Comparison) -> dict[str, Fields]:
    """Check all that can be known without looking at what its folder holds.

    Returns:
        What is trained, by a cell's name.

    Raises:
        ComparisonError: If it cannot have that folder, or its agents could not play with each other.
        ConfigError: If a recipe or a flag cannot be used.
        RosterError, UnknownNameError: If the roster or the task cannot be used.
        ValueError: If the task lacks an option that is asked for.
    """
    check_place(comparison.out)
    read = read_cells(comparison.cells)
    check_tasks(read)
    if comparison.played:
        check_comparable(read)
        if comparison.played.roster:
            read_playable(comparison.played.roster, **comparison.played.trusted)
    return read


def _tell_plan(comparison: Comparison, trainings: Trainings, console: Console) -> None:
    cells, played = comparison.cells, comparison.played
    settings = list(dict.fromkeys(cell.setting for cell in cells))
    console.print(
        f"{len(cells)} trainings in {comparison.out} ({', '.join(settings)}), {comparison.jobs} at a time:",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    trainings.show_states()
    if played:
        with_whom = [f"the partners of {played.roster}"] * bool(played.roster)
        with_whom += ["each other"] * (played.cross_play and len(cells) > 1)
        console.print(f"Then they play with {' and '.join(with_whom) or 'stand-ins for their partner'}.", markup=False)
    if trainings.time_left:
        console.print(f"Time for what is to train: {trainings.time_left}.", markup=False)


def remove(comparison: Comparison) -> None:
    """Remove what an earlier comparison left under the names of this one; nothing else.

    Raises:
        ComparisonError: If one of its trainings runs now.
    """
    out = comparison.out
    remove_runs([out / cell.name for cell in comparison.cells])
    for folder, sign in ((EVAL, RESULTS), (REPORT, "report.html")):
        if (out / folder / sign).is_file():  # else it is none of ours
            shutil.rmtree(out / folder)
    (out / LOG).unlink(missing_ok=True)
