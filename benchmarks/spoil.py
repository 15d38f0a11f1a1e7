"""Where the tether helps: the game `spoil` over τ, from IPPO to adversaries without a tether; ε 0.2.

    llm-sra compare --config effort/spoil/... --seeds 1 2 3 4 5 --train_only --out runs/spoil
    python -m benchmarks.spoil runs/spoil --write

Prints a table of the runs in a folder beside exact equilibria, and draws solved games with strangers over τ. Policies
are read off the models, nothing is sampled. With `--write` both go into the documentation.
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.measure import table as as_table
from benchmarks.pages import put_between
from eval.oracle import NEAR, trained_policies
from eval.plots import DPI, GREY, RESTS, SPOILS, UNEQUAL, WORKS, write_png
from llm_sra.games import Equilibrium, RiskProfile, equilibria
from llm_sra.games.game import Array
from llm_sra.games.known import spoil
from llm_sra.runs import Run
from recipes.terminal import run_command
from tasks.effort import Effort

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
TASKS = ROOT / "docs" / "tasks"
END = "<!-- end of spoil -->\n"
GAME, EPS = spoil(), 0.2
WORK = 2
GIVEN = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 1]], dtype=float)  # where both get the benefit
# What they say, over (rest, spoil, work).
STRANGERS: Mapping[str, Array] = {
    "one who rests": np.array([1.0, 0.0, 0.0]),
    "one who works": np.array([0.0, 0.0, 1.0]),
    "one who works, but spoils 1 time in 4": np.array([0.0, 0.25, 0.75]),
}
COLOURS = (RESTS, WORKS, SPOILS, UNEQUAL)  # of the strangers in that order, and of the lazier seat
STARTS = 8  # of the search for equilibria; more find no others
IPPO_AT, FREE_AT = 0.2, 200.0  # where τ = 0 and no tether are drawn


@dataclass(frozen=True)
class Trained:
    """The agents of a run: their τ (0: IPPO; inf: no tether) and, by seat, the probability of each action."""

    tau: float
    policies: tuple[Array, Array]


@cache
def exact(tau: float) -> list[Equilibrium]:
    """The equilibria at a τ that are not known to be unstable."""
    found = equilibria(GAME, RiskProfile.same(tau, EPS), STARTS)
    return [each for each in found if each.stable is not False]


def nearest(trained: Trained) -> tuple[Equilibrium, float]:
    """The nearest of them, and the largest difference of a probability from it."""

    def off(one: Equilibrium) -> float:
        pairs = zip(one.policies, trained.policies, strict=True)
        return max(float(np.abs(exact - mine).max()) for exact, mine in pairs)

    best = min(exact(trained.tau), key=off)
    return best, off(best)


def solved(policy: Array, partner: Array) -> float:
    """How often someone works and nobody spoils, in [0, 1]."""
    return float(policy @ GIVEN @ partner)


def with_stranger(policies: Sequence[Array], stranger: str) -> float:
    """Solved with a stranger, mean of both seats, in [0, 1]."""
    return float(np.mean([solved(policy, STRANGERS[stranger]) for policy in policies]))


CURVES: Mapping[str, Callable[[Sequence[Array]], float]] = {
    **{f"with {stranger}": partial(with_stranger, stranger=stranger) for stranger in STRANGERS},
    "with one who rests, the lazier seat": lambda policies: float(min(policy[WORK] for policy in policies)),
}


def read(folder: Path) -> list[Trained]:
    """The finished runs of the game below a folder.

    Raises:
        ValueError: If there is none.
    """
    found = []
    for path in sorted(folder.glob("*/adapters")):
        run = Run.open(path.parent)
        task = Effort(**(run.config.get("task_args") or {}))
        if run.config["task"] != "effort" or task.game.name != GAME.name or run.config["entropy_coef"] != EPS:
            raise ValueError(f"{run.path}: expected a run of effort/spoil with entropy_coef {EPS}")
        policies, _ = trained_policies(run, task)
        found.append(Trained(tau_of(run), (policies["first"], policies["second"])))
    if not found:
        raise ValueError(f"{folder}: expected finished runs of effort/spoil in it, as llm-sra compare makes them")
    return found


def table(found: Sequence[Trained]) -> str:
    """A Markdown table: for each τ, exact figures and, in brackets, the mean of the trained pairs'."""
    head = ["arm", "seeds", "works: busier seat", "lazier seat", "solved together", *(f"with {s}" for s in STRANGERS)]
    rows = []
    for tau in sorted({each.tau for each in found}):
        mine = [each for each in found if each.tau == tau]
        gaps = [nearest(each)[1] for each in mine]
        theory = _figures(nearest(mine[0])[0].policies)
        means = np.mean([_figures(each.policies) for each in mine], axis=0)
        cells = [f"{one:.2f} ({other:.2f})" for one, other in zip(theory, means, strict=True)]
        near = sum(gap <= NEAR for gap in gaps)
        rows.append([arm_of(tau), str(len(mine)), *cells, f"{max(gaps):.3f}", f"{near} of {len(mine)}"])
    head += ["off by at most", f"within {NEAR:g}"]
    return as_table(head, rows)


