"""Plays the runs of a comparison, and reports on them: what `llm-sra eval` and `llm-sra report` do, behind one log."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_sra.evaluation.best_responses import ENDING
from llm_sra.evaluation.results import RESULTS, read_results
from llm_sra.files import write_whole
from llm_sra.partners.rosters import file_beside
from llm_sra.registry import find_roster
from recipes.comparing.cells import Cell

EVAL, REPORT, LOG = "eval", "report", "eval.log"
TRUST = ("trust_scripts", "trust_remote_code")  # fields of a recipe that are flags of `llm-sra eval`, too
DONE = "evaluated.json"  # what a folder of results was made from


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

    @property
    def trusted(self) -> dict[str, bool]:
        """What of the roster may run."""
        return {name: f"--{name}" in self.further for name in TRUST}

    def runs(self, cells: Sequence[Cell], out: Path) -> list[str]:
        """The runs, as commands name them."""
        return [f"{out / cell.name}{'@' * bool(self.checkpoint)}{self.checkpoint}" for cell in cells]

    def command(self, cells: Sequence[Cell], out: Path) -> list[str]:
        """Arguments of `llm-sra` for the evaluation."""
        words = ["eval", "--run", *self.runs(cells, out), "--out", str(out / self.folder)]
        words += ["--roster", self.roster] if self.roster else []
        words += ["--problems", str(self.problems), "--split", self.split, "--decoding", *self.decodings]
        words += ["--cross_play"] if self.cross_play and len(cells) > 1 else []
        words += ["--contributions"] if self.contributions else []
        words += ["--engine", self.engine] if self.engine != "transformers" else []
        return [*words, *self.further]

    def report_command(self, cells: Sequence[Cell], out: Path, title: str | None = None) -> list[str]:
        """Arguments of `llm-sra` for the report."""
        words = ["report", *self.runs(cells, out), "--eval", str(out / self.folder), "--out", str(out / REPORT)]
        words += ["--roster", self.roster] if self.roster else []
        return [*words, *(["--title", title] if title else [])]


def evaluate(played: Played, cells: Sequence[Cell], out: Path) -> bool:
    """Play the agents of cells in this process, its tables behind `LOG`, unless that has been done.

    What has been done is done again if the command, the text of the roster, the best responses beside it or an agent
    changed, or if a partner could not play; episodes that are there are not played again even then.

    Args:
        played: With whom.
        cells: Whose agents.
        out: Folder of the comparison.

    Returns:
        Whether it was done now.
    """
    folder, command = out / played.folder, played.command(cells, out)
    asked: dict[str, object] = {
        "command": command,
        "roster": find_roster(played.roster).read_text(encoding="utf-8") if played.roster else None,
        "agents": [(out / cell.name / "adapters").stat().st_mtime_ns for cell in cells],
    }
    if played.roster and (beside := file_beside(played.roster, ENDING)).is_file():
        asked["best_responses"] = beside.read_text(encoding="utf-8")
    done = folder / DONE
    if done.is_file() and (folder / RESULTS).is_file():
        with contextlib.suppress(ValueError):
            if json.loads(done.read_text(encoding="utf-8")) == asked and not read_results(folder).missing:
                return False
    from transformers.utils.logging import disable_progress_bar

    from recipes.commands import eval as evaluation

    disable_progress_bar()  # of loading models
    with (out / LOG).open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        evaluation.main(command[1:])
    write_whole(done, json.dumps(asked) + "\n")
    return True


def report(played: Played, cells: Sequence[Cell], out: Path, title: str | None = None) -> None:
    """Report on the runs of cells in this process, what it prints behind `LOG`."""
    from recipes.commands import report as reporting

    with (out / LOG).open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        reporting.main(played.report_command(cells, out, title)[1:])
