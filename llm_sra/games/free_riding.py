"""Where in the plane of (τ, ε) free-riding is an equilibrium of the effort game: one works, the other rests."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from llm_sra.games.game import Array, Direction, RiskProfile
from llm_sra.games.known import effort
from llm_sra.games.two_by_two import all_roots


def effort_gap(
    taus: Sequence[float],
    epsilons: Sequence[float],
    direction: Direction = "adversary_partner",
    cost: float = 0.3,
    stable_only: bool = False,
) -> Array:
    """The largest difference between the seats' probabilities of working, over all equilibria.

    Args:
        taus: Degrees of risk aversion, of both seats.
        epsilons: Weights of the entropy, of both seats, in units of the benefit.
        direction: Of the tether's divergence.
        cost: Of working, in units of the benefit.
        stable_only: Leave out equilibria that are known to be unstable.

    Returns:
        (taus, epsilons), in [0, 1]; 0 where all equilibria are symmetric.
    """
    game, gaps = effort(cost=cost), np.zeros((len(taus), len(epsilons)))
    for row, tau in enumerate(taus):
        for column, eps in enumerate(epsilons):
            for root in all_roots(game, RiskProfile.same(tau, eps, direction)):
                if stable_only and root.growth is not None and root.growth >= 0:
                    continue
                gaps[row, column] = max(gaps[row, column], abs(np.subtract(*expit(root.log_odds))))
    return gaps


def free_riding_region(
    taus: Sequence[float],
    epsilons: Sequence[float],
    direction: Direction = "adversary_partner",
    cost: float = 0.3,
    gap: float = 0.5,
) -> NDArray[np.bool_]:
    """Whether some stable equilibrium has one seat work more often than the other by `gap` or more.

    Returns:
        (taus, epsilons). Arguments as of `effort_gap`; `gap` is above 0, at most 1.
    """
    if not 0 < gap <= 1:
        raise ValueError(f"gap is a difference of probabilities, above 0 and at most 1, got {gap}")
    return effort_gap(taus, epsilons, direction, cost, stable_only=True) >= gap
