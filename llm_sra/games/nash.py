"""All extreme Nash equilibria of a bimatrix game, by enumerating the vertices of both best-response polyhedra.

Source: Avis, Rosenberg, Savani and von Stengel, *Enumeration of Nash equilibria for two-player games*, Economic Theory
42 (2010), after Mangasarian (1964). A vertex has the labels of its own actions that it never plays, and of the
partner's actions that are best responses to it. A pair of vertices with all labels is an equilibrium. In a game that is
not degenerate these are all equilibria; in a degenerate one, every equilibrium lies between some of these.
"""

from itertools import combinations
from math import comb

import numpy as np

from llm_sra.games.game import Array, MatrixGame

MOST_BASES = 200_000
TOLERANCE = 1e-9


def extreme_nash(game: MatrixGame) -> list[tuple[Array, Array]]:
    """Policies (A,) and (B,) of each extreme equilibrium of players that are risk-neutral and perfectly rational.

    Raises:
        ValueError: If the game is too large to enumerate.
    """
    rows, columns = game.shape
    if comb(rows + columns, rows) > MOST_BASES:
        raise ValueError(f"{game.name}: a game of {game.shape} actions is too large to enumerate its vertices")
    first, second = (payoffs - payoffs.min() + game.scale for payoffs in (game.first, game.second))  # above 0
    ours = _vertices(second.T / game.scale)  # labels: own rows, then the columns that are best against x
    theirs = _vertices(first / game.scale)  # labels: own columns, then the rows that are best against y
    every = set(range(rows + columns))
    found = []
    for x, labels in ours:
        for y, others in theirs:
            if labels | {(label + rows) % (rows + columns) for label in others} == every:
                found.append((x / x.sum(), y / y.sum()))
    return found


def _vertices(payoffs: Array) -> list[tuple[Array, frozenset[int]]]:
    """Vertices of {z >= 0, payoffs @ z <= 1} except 0, with labels: z_j = 0 gives j, payoffs_i @ z = 1 gives n + i.

    Args:
        payoffs: (m, n), above 0.
    """
    m, n = payoffs.shape
    left, right = np.vstack([np.eye(n), payoffs]), np.r_[np.zeros(n), np.ones(m)]
    found: dict[tuple[float, ...], tuple[Array, frozenset[int]]] = {}
    for basis in map(list, combinations(range(n + m), n)):
        if abs(np.linalg.det(left[basis])) < 1e-12:
            continue
        vertex = np.linalg.solve(left[basis], right[basis])
        if vertex.min() < -TOLERANCE or (payoffs @ vertex).max() > 1 + TOLERANCE or vertex.max() < TOLERANCE:
            continue
        vertex = np.where(vertex < TOLERANCE, 0, vertex)
        tight = np.abs(left @ vertex - right) < TOLERANCE
        found[tuple(np.round(vertex, 8))] = vertex, frozenset(np.flatnonzero(tight).tolist())
    return list(found.values())