def tau_of(run: Run) -> float:
    """Its τ; 0 of IPPO, infinity of adversaries without a tether."""
    return {"ippo": 0.0, "adversary": math.inf}.get(str(run.config["arm"]), float(run.config["tau"]))


def arm_of(tau: float) -> str:
    """How tables name it."""
    return "ippo" if tau == 0 else "no tether" if math.isinf(tau) else f"srpo, τ {tau:g}"


def _figures(policies: Sequence[Array]) -> list[float]:
    work = sorted((float(policy[WORK]) for policy in policies), reverse=True)
    return [*work, solved(policies[0], policies[1]), *(with_stranger(policies, stranger) for stranger in STRANGERS)]


def draw(found: Sequence[Trained], path: Path) -> Path:
    """Solved with each stranger over τ: exact as lines, and at both ends as bars; each trained pair as a circle."""
    figure = Figure(figsize=(7.2, 4.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    taus = np.geomspace(0.3, 100, 40).tolist()
    between, ends = ([exact(tau)[0].policies for tau in some] for some in (taus, (0.0, math.inf)))
    at = [place_of(each.tau) for each in found]
    handles = [Line2D([], [], color=GREY, marker="o", linestyle="", markerfacecolor="none", label="trained")]
    for colour, (label, share) in zip(COLOURS, CURVES.items(), strict=False):
        line: Literal["--", "-"] = "--" if label.endswith("seat") else "-"
        axes.plot(taus, [share(policies) for policies in between], line, color=colour, linewidth=2.2)
        axes.plot([IPPO_AT, FREE_AT], [share(each) for each in ends], "_", color=colour, markersize=16, mew=2.2)
        axes.plot(at, [share(each.policies) for each in found], "o", color=colour, mfc="none", clip_on=False)
        handles.append(Line2D([], [], color=colour, linestyle=line, linewidth=2.2, label=label))
    dress(axes)
    figure.legend(handles=handles[1:] + handles[:1], loc="outside lower center", ncols=2, frameon=False)
    return write_png(figure, path)


def place_of(tau: float) -> float:
    """Where it is drawn."""
    return IPPO_AT if tau == 0 else FREE_AT if math.isinf(tau) else tau


def dress(axes: Axes) -> None:
    """Name and scale the axes: shares over τ."""
    axes.set_xscale("log")
    axes.set_xticks([IPPO_AT, 1, 3, 10, 100, FREE_AT], ["IPPO", "1", "3", "10", "100", "no\ntether"])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("degree of risk aversion τ")
    axes.set_ylabel("solved with a stranger")
    axes.grid(color="#DDDDDD", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True)
class Place:
    """Where a table and its picture stand in the documentation; `begin` is the line before the table."""

    page: Path
    picture: Path
    begin: str


def tell(
    argv: Sequence[str] | None,
    about: str | None,
    place: Place,
    read: Callable[[Path], list[T]],
    table: Callable[[Sequence[T]], str],
    draw: Callable[[Sequence[T], Path], Path],
) -> None:
    """Read what came out, print the table; draw, or write both into the documentation.

    Args:
        argv: Arguments of the command line; those of this process if None.
        about: What the command is for.
        place: In the documentation.
        read: The runs in a folder.
        table: Of what was read.
        draw: The same as a PNG.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of the runs")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    parser.add_argument("--write", action="store_true", help=f"replace the table and the picture of {place.page.name}")
    args = parser.parse_args(argv)
    found = read(args.folder)
    text = table(found)
    print(text)
    if args.picture or args.write:
        draw(found, args.picture or place.picture)
    if args.write:
        put_between(place.page, place.begin, END, f"{text}\n")


PLACE = Place(TASKS / "effort.md", TASKS / "spoil.png", "<!-- spoil: python -m benchmarks.spoil -->\n")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    tell(argv, __doc__, PLACE, read, table, draw)


if __name__ == "__main__":
    sys.exit(run_command(main))
