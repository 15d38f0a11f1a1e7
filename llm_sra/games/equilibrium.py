"""The oracle: every risk-averse quantal response equilibrium of a matrix game, with a certificate and its stability.

**Stability.** The dynamics are smoothed best responses in continuous time, x' = BR_1(y) - x, y' = BR_2(x) - y: what
small steps of learning follow on average (perturbed, or stochastic, fictitious play: Fudenberg and Kreps 1993;
Hofbauer and Hopkins, *Learning in perturbed asymmetric games*, 2005). An equilibrium is stable if all eigenvalues of
their Jacobian have a negative real part. In 2 x 2 games that is so exactly if the product of the best responses'
slopes is below 1, and the gradient ascent of both players on f, at whatever positive speeds, has the same stable
equilibria: its Jacobian's trace is negative, and its determinant has the sign of 1 minus that product. (Iterated best
responses, with steps of 1, need the product above -1 too: they circle in matching pennies, which learners with small
steps do not.) For ε = 0 the slope is the limit of falling ε.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llm_sra.games.certificate import possible_gains
from llm_sra.games.game import Array, MatrixGame, Pair, RiskProfile
from llm_sra.games.larger import many_starts, response_slopes
from llm_sra.games.nash import extreme_nash
from llm_sra.games.objective import adversary, value
from llm_sra.games.two_by_two import all_roots

MARGINAL = 1e-6  # a growth this near 0 is rounding


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """Policies at which neither player can gain.

    Attributes:
        log_policies: (A,) and (B,), in nats; -inf where an action is never played.
        adversaries: (B,) and (A,): the partner that the first player imagines, and the one that the second does.
        values: f of both players, in units of the reward.
        certificate: What neither player could gain more than, by any other policy, in units of the reward.
        growth: Largest real part of the eigenvalues of smoothed best responses in continuous time: how fast a small
            deviation grows (below 0: shrinks) per unit of their time. None where it is not decided: where a best
            response for ε = 0 has a kink, and in mixed Nash equilibria of games larger than 2 x 2.
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
        """Whether small deviations die out; None where that is not decided, as at a bifurcation (growth 0)."""
        return None if self.growth is None or abs(self.growth) < MARGINAL else self.growth < 0


def equilibria(game: MatrixGame, profile: RiskProfile, starts: int = 64, seed: int = 0) -> list[Equilibrium]:
    """The equilibria of a game.

    All of them in 2 x 2 games (the argument is in `two_by_two`), and all extreme Nash equilibria (τ = ε = 0) in games
    that can be enumerated. In larger games with ε above 0, those that many starts reach: usually, not surely, all.

    Args:
        game: The game.
        profile: Its players; (τ, ε) = (0, 0) is Nash, τ = 0 alone quantal response.
        starts: Quasi-random starts, for games larger than 2 x 2.
        seed: Of these.

    Returns:
        By the first player's policy: ascending probability of the last action in 2 x 2 games.

    Raises:
        ValueError: If there is a continuum of equilibria, an ε is above 0 but too small, or a game larger than 2 x 2
            has an ε of 0 that does not belong to Nash.
        ArithmeticError: If the search of a 2 x 2 game ended nowhere near an equilibrium.
    """
    if game.shape == (2, 2):
        roots = all_roots(game, profile)
        pairs = [(_two(root.log_odds[0]), _two(root.log_odds[1])) for root in roots]
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
    """Those in which both players have one policy: what agents that share a policy can reach in a symmetric game."""
    return [
        each for each in found
        if len(each.policies[0]) == len(each.policies[1]) and np.abs(np.subtract(*each.policies)).max() <= tolerance
    ]  # fmt: skip


def _two(log_odds: float) -> Array:
    return np.array([-np.logaddexp(0, log_odds), -np.logaddexp(0, -log_odds)])


def _strict(game: MatrixGame, pair: tuple[Array, Array]) -> bool:
    """Whether either player would lose by any other action: then small deviations change no best response."""
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
