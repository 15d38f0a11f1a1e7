"""What a player could still gain by another policy: the certificate of an equilibrium, however that was found.

f is concave in the player's own policy. So duality gives an upper bound of the gain (`objective.duality_gap`), and
L-BFGS over softmax logits gives a lower one. Without a tether `untethered` has the most that any policy gets.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from llm_sra.games.game import Array, Direction, MatrixGame, RiskProfile
from llm_sra.games.objective import adversary, duality_gap, logsumexp, value
from llm_sra.games.untethered import worst_case

EXACT = 1e-11  # a bound this small, in units of the payoffs' range, needs no search


@dataclass(frozen=True)
class Gain:
    """Bounds on the most that a player can gain by changing its own policy alone.

    Attributes:
        low: What the best policy that was found gains, in units of the reward, 0 or more.
        high: What no policy can exceed, in units of the reward.
    """

    low: float
    high: float


def exploitability(game: MatrixGame, profile: RiskProfile, policies: tuple[Array, Array]) -> float:
    """The most that either player could gain by another policy: 0 exactly at the equilibria.

    Args:
        game: The game.
        profile: Its players.
        policies: (A,) and (B,), each 0 or more with sum 1; those of trained agents, for example.

    Returns:
        The gain in units of the reward. It is never too small, and too large only by the error of the search.

    Raises:
        ValueError: If a policy is negative somewhere or does not sum to 1.
    """
    logs = []
    for policy, size in zip(policies, game.shape, strict=True):
        chances = np.asarray(policy, dtype=np.float64)
        if chances.shape != (size,) or not (chances >= 0).all() or abs(chances.sum() - 1) > 1e-6:
            raise ValueError(f"a policy of {size} actions is 0 or more and sums to 1, got {policy}")
        with np.errstate(divide="ignore"):
            logs.append(np.log(chances / chances.sum()))
    return max(gain.high for gain in possible_gains(game, profile, (logs[0], logs[1])))


def possible_gains(game: MatrixGame, profile: RiskProfile, log_policies: tuple[Array, Array]) -> tuple[Gain, Gain]:
    """What each player could gain by another policy.

    Args:
        game: The game.
        profile: Its players.
        log_policies: (A,) and (B,), in nats; -inf where an action is never played.
    """
    first, second = (
        _possible_gain(
            game.own[player], log_policies[player], log_policies[1 - player],
            profile.tau[player], profile.eps[player], profile.direction, EXACT * game.scale,
        )
        for player in (0, 1)
    )  # fmt: skip
    return first, second


def _possible_gain(
    payoffs: Array, log_policy: Array, log_partner: Array, tau: float, eps: float, direction: Direction, exact: float
) -> Gain:
    if tau == np.inf:
        gain = worst_case(payoffs, eps)[2] - value(payoffs, log_policy, log_partner, tau, eps, direction)
        return Gain(max(0.0, gain), max(0.0, gain))
    bound = duality_gap(payoffs, log_policy, log_partner, tau, eps, direction)
    if bound <= exact:
        return Gain(0.0, bound)
    here = value(payoffs, log_policy, log_partner, tau, eps, direction)
    low, high = 0.0, bound
    for start in (np.zeros(len(payoffs)), 10.0 * np.eye(len(payoffs))[log_policy.argmin()]):
        logits = minimize(
            _descent, start, args=(payoffs, log_partner, tau, eps, direction), jac=True, method="L-BFGS-B",
            options={"maxiter": 2000, "ftol": 1e-16, "gtol": 1e-13},
        ).x  # fmt: skip
        better = logits - logsumexp(logits)
        gain = value(payoffs, better, log_partner, tau, eps, direction) - here
        low = max(low, gain)
        high = min(high, gain + duality_gap(payoffs, better, log_partner, tau, eps, direction))
    return Gain(low, max(low, high))


def _descent(
    logits: Array, payoffs: Array, log_partner: Array, tau: float, eps: float, direction: Direction
) -> tuple[float, Array]:
    """-f and its gradient by the logits: by the envelope theorem R p - ε log x, seen from the softmax."""
    log_policy = logits - logsumexp(logits)
    policy = np.exp(log_policy)
    slope = payoffs @ adversary(payoffs, log_policy, log_partner, tau, direction) - eps * log_policy
    return -value(payoffs, log_policy, log_partner, tau, eps, direction), -policy * (slope - policy @ slope)
