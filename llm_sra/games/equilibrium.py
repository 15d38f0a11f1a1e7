"""The oracle: all risk-averse quantal response equilibria of a matrix game, each with a certificate and its stability.

**Stability.** The dynamics are smoothed best responses in continuous time, x' = BR_1(y) - x, y' = BR_2(x) - y: what
small steps of learning follow on average (perturbed, or stochastic, fictitious play: Fudenberg and Kreps 1993;
Hofbauer and Hopkins, *Learning in perturbed asymmetric games*, 2005). An equilibrium is stable if all eigenvalues of
their Jacobian have a negative real part. In 2 x 2 games this holds exactly if the product of the best responses' slopes
is below 1. Gradient ascent of both players on f, at any positive speeds, has the same stable equilibria: the trace of
its Jacobian is negative, and the determinant has the sign of 1 minus that product. (Iterated best responses, with steps
of 1, also need the product to be above -1: they circle in matching pennies, where learners with small steps do not.)
For ε = 0 the slope is the limit as ε falls to 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from llm_sra.games.certificate import possible_gains
from llm_sra.games.game import Array, MatrixGame, Pair, RiskProfile
from llm_sra.games.larger import many_starts, response_slopes
from llm_sra.games.nash import extreme_nash
from llm_sra.games.objective import adversary, value
from llm_sra.games.sides import log_policy
from llm_sra.games.two_by_two import all_roots
from llm_sra.games.untethered import worst_case

MARGINAL = 1e-6  # a growth this close to 0 is rounding


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """Policies at which neither player can gain.

    Attributes:
        log_policies: (A,) and (B,), in nats; -inf where an action is never played.
        adversaries: (B,) and (A,): the partner that the first player imagines, and the one that the second does.
        values: f of both players, in units of the reward.
        certificate: Upper bound of what either player could gain by any other policy, in units of the reward.
        growth: Largest real part of the eigenvalues of smoothed best responses in continuous time: how fast a small
            deviation grows (below 0: shrinks) per unit of their time. None if it is not decided: if a best response for
            ε = 0 has a kink, and in mixed Nash equilibria of games larger than 2 x 2.
    """

    log_policies: tuple[Array, Array]
    adversaries: tuple[Array, Array]
    values: Pair
    certificate: float
    growth: float | None

    @property
    def policies(self) -> tuple[Array, Array]:
        """(A,) and (B,); each sums to 1."""
        return np.exp(self.log_policies[0]), np.exp(self.log_policies[1])

    @property
    def stable(self) -> bool | None:
        """Whether small deviations die out; None if that is not decided, as at a bifurcation (growth 0)."""
        return None if self.growth is None or abs(self.growth) < MARGINAL else self.growth < 0


def equilibria(game: MatrixGame, profile: RiskProfile, starts: int = 64, seed: int = 0) -> list[Equilibrium]:
    """The equilibria of a game.

    In 2 x 2 games, all of them (the argument is in `two_by_two`). In larger games with τ = ε = 0 that can be
    enumerated, all extreme Nash equilibria. In larger games with ε above 0, those that many starts reach: usually, but
    not surely, all. Without a tether (τ infinite) there is one, which is found.

    Args:
        game: The game.
        profile: Its players. (τ, ε) = (0, 0) gives Nash equilibria, τ = 0 alone quantal response equilibria, and
            τ = ∞ the policies that do best beside the partner that is worst for them.
        starts: Number of quasi-random starts, for games larger than 2 x 2.
        seed: Seed of the starts.

    Returns:
        Ordered by the first player's policy: in 2 x 2 games by ascending probability of its last action.

    Raises:
        ValueError: If there is a continuum of equilibria, if an ε is above 0 but too small, or if in a game larger than
            2 x 2 only some of the τ and ε are 0.
        ArithmeticError: If the search in a 2 x 2 game, or without a tether, did not end near an equilibrium.
    """
    if profile.tau == (np.inf, np.inf):
        one, two = (worst_case(own, eps) for own, eps in zip(game.own, profile.eps, strict=True))
        # Their growth: best responses do not move with the partner.
        found = _equilibrium(game, profile, (one[0], two[0]), -1.0)
        return [replace(found, adversaries=(one[1], two[1]))]
    if game.shape == (2, 2):
        roots = all_roots(game, profile)
        pairs = [(log_policy(root.log_odds[0]), log_policy(root.log_odds[1])) for root in roots]
        growths: list[float | None] = [root.growth for root in roots]
    elif profile.tau == profile.eps == (0, 0):
        with np.errstate(divide="ignore"):
            pairs = [(np.log(x), np.log(y)) for x, y in extreme_nash(game)]
        growths = [-1.0 if _strict(game, pair) else None for pair in pairs]
    elif min(profile.eps) > 0:
        pairs = many_starts(game, profile, starts, seed)
        growths = [_growth(game, profile, pair) for pair in pairs]
    else:
        raise ValueError(
            f"{game.name} has {game.shape} actions: beyond 2 x 2, eps of 0 is solved for tau of 0 and both players "
            f"only, got {profile}; take a small eps"
        )
    return [_equilibrium(game, profile, pair, growth) for pair, growth in zip(pairs, growths, strict=True)]


def symmetric(found: Iterable[Equilibrium], tolerance: float = 1e-6) -> list[Equilibrium]:
    """The equilibria in which both players have the same policy: all that agents with a shared policy can reach."""
    return [
        each for each in found
        if len(each.policies[0]) == len(each.policies[1]) and np.abs(np.subtract(*each.policies)).max() <= tolerance
    ]  # fmt: skip


def _strict(game: MatrixGame, pair: tuple[Array, Array]) -> bool:
    """Whether any other action would cost either player something: then small deviations change no best response."""
    for own, mine, other in zip(game.own, pair, pair[::-1], strict=True):
        earned = np.sort(own @ np.exp(other))
        if mine.max() < 0 or not earned[-1] - earned[-2] > 1e-9 * game.scale:
            return False
    return True


def _growth(game: MatrixGame, profile: RiskProfile, pair: tuple[Array, Array]) -> float:
    one, two = response_slopes(game, profile, pair)
    joint = np.block([[np.zeros((len(one), len(one))), one], [two, np.zeros((len(two), len(two)))]])
    return float(np.linalg.eigvals(joint).real.max()) - 1


def _equilibrium(
    game: MatrixGame, profile: RiskProfile, pair: tuple[Array, Array], growth: float | None
) -> Equilibrium:
    (tau_one, tau_two), (eps_one, eps_two), direction = profile.tau, profile.eps, profile.direction
    first, second = game.own
    return Equilibrium(
        log_policies=pair,
        adversaries=(
            adversary(first, pair[0], pair[1], tau_one, direction),
            adversary(second, pair[1], pair[0], tau_two, direction),
        ),
        values=(
            value(first, pair[0], pair[1], tau_one, eps_one, direction),
            value(second, pair[1], pair[0], tau_two, eps_two, direction),
        ),
        certificate=max(gain.high for gain in possible_gains(game, profile, pair)),
        growth=growth,
    )
