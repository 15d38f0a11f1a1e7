"""Two-player matrix games, and the players' risk aversion and rationality. Nothing is solved here."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Pair = tuple[float, float]

# The tether is KL(adversary ‖ partner), as in the paper, or KL(partner ‖ adversary).
Direction = Literal["adversary_partner", "partner_adversary"]
DIRECTIONS: tuple[Direction, ...] = ("adversary_partner", "partner_adversary")


@dataclass(frozen=True, eq=False)
class MatrixGame:
    """A game in which both players move once, at the same time.

    Attributes:
        name: Name for messages and pictures.
        first: (A, B), the first player's payoff if it plays row a and the second plays column b, in units of the
            reward.
        second: (A, B), the second player's payoff, with the same rows and columns.
        actions: Names of the A rows, and names of the B columns.

    Raises:
        ValueError: If the payoffs are not two finite matrices of one shape with at least 2 rows and 2 columns, or if
            the actions' names do not fit them.
    """

    name: str
    first: Array
    second: Array
    actions: tuple[tuple[str, ...], tuple[str, ...]]

    def __post_init__(self) -> None:
        for field in ("first", "second"):
            payoffs = np.array(getattr(self, field), dtype=np.float64)
            if payoffs.ndim != 2 or min(payoffs.shape) < 2 or not np.isfinite(payoffs).all():
                raise ValueError(f"{self.name}: expected finite payoffs of shape (A, B), 2 or more each, got {payoffs}")
            payoffs.flags.writeable = False
            object.__setattr__(self, field, payoffs)
        if self.first.shape != self.second.shape:
            raise ValueError(f"{self.name}: payoffs of shapes {self.first.shape} and {self.second.shape} differ")
        if tuple(map(len, self.actions)) != self.first.shape:
            raise ValueError(f"{self.name}: {self.actions} do not name {self.first.shape} actions")

    @property
    def shape(self) -> tuple[int, int]:
        """Number of actions of both players."""
        return self.first.shape[0], self.first.shape[1]

    @property
    def own(self) -> tuple[Array, Array]:
        """Each player's payoffs with its own actions as rows: (A, B) and (B, A)."""
        return self.first, self.second.T

    @property
    def scale(self) -> float:
        """The larger range of a player's payoffs, in units of the reward; 1 if all payoffs of both are equal."""
        return max(float(np.ptp(self.first)), float(np.ptp(self.second))) or 1.0

    @property
    def symmetric(self) -> bool:
        """Whether the game is the same after the players change seats, so that both can share a policy."""
        return self.shape[0] == self.shape[1] and bool(np.array_equal(self.second, self.first.T))


def two_player(
    name: str, first: ArrayLike, second: ArrayLike, actions: tuple[tuple[str, ...], tuple[str, ...]] | None = None
) -> MatrixGame:
    """A game from nested lists; without names, actions are numbered."""
    one, two = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    if actions is None:
        rows, columns = one.shape if one.ndim == 2 else (0, 0)
        actions = tuple(map(str, range(rows))), tuple(map(str, range(columns)))
    return MatrixGame(name, one, two, actions)


@dataclass(frozen=True)
class RiskProfile:
    """Both players' aversion to risk and bounded rationality.

    Attributes:
        tau: Each player's degree of risk aversion, per unit of the reward, 0 or more. With 0 the adversary is the
            partner itself (quantal response). Infinite for both players: adversaries have no tether.
        eps: Each player's weight of the entropy, in units of the reward per nat: finite, 0 or more. With 0 best
            responses are exact.
        direction: Direction of the Kullback-Leibler divergence that tethers the adversary to the partner.

    Raises:
        ValueError: If a value is out of its range.
    """

    tau: Pair
    eps: Pair
    direction: Direction = "adversary_partner"

    def __post_init__(self) -> None:
        for name, pair in (("tau", self.tau), ("eps", self.eps)):
            free = name == "tau" and tuple(pair) == (np.inf, np.inf)
            if not free and (len(pair) != 2 or not all(np.isfinite(number) and number >= 0 for number in pair)):
                raise ValueError(
                    f"{name} holds a number of 0 or more, and finite, for each player, got {pair}; without a tether "
                    "tau is inf for both"
                )
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction is {' or '.join(DIRECTIONS)}, got {self.direction!r}")

    @classmethod
    def same(cls, tau: float, eps: float, direction: Direction = "adversary_partner") -> "RiskProfile":
        """Two players with the same τ and ε."""
        return cls((tau, tau), (eps, eps), direction)
