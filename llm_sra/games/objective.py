"""What a player of a matrix game maximises, its adversary, and how both move with the policies.

Player i, with policy x over its actions and payoffs R (own actions as rows), meets a partner with policy y:

    f(x, y) = min over p of { x R p + (1/τ) D(p, y) } + ε H(x)

with D = KL(p ‖ y) (`adversary_partner`) or KL(y ‖ p) (`partner_adversary`), and H the entropy. f is concave in x: a
minimum of functions that are linear in x, plus the entropy. Source: SRPO (arXiv 2602.21515); RQE, Mazumdar et al.
(arXiv 2406.14156). Policies are given as logarithms, because τ can give weight to a probability as small as exp(-1000).
"""

import numpy as np

from llm_sra.games.game import Array, Direction

NEAR = 1e-6  # for τ times the payoffs' range below this, KL(y ‖ p) / τ would be rounding; a series is exact to NEAR²
TINY = 1e-250
LOST = 1e-200  # KL(y ‖ p) takes a probability below this as 0, where it is continuous, unlike KL(p ‖ y)


def adversary(payoffs: Array, log_policy: Array, log_partner: Array, tau: float, direction: Direction) -> Array:
    """The p at which the inner minimum is reached.

    For KL(p ‖ y): p ∝ y exp(-τ u), u the player's expected payoff by partner's action. For KL(y ‖ p):
    p = y / (τ (λ + u)), with λ from Σ p = 1. That p may put mass where the partner never does: if y allows no λ above
    -min u, the rest of the mass lies on the worst actions, evenly if they tie (the value does not depend on how).
    Without a tether all of it does.

    Args:
        payoffs: (A, B), own actions as rows, in units of the reward.
        log_policy: (A,), log x, in nats; -inf where an action is never played.
        log_partner: (B,), log y.
        tau: Degree of risk aversion, 0 or more; infinite for no tether.
        direction: Direction of the divergence.

    Returns:
        (B,), sums to 1.
    """
    partner = np.exp(log_partner)
    if tau == 0:
        return partner
    by_action = np.exp(log_policy) @ payoffs
    if tau == np.inf:
        worst = by_action == by_action.min()
        return np.asarray(worst / worst.sum())
    if direction == "adversary_partner":
        tilted = log_partner - tau * by_action
        return np.exp(tilted - logsumexp(tilted))
    partner = np.where(partner < LOST, 0, partner)
    above = tau * (by_action - by_action.min())
    slack = _slack(partner, above)
    inside = above + slack > 0
    imagined = np.divide(partner, above + slack, out=np.zeros_like(partner), where=inside)
    if not inside.all():
        imagined[~inside] = max(0.0, 1 - imagined.sum()) / (~inside).sum()
    return np.asarray(imagined / imagined.sum())


def logsumexp(numbers: Array) -> float:
    """Log Σ exp of a few numbers; -inf is a term of 0. SciPy's function takes a hundred times as long."""
    most = float(numbers.max())
    return most + float(np.log(np.exp(numbers - most).sum()))


def _slack(partner: Array, above: Array) -> float:
    """η >= 0 with Σ y / (above + η) = 1; 0 if the sum is below 1 already at η = 0.

    Newton's method on 1 / Σ, which is concave in η, from below: it never steps past the root.
    """
    inside = partner > 0
    mass, above = partner[inside], above[inside]
    slack = max(0.0, float((mass - above).max()))  # no single term can exceed 1
    for _ in range(200):
        below = np.maximum(above + slack, TINY)
        terms = mass / below
        total = terms.sum()
        step = total * (total - 1) / (terms / below).sum() if total > 1 else 0.0
        if not step > 1e-16 * slack:
            break
        slack += step
    return slack


def risk_value(payoffs: Array, log_policy: Array, log_partner: Array, tau: float, direction: Direction) -> float:
    """The inner minimum, without the entropy, in units of the reward. For the arguments see `adversary`."""
    by_action = np.exp(log_policy) @ payoffs
    partner = np.exp(log_partner)
    mean = float(partner @ by_action)
    if tau == 0:
        return mean
    if tau == np.inf:
        return float(by_action.min())
    spread = tau * float(np.ptp(by_action))
    if spread < NEAR:  # both divergences agree to second order
        return mean - tau / 2 * float(partner @ (by_action - mean) ** 2)
    if direction == "adversary_partner":
        least = by_action.min()
        if spread < 1:
            return float(least - np.log1p(partner @ np.expm1(-tau * (by_action - least))) / tau)
        return float(-logsumexp(log_partner - tau * by_action) / tau)
    imagined = adversary(payoffs, log_policy, log_partner, tau, direction)
    held = partner > LOST
    return float(imagined @ by_action + partner[held] @ (log_partner[held] - np.log(imagined[held])) / tau)


def entropy(log_policy: Array) -> float:
    """H(x) in nats; 0 log 0 = 0."""
    policy = np.exp(log_policy)
    return float(-(policy[policy > 0] @ log_policy[policy > 0]))


def value(payoffs: Array, log_policy: Array, log_partner: Array, tau: float, eps: float, direction: Direction) -> float:
    """f(x, y), in units of the reward. For the arguments see `adversary`; `eps` is the entropy's weight, 0 or more."""
    return risk_value(payoffs, log_policy, log_partner, tau, direction) + eps * entropy(log_policy)


def duality_gap(
    payoffs: Array, log_policy: Array, log_partner: Array, tau: float, eps: float, direction: Direction
) -> float:
    """An upper bound of what any change of the own policy could gain: 0 exactly at a best response.

    By weak duality max_x f(x) <= max_x { x R p + (1/τ) D(p, y) + ε H(x) } for every p. At x's own adversary p the
    right side is f(x) plus ε KL(x ‖ softmax(R p / ε)), and for ε = 0 plus max_a (R p)_a - x R p.

    Returns:
        The bound in units of the reward, 0 or more. For the arguments see `value`.
    """
    reward = payoffs @ adversary(payoffs, log_policy, log_partner, tau, direction)
    best = eps * logsumexp(reward / eps) if eps > 0 else reward.max()
    return max(0.0, float(best - np.exp(log_policy) @ reward - eps * entropy(log_policy)))


def sensitivity(imagined: Array, log_partner: Array, tau: float, direction: Direction) -> tuple[Array, Array]:
    """How the adversary moves: dp = by_partner @ d(log y) - by_payoff @ du.

    Args:
        imagined: (B,), the adversary p.
        log_partner: (B,), log y; `d(log y)` may be off by a constant.
        tau: Degree of risk aversion, 0 or more.
        direction: Direction of the divergence.

    Returns:
        by_partner: (B, B).
        by_payoff: (B, B), symmetric and positive semidefinite.
    """
    if tau == 0 or direction == "adversary_partner":
        spread = _centred(imagined[:, None] * imagined)
        return spread, tau * spread
    partner = np.exp(log_partner)
    partner = np.where(partner < LOST, 0, partner)
    # p = y / w with w = τ (λ + u), so w follows from p; 0 where p has mass and y has none.
    above = np.divide(partner, imagined, out=np.ones_like(partner), where=imagined > 0)
    speed: Array = tau * imagined / np.maximum(above, TINY)
    share: Array = speed / speed.sum()
    return _centred(share[:, None] * imagined) @ (np.eye(len(partner)) - partner), _centred(share[:, None] * speed)


def _centred(product: Array) -> Array:
    """diag(column sums) - product; the diagonal is summed from the other terms, whose sizes may differ by 10^250."""
    rest = product - np.diag(np.diag(product))
    return np.diag(rest.sum(axis=0)) - rest
