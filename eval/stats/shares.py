"""Who contributed to a team's result, and who did the work: Shapley values and shares of effort.

Source: L. S. Shapley, A value for n-person games, Contributions to the Theory of Games II, 1953.
"""

import math
from collections.abc import Hashable, Mapping
from itertools import combinations
from typing import TypeVar

from eval.stats.intervals import StatsError

Player = TypeVar("Player", bound=Hashable)


def shapley(values: Mapping[frozenset[Player], float]) -> dict[Player, float]:
    """Shapley values of n players: what each adds to those before it, averaged over all orders.

    φ_i = Σ_S |S|! (n - |S| - 1)! / n! [v(S ∪ {i}) - v(S)] over the coalitions S without i.

    Args:
        values: The result of every coalition of the players, 2^n of them, the empty one included; in any unit.

    Returns:
        By player, in the results' unit; they sum to v(all) - v(∅).

    Raises:
        StatsError: If there is no player, a coalition is missing, or a result is not finite.
    """
    players = frozenset().union(*values)
    n = len(players)
    if not n:
        raise StatsError("expected the results of the coalitions of one player or more, got no player")
    if len(values) != 2**n:
        coalitions = (frozenset(some) for size in range(n + 1) for some in combinations(players, size))
        missing = next(coalition for coalition in coalitions if coalition not in values)
        raise StatsError(f"{n} players have {2**n} coalitions, got {len(values)}: {_named(missing)} is missing")
    for coalition, value in values.items():
        if not math.isfinite(value):
            raise StatsError(f"the result of {_named(coalition)} is {value}, expected a finite number")
    shared: dict[Player, float] = {}
    for player in (player for coalition in values if len(coalition) == 1 for player in coalition):  # in their order
        added = [
            (values[before | {player}] - value) / (n * math.comb(n - 1, len(before)))
            for before, value in values.items()
            if player not in before
        ]
        shared[player] = math.fsum(added)
    return shared


def contribution_shares(efforts: Mapping[Player, float]) -> dict[Player, float] | None:
    """Each one's share of all effort.

    Args:
        efforts: By player, 0 or more, in one unit.

    Returns:
        By player, in [0, 1], summing to 1; with n players 1 / n is even, and 0 rests on the others. None if nobody
        made any.

    Raises:
        StatsError: If an effort is negative or not finite.
    """
    for player, effort in efforts.items():
        if not (math.isfinite(effort) and effort >= 0):
            raise StatsError(f"expected efforts of 0 or more, got {effort} of {player!r}")
    total = math.fsum(efforts.values())
    return {player: effort / total for player, effort in efforts.items()} if total else None


def _named(coalition: frozenset[Player]) -> str:
    return "{" + ", ".join(sorted(map(repr, coalition))) + "}"
