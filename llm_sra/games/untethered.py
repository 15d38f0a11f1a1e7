"""A player whose adversary has no tether, τ = ∞: its live partner does not matter.

    f(x) = min over p of { x R p } + ε H(x)

By the minimax theorem the maximum is the minimum over p of ε log Σ exp(R p / ε), which is convex in p, and there
x = softmax(R p / ε). For ε > 0 f is strictly concave, so this x is the only one; p need not be. For ε = 0 the player
and its adversary play a zero-sum game, which may have many x.
"""

import numpy as np
from scipy.optimize import minimize

from llm_sra.games.game import Array, two_player
from llm_sra.games.nash import extreme_nash
from llm_sra.games.objective import entropy, logsumexp

SAME = 1e-9  # policies closer than this count as one
LEAST = 1e-7  # the largest error of the maximum, in units of the payoffs' range


def worst_case(payoffs: Array, eps: float) -> tuple[Array, Array, float]:
    """The policy that does best beside the partner that is worst for it.

    Args:
        payoffs: (A, B), own actions as rows, in units of the reward.
        eps: Weight of the entropy, 0 or more.

    Returns:
        Its logarithm (A,), an adversary (B,) to which it is a best response, and what no policy's f exceeds, in units
        of the reward: this one's reaches it but for `LEAST`.

    Raises:
        ValueError: If several policies do best, which only an ε of 0 allows.
        ArithmeticError: If the search did not end near it.
    """
    scale = float(np.ptp(payoffs)) or 1.0
    if eps == 0:
        (policy, imagined), *others = extreme_nash(two_player("zero-sum", payoffs, -payoffs))
        if any(np.abs(policy - other).max() > SAME for other, _ in others):
            raise ValueError(
                "several policies do best beside an adversary without a tether at eps 0, so there is none to compare "
                "with: take eps above 0"
            )
        with np.errstate(divide="ignore"):
            return np.log(policy), imagined, float((policy @ payoffs).min())
    imagined = _adversary(payoffs, eps, scale)
    earned = payoffs @ imagined / eps
    log_policy, most = earned - logsumexp(earned), eps * logsumexp(earned)
    reached = (np.exp(log_policy) @ payoffs).min() + eps * entropy(log_policy)
    if not most - reached <= LEAST * scale:
        raise ArithmeticError(f"the best policy beside an adversary without a tether was not found at eps {eps:g}")
    return log_policy, imagined, most


def _adversary(payoffs: Array, eps: float, scale: float) -> Array:
    """(B,), the p of the minimum."""

    def left(imagined: Array) -> tuple[float, Array]:
        earned = payoffs @ imagined / eps
        most = logsumexp(earned)
        return eps * most / scale, np.exp(earned - most) @ payoffs / scale

    count = payoffs.shape[1]
    found = minimize(
        left, np.full(count, 1 / count), jac=True, method="SLSQP", bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda imagined: imagined.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-16, "maxiter": 1000},
    ).x.clip(0)  # fmt: skip
    return np.asarray(found / found.sum())
