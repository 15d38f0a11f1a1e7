"""All equilibria of 2 x 2 games; none is missed.

**Coordinates.** `sides` gives each player a number s that runs along all its best responses, and in closed form the
partner's policy y(s) to which s is the best response.

**Why none is missed.** y(s) is monotone: the adversary's p_1 grows with y, and the gain minus the entropy's term falls
with x, so the slope of y(s) has the sign of d_1 - d_0. So the image of an interval is exactly the interval between the
images of its ends. A box of (s_1, s_2) whose intervals do not meet each other's images holds no equilibrium. All other
boxes are cut to the part that meets, and halved, until they are smaller than `RESOLUTION` (branch and prune, as in
interval arithmetic: Neumaier, *Interval Methods for Systems of Equations*, 1990). The boxes that are left cover every
equilibrium. Boxes that touch form a cluster, and Newton's method starts from three boxes of each. If it fails from one,
the cluster is cut finer. Two equilibria can be taken for one only if both are in one cluster: at a fold or a pitchfork,
where they are about to merge. Within about 1e-7 of such a τ or ε do not trust the count, and expect the search to take
up to a minute; each certificate still holds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from llm_sra.games.game import Array, MatrixGame, RiskProfile
from llm_sra.games.sides import SLACK, Side, growth_at, residual_of

RESOLUTION = 1e-6  # size of the last boxes, in units of the payoffs' range
FINER = 0.1  # factor of the next resolution, if Newton's method fails
FINEST = 1e-11
LEAST_EPS = 1e-5  # an ε below this, in the same units, would hide several equilibria in one box
SAME = 1e-8  # roots closer than this count as one
EXACT = 1e-12  # the error at which Newton's method has converged
TOUCHING = (
    1e-6  # the error that is let pass where the curves nearly touch, nearer than boxes can tell; see certificates
)
REACH = 1e-3  # how far Newton's method may leave its cluster
MOST_BOXES = 40_000
MOST_CLUSTERS = 64  # more than any game has equilibria
CELLS = 24

Boxes = tuple[Array, Array]  # lower and upper corners, (N, 2) each
Sides = tuple[Side, Side]


@dataclass(frozen=True)
class Root:
    """An equilibrium.

    Attributes:
        log_odds: Log-odds of both players' second actions; infinite for pure policies.
        growth: Largest real part of the eigenvalues of the dynamics (see `equilibrium`); None at a kink.
    """

    log_odds: tuple[float, float]
    growth: float | None


def all_roots(game: MatrixGame, profile: RiskProfile) -> list[Root]:
    """Every equilibrium of a 2 x 2 game, ordered by the first player's probability of its second action.

    Raises:
        ValueError: If an ε is above 0 and below `LEAST_EPS` times the payoffs' range, or there is a continuum of
            equilibria.
        ArithmeticError: If Newton's method did not end near an equilibrium.
    """
    scale = game.scale
    if any(0 < eps < LEAST_EPS * scale for eps in profile.eps):
        raise ValueError(f"eps is 0 or at least {LEAST_EPS * scale:g} in this game, got {profile.eps}")
    one, two = (  # in units of the payoffs' range
        Side(own / scale, tau * scale, eps / scale, profile.direction, most=80 + 2 * scale * max(profile.tau))
        for own, tau, eps in zip(game.own, profile.tau, profile.eps, strict=True)
    )
    boxes = _prune((one, two), _grid((one, two)), RESOLUTION)
    if boxes is None:
        raise ValueError(
            f"{game.name} has a continuum of equilibria at {profile} (a player is indifferent over a stretch of "
            "policies): take eps above 0, or change a payoff a little"
        )
    found: list[Root] = []
    for point in _points((one, two), boxes, RESOLUTION):
        odds = float(one.log_odds(point[0])), float(two.log_odds(point[1]))
        found.append(Root(odds, growth_at((one, two), point)))
    return sorted(found, key=lambda root: root.log_odds)


def _points(sides: Sides, boxes: Boxes, resolution: float) -> list[Array]:
    """The roots in boxes of that size, each once."""
    lows, highs = boxes
    points: list[Array] = []
    clusters = _clusters(boxes, resolution)
    if len(clusters) > MOST_CLUSTERS and resolution > FINEST:  # where the curves run side by side
        finer = _prune(sides, boxes, resolution * FINER)
        if finer is not None:
            return _points(sides, finer, resolution * FINER)
        largest = max(map(len, clusters))
        fringe = np.concatenate([cluster for cluster in clusters if 4 * len(cluster) < largest])
        finer = _prune(sides, (lows[fringe], highs[fringe]), resolution * FINER)
        if finer is not None:
            points = _points(sides, finer, resolution * FINER)
            clusters = [cluster for cluster in clusters if 4 * len(cluster) >= largest]
    for cluster in clusters:
        order = cluster[np.lexsort((lows[cluster, 1], lows[cluster, 0]))]
        middles = [(lows[box] + highs[box]) / 2 for box in dict.fromkeys(order[[0, len(order) // 2, -1]].tolist())]
        bounds = lows[cluster].min(axis=0) - REACH, highs[cluster].max(axis=0) + REACH
        reached = [_newton(sides, middle, bounds) for middle in middles]
        if max(error for _, error in reached) > EXACT:
            finer = _prune(sides, (lows[cluster], highs[cluster]), resolution * FINER) if resolution > FINEST else None
            if finer is not None:
                reached = [(point, 0.0) for point in _points(sides, finer, resolution * FINER)]
            else:
                point, error = min(reached, key=lambda pair: pair[1])
                if error > TOUCHING:
                    raise ArithmeticError(f"no equilibrium was reached near {point}, which misses by {error:.1g}")
                reached = [(point, error)]
        for point, _ in reached:
            if all(np.abs(point - other).max() > SAME for other in points):
                points.append(point)
    return points


def _grid(sides: Sides) -> Boxes:
    """Coarse boxes that cover all pairs of best responses."""
    ends = [side.ends() for side in sides]
    edges = [np.linspace(*end, CELLS + 1) if end[0] < end[1] else np.repeat(end[0], 2) for end in ends]
    corners = (np.meshgrid(edges[0][part], edges[1][part], indexing="ij") for part in (slice(-1), slice(1, None)))
    lows, highs = (np.stack(corner, axis=-1).reshape(-1, 2) for corner in corners)
    return lows, highs


def _prune(sides: Sides, boxes: Boxes, resolution: float) -> Boxes | None:
    """Boxes of at most that size that cover all equilibria in the given ones; None if there are too many."""
    lows, highs = boxes[0].copy(), boxes[1].copy()
    small: list[Boxes] = [(lows[:0], highs[:0])]
    while len(lows):
        for mine, other in ((0, 1), (1, 0)) * 2:
            low, high = sides[other].from_log_odds(*sides[mine].image(lows[:, mine], highs[:, mine]))
            lows[:, other] = np.maximum(lows[:, other], low - SLACK)
            highs[:, other] = np.minimum(highs[:, other], high + SLACK)
            held = lows[:, other] <= highs[:, other]
            lows, highs = lows[held], highs[held]
        done = (highs - lows).max(axis=1, initial=0) <= resolution
        small.append((lows[done], highs[done]))
        lows, highs = lows[~done], highs[~done]
        if len(lows) + sum(len(corner) for corner, _ in small) > MOST_BOXES:
            return None
        for side in (0, 1):
            wide = highs[:, side] - lows[:, side] > resolution
            middle = (lows[wide, side] + highs[wide, side]) / 2
            upper, lower = lows[wide].copy(), highs[wide].copy()
            upper[:, side], lower[:, side] = middle, middle
            lows = np.concatenate([lows[~wide], lows[wide], upper])
            highs = np.concatenate([highs[~wide], lower, highs[wide]])
    return np.concatenate([corner for corner, _ in small]), np.concatenate([corner for _, corner in small])


def _clusters(boxes: Boxes, resolution: float) -> list[NDArray[np.intp]]:
    """Indices of the boxes of each cluster: boxes that touch each other."""
    lows, highs = boxes
    order = np.argsort(lows[:, 0])
    starts = lows[order, 0]
    rows: list[int] = []
    columns: list[int] = []
    for place, box in enumerate(order):
        near = order[place : np.searchsorted(starts, highs[box, 0] + resolution, side="right")]
        touch = (lows[near, 1] <= highs[box, 1] + resolution) & (lows[box, 1] <= highs[near, 1] + resolution)
        columns += near[touch].tolist()
        rows += [box] * (len(columns) - len(rows))
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(lows), len(lows)))
    count, labels = connected_components(graph, directed=False)
    return [np.flatnonzero(labels == label) for label in range(count)]


def _newton(sides: Sides, start: Array, bounds: Boxes) -> tuple[Array, float]:
    """The point that Newton's method reaches within the bounds, and its error."""
    point, best, least = start, start, np.inf
    for _ in range(60):
        residual, jacobian = residual_of(sides, point)
        size = float(np.abs(residual).max())
        singular = jacobian[0, 0] * jacobian[1, 1] == jacobian[0, 1] * jacobian[1, 0]
        step = residual if singular else np.linalg.solve(jacobian, residual)
        error = min(size, float(np.abs(step).max()))  # at a large τ, rounding of the coordinates changes the gains
        if error < least:
            best, least = point, error
        if singular or error < 1e-15:
            break
        point = np.clip(point - step, *bounds)
    return best, least
