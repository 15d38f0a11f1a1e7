"""Where the tether helps, in text: the worksheet that a partner can cross out, over τ, from IPPO to no tether.

    llm-sra compare --config worksheet/spoil/... --seeds 1 2 3 4 5 --roster worksheet_spoil_test --out runs/spoil-text
    python -m benchmarks.spoil_text runs/spoil-text --write

Prints a table of what the agents of a comparison solved with each other and with strangers, and draws it over τ. With
`--write` both go into the documentation.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from benchmarks.measure import table as as_table
from benchmarks.spoil import COLOURS, TASKS, Place, arm_of, dress, place_of, tau_of, tell
from eval.plots import DPI, write_png
from eval.stats.intervals import Estimate, mean_interval
from llm_sra.evaluation.results import Results, read_results
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.runs import Run
from recipes.comparing.evaluating import EVAL
from recipes.terminal import run_command

PLACE = Place(TASKS / "worksheet.md", TASKS / "spoil-text.png", "<!-- spoil: python -m benchmarks.spoil_text -->\n")
DECODING = "sampled"  # as they were trained
LAZIER = "the lazier seat"


@dataclass(frozen=True)
class Played:
    """What the two agents of a run did.

    Attributes:
        seed: Of the run.
        tau: Its τ; 0 of IPPO, infinity without a tether.
        lines: Right lines that a seat writes in self-play, the busier seat first.
        together: Share of problems solved in self-play, in [0, 1].
        solved: By stranger, the share of problems solved, one for each seat.
        resting: The stranger that does no work.
    """

    seed: int
    tau: float
    lines: tuple[float, float]
    together: float
    solved: dict[str, tuple[float, float]]
    resting: str

    @property
    def strangers(self) -> float:
        """Mean over strangers and seats, in [0, 1]."""
        return float(np.mean(list(self.solved.values())))

    @property
    def lazier(self) -> float:
        """What the seat that solves less beside the resting stranger solves there, in [0, 1]."""
        return min(self.solved[self.resting])

    def curves(self) -> dict[str, float]:
        """By label, what is drawn."""
        means = {f"with {stranger}": fmean(each) for stranger, each in self.solved.items()}
        return {**means, f"with {self.resting}, {LAZIER}": self.lazier}


def read(folder: Path) -> list[Played]:
    """The runs of a comparison, in order of τ and seed.

    Raises:
        ResultsError: If it was not played.
        ValueError: If nobody in its roster rests.
    """
    results = read_results(folder / EVAL)
    if results.idle not in results.partners:
        raise ValueError(f"{folder}: expected a roster with the task's partner that rests, {results.idle}")
    found = [_played(results, Run.open(folder / Path(name).name), name) for name in results.runs]
    return sorted(found, key=lambda each: (each.tau, each.seed))


def _played(results: Results, run: Run, name: str) -> Played:
    own = [results.record(name, seat, SELF_PLAY, DECODING) for seat in results.seats]
    busier, lazier = sorted((record.metrics[f"right_lines/{record.seat}"] for record in own), reverse=True)
    first, second = results.seats
    solved = {
        partner: (
            results.record(name, first, partner, DECODING).solve_rate,
            results.record(name, second, partner, DECODING).solve_rate,
        )
        for partner in results.partners
    }
    together = fmean(record.solve_rate for record in own)
    return Played(int(run.config["seed"]), tau_of(run), (busier, lazier), together, solved, str(results.idle))


def table(found: Sequence[Played]) -> str:
    """A Markdown table: for each τ, means over seeds; for strangers also the difference from IPPO by seed."""
    strangers = list(found[0].solved)
    head = ["arm", "seeds", "right lines: busier seat", "lazier seat", "solved together"]
    head += [f"with {stranger}" for stranger in strangers]
    head += [f"with {found[0].resting}, {LAZIER}", "strangers", "minus ippo", "each seed"]
    base = {each.seed: each.strangers for each in found if each.tau == 0}
    rows = []
    for tau in sorted({each.tau for each in found}):
        mine = [each for each in found if each.tau == tau]
        figures = [
            [*each.lines, each.together, *map(fmean, each.solved.values()), each.lazier, each.strangers]
            for each in mine
        ]
        cells = [f"{mean:.2f}" for mean in np.mean(figures, axis=0)]
        gains = [each.strangers - base[each.seed] for each in mine if each.seed in base]
        by_seed = ", ".join(f"{each.strangers:.2f}" for each in mine)
        rows.append([arm_of(tau), str(len(mine)), *cells, "-" if tau == 0 or not gains else _gain(gains), by_seed])
    return as_table(head, rows)


def _gain(gains: Sequence[float]) -> str:
    """A mean over seeds, with Student's t if there are several."""
    if len(gains) == 1:
        return f"{gains[0]:+.2f}"
    mean: Estimate = mean_interval(gains)
    return f"{mean.value:+.2f} [{mean.low:+.2f}, {mean.high:+.2f}]"


def draw(found: Sequence[Played], path: Path) -> Path:
    """Solved with each stranger over τ: means over seeds as a line, each pair of agents as a circle."""
    figure = Figure(figsize=(7.2, 4.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    taus = sorted({each.tau for each in found})
    for colour, label in zip(COLOURS, found[0].curves(), strict=False):
        means = [fmean(each.curves()[label] for each in found if each.tau == tau) for tau in taus]
        style = "--" if label.endswith(LAZIER) else "-"
        axes.plot([place_of(tau) for tau in taus], means, style, color=colour, linewidth=2.2, label=label)
        dots = [each.curves()[label] for each in found]
        axes.plot([place_of(each.tau) for each in found], dots, "o", color=colour, mfc="none", clip_on=False)
    dress(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return write_png(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    tell(argv, __doc__, PLACE, read, table, draw)


if __name__ == "__main__":
    sys.exit(run_command(main))
