"""Plays the runs of a comparison, and reports on them: what `llm-sra eval` and `llm-sra report` do, behind one log."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_sra.evaluation.results import RESULTS, read_results
from llm_sra.files import write_whole
from llm_sra.registry import find_roster
from recipes.comparing.cells import Cell

EVAL, REPORT, LOG = "eval", "report", "eval.log"
DONE = "evaluated.json"  # what filled a folder of results: the command, and the roster's text


@dataclass(frozen=True)
class Played:
    """With whom the agents of a comparison play.

    Attributes:
        roster: YAML file or name; None: with each other alone.
        problems: With each partner, seat and decoding.
        split: Of the task.
        decodings: `greedy`, `sampled` or both.
        cross_play: Whether each run's agents play with those of every other run.
        contributions: Whether each run's team plays with others in its seats.
        engine: That plays the agents.
        further: Further flags of `llm-sra eval`.
        checkpoint: Which agents: empty for those at the end of training, `best`, or a checkpoint's name.
        folder: Name of the folder for the results.
    """

    roster: str | None
    problems: int = 64
    split: str = "test"
    decodings: Sequence[str] = ("greedy", "sampled")
    cross_play: bool = True
    contributions: bool = False
    engine: str = "transformers"
    further: Sequence[str] = ()
    checkpoint: str = ""
    folder: str = EVAL

    def runs(self, cells: Sequence[Cell], out: Path) -> list[str]:
        """The runs, as commands name them."""
        return [f"{out / cell.name}{'@' * bool(self.checkpoint)}{self.checkpoint}" for cell in cells]

    def command(self, cells: Sequence[Cell], out: Path) -> list[str]:
        """Arguments of `llm-sra` for the evaluation."""
        words = ["eval", "--run", *self.runs(cells, out), "--out", str(out / self.folder)]
        words += ["--roster", self.roster] if self.roster else []
        words += ["--problems", str(self.problems), "--split", self.split, "--decoding", *self.decodings]
        words += ["--cross_play"] if self.cross_play and len(cells) > 1 else []
        words += ["--contributions"] if self.contributions or not (self.roster or len(cells) > 1) else []
        words += ["--engine", self.engine] if self.engine != "transformers" else []
        return [*words, *self.further]

    def report_command(self, cells: Sequence[Cell], out: Path, title: str | None = None) -> list[str]:
        """Arguments of `llm-sra` for the report."""
        words = ["report", *self.runs(cells, out), "--eval", str(out / self.folder), "--out", str(out / REPORT)]
        words += ["--roster", self.roster] if self.roster else []
        return [*words, *(["--title", title] if title else [])]


def evaluate(command: Sequence[str], folder: Path, log: Path, roster: str | None) -> bool:
    """Run an evaluation's command in this process, its tables behind a log, unless that has been done.

    Args:
        command: Arguments of `llm-sra`.
        folder: Its `--out`.
        log: Where what it prints goes; progress and warnings are shown.
        roster: Its roster. One that changed, or had partners that could not play, is played with again.

    Returns:
        Whether it was played now.
    """
    asked = {"command": list(command), "roster": find_roster(roster).read_text(encoding="utf-8") if roster else None}
    done = folder / DONE
    if done.is_file() and (folder / RESULTS).is_file():
        with contextlib.suppress(ValueError):
            if json.loads(done.read_text(encoding="utf-8")) == asked and not read_results(folder).missing:
                return False
    from transformers.utils.logging import disable_progress_bar

    from recipes.commands import eval as evaluation

    disable_progress_bar()  # of loading models
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        evaluation.main(command[1:])
    write_whole(done, json.dumps(asked) + "\n")
    return True


def report(command: Sequence[str], log: Path) -> None:
    """Run a report's command in this process, what it prints behind a log."""
    from recipes.commands import report as reporting

    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        reporting.main(command[1:])


def forget(out: Path) -> None:
    """A run will change: what was played before is to be looked at again."""
    for path in out.glob(f"*/{DONE}"):
        path.unlink()
