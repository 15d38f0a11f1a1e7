"""A picture of the effort game: its exact equilibria over tau, and where trained agents ended.

`llm_sra.games` computes the equilibria; here they are joined into curves and drawn. Colours are those of `plots`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.plots import DPI, EQUAL, GREY, UNEQUAL, write_png
from llm_sra.games import Equilibrium, RiskProfile, equilibria
from llm_sra.games.known import WORK, effort

EPSILONS = (0.03, 0.1, 0.2)
LEAST_TAU, MOST_TAU = 0.3, 100.0
STEPS = 100  # of tau in a panel, in equal ratios
NEAR = 0.15  # policies at neighbouring taus that are nearer than this belong to one curve

Point = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Dot:
    tau: float
    work: tuple[float, float]
    stable: bool

    @property
    def equal(self) -> bool:
        return abs(self.work[0] - self.work[1]) < 1e-6


def effort_figure(
    path: str | Path, points: Sequence[Point] | None = None, epsilons: Sequence[float] = EPSILONS
) -> Path:
    """Draw how often both seats of the effort game work in equilibrium, over tau, a panel for each eps.

    Args:
        path: The picture's file; replaced once the new one is whole.
        points: Trained pairs to lay over it: (tau, eps, first seat's probability of working, the second's). A tau
            below the axis is drawn at its left end, where the equilibrium is nearly the quantal response.
        epsilons: One for each panel, in units of the benefit; those of the points must be among them.

    Returns:
        `path`.

    Raises:
        ValueError: If there is no eps, or a point's eps has no panel.
    """
    points = list(points or ())
    strange = sorted({eps for _, eps, _, _ in points} - set(epsilons))
    if not epsilons or strange:
        raise ValueError(f"a panel is needed for each eps: got panels {tuple(epsilons)}, and points at {strange}")
    figure = Figure(figsize=(4.1 * len(epsilons) + 0.6, 4.4), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(epsilons), sharey=True, squeeze=False)[0]
    for panel, eps in zip(panels, epsilons, strict=True):
        _draw_equilibria(panel, eps)
        _draw_points(panel, [point for point in points if point[1] == eps])
        panel.set_title(f"ε = {eps:g}", loc="left", fontsize=11)
        panel.set_xscale("log")
        panel.set_xlim(LEAST_TAU * 0.9, MOST_TAU * 1.1)
        panel.set_xticks([1, 10, 100], ["1", "10", "100"])
        panel.set_ylim(-0.03, 1.03)
        panel.set_xlabel("degree of risk aversion τ")
        panel.grid(color="#DDDDDD", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("probability of working")
    figure.legend(handles=_legend(bool(points)), loc="outside lower center", ncols=3, frameon=False)
    return write_png(figure, Path(path))


def curves(eps: float, taus: Sequence[float]) -> list[list[_Dot]]:
    """Equilibria at neighbouring taus, joined while they stay near each other, equal or unequal, stable or not."""
    open_curves: list[list[_Dot]] = []
    done: list[list[_Dot]] = []
    for tau in taus:
        fresh = [_dot(tau, found) for found in equilibria(effort(), RiskProfile.same(tau, eps))]
        following = []
        for curve in open_curves:
            end = curve[-1]
            near = [
                dot for dot in fresh if dot.equal == end.equal and dot.stable == end.stable and _far(dot, end) < NEAR
            ]
            if near:
                best = min(near, key=lambda dot: _far(dot, end))
                fresh.remove(best)
                curve.append(best)
                following.append(curve)
            else:
                done.append(curve)
        open_curves = following + [[dot] for dot in fresh]
    return done + open_curves


def _dot(tau: float, found: Equilibrium) -> _Dot:
    first, second = found.policies
    return _Dot(tau, (float(first[WORK]), float(second[WORK])), found.stable is not False)


def _far(one: _Dot, other: _Dot) -> float:
    return max(abs(a - b) for a, b in zip(one.work, other.work, strict=True))


def _draw_equilibria(panel: Axes, eps: float) -> None:
    for curve in curves(eps, np.geomspace(LEAST_TAU, MOST_TAU, STEPS).tolist()):
        # By symmetry the second seat's curve is the first seat's of the mirrored equilibrium.
        panel.plot(
            [dot.tau for dot in curve], [dot.work[0] for dot in curve], "-" if curve[0].stable else ":",
            color=EQUAL if curve[0].equal else UNEQUAL, linewidth=2.2, clip_on=False,
            marker="." if len(curve) == 1 else "",
        )  # fmt: skip


def _draw_points(panel: Axes, points: Sequence[Point]) -> None:
    for tau, _, first, second in points:
        at = max(tau, LEAST_TAU)
        panel.plot([at, at], [first, second], color=GREY, linewidth=1, zorder=4)
        for work, marker in ((first, "o"), (second, "s")):
            panel.plot(
                at, work, marker, markersize=7, markerfacecolor="white", markeredgecolor="black", zorder=5,
                clip_on=False,
            )  # fmt: skip


def _legend(points: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=EQUAL, linewidth=2.2, label="both seats work equally often"),
        Line2D([], [], color=UNEQUAL, linewidth=2.2, label="one works more (upper), one less (lower)"),
        Line2D([], [], color=GREY, linewidth=2.2, linestyle=":", label="dotted: unstable"),
    ]
    if points:
        handles += [
            Line2D([], [], marker=marker, linestyle="", markersize=7, markerfacecolor="white", markeredgecolor="black",
                   label=f"trained, {seat} seat")
            for marker, seat in (("o", "first"), ("s", "second"))
        ]  # fmt: skip
    return handles
