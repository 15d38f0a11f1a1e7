"""A player of a 2 x 2 game: its best responses as one curve, and the distance of two policies from both curves.

**Coordinates.** A player's policy is the probability x of its second action. Against its adversary p that action gains
q = d_0 + p_1 (d_1 - d_0), where d_b is the gain against the partner's action b. At a best response q = ε log(x / (1 -
x)); for ε = 0, q <= 0 at x = 0, q >= 0 at x = 1, and q = 0 between. So one number s runs along all best responses, and
both q(s) and x(s) grow with s: s = q for ε > 0; for ε = 0, s = q up to 0, then s in [0, 1] for the mixed x, from
log-odds -M to M, then s = q + 1. M exceeds what the partner's adversary can make of any mixed policy.

**Best responses run backwards in closed form.** s gives p_1 = (q - d_0) / (d_1 - d_0), and p_1 with x gives the one
partner's policy y to which x is the best response: log-odds(y) = log-odds(p_1) + τ Δ(x) for KL(p ‖ y), and
y_1 = p_1 (1 + τ p_0 Δ(x)) for KL(y ‖ p), Δ = u_1 - u_0. If y_1 of the second formula leaves [0, 1], there is no such y;
the end at which it leaves tells on which side of the images of all y the x lies.
"""

from dataclasses import dataclass, field

import numpy as np

from llm_sra.games.game import Array, Direction
from llm_sra.games.objective import adversary, sensitivity

SLACK = 1e-12  # rounding error allowed in a probability, or in a gain in units of the payoffs' range
KINK = 1e-8


@dataclass(frozen=True)
class Side:
    """One player, its payoffs with own actions as rows."""

    payoffs: Array
    tau: float
    eps: float
    direction: Direction
    most: float  # M, the bound of the log-odds of mixed policies, for ε = 0
    gains: Array = field(init=False)  # (2,), d: what the second action gains over the first, by the partner's action

    def __post_init__(self) -> None:
        object.__setattr__(self, "gains", self.payoffs[1] - self.payoffs[0])

    @property
    def slope(self) -> float:
        slope = float(self.gains[1] - self.gains[0])
        return slope if abs(slope) > SLACK else 0.0

    def ends(self) -> tuple[float, float]:
        """The least and largest s."""
        low, high = float(self.gains.min()), float(self.gains.max())
        if self.eps > 0:
            return low, high
        return low + (low > 0), high + (high >= 0)

    def gain(self, s: Array) -> Array:
        return s if self.eps > 0 else s - np.clip(s, 0, 1)

    def log_odds(self, s: Array) -> Array:
        if self.eps > 0:
            return s / self.eps
        return np.where(s <= 0, -np.inf, np.where(s >= 1, np.inf, self.most * (2 * s - 1)))

    def from_log_odds(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The range of s of all policies between two log-odds."""
        if self.eps > 0:
            return self.eps * low, self.eps * high
        low_s, high_s = (np.clip((end / self.most + 1) / 2, 0, 1) for end in (low, high))
        return np.where(np.isneginf(low), -np.inf, low_s), np.where(np.isposinf(high), np.inf, high_s)

    def partner(self, s: Array) -> tuple[Array, Array]:
        """Log-odds of the y to which s is a best response, and 0, or 1 or -1 where y would be above 1 or below 0."""
        gain = self.gain(s)
        imagined = np.clip(np.stack([self.gains[1] - gain, gain - self.gains[0]]) / self.slope, 0, 1)
        ahead = (self.payoffs[0, 1] - self.payoffs[0, 0]) + probability(self.log_odds(s)) * self.slope
        with np.errstate(divide="ignore"):
            if self.tau == 0 or self.direction == "adversary_partner":
                return np.log(imagined[1]) - np.log(imagined[0]) + self.tau * ahead, np.zeros_like(s)
            policy = imagined * (1 + self.tau * imagined[::-1] * np.stack([-ahead, ahead]))
            beyond = 1.0 * (policy[0] < -SLACK) - 1.0 * (policy[1] < -SLACK)
            policy = np.clip(policy, 0, 1)
            return np.log(policy[1]) - np.log(policy[0]), beyond

    def image(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Least and largest log-odds of the y to which some s between two is a best response; inf and -inf if none."""
        if self.slope == 0:  # the partner does not matter
            return np.full_like(low, -np.inf), np.full_like(high, np.inf)
        wider = (low - SLACK, high + SLACK) if self.slope > 0 else (high + SLACK, low - SLACK)
        (least, under), (most, over) = (self.partner(s) for s in wider)
        none = (under > 0) | (over < 0)
        return np.where(none, np.inf, least), np.where(none, -np.inf, most)


def probability(log_odds: Array) -> Array:
    """The probability of log-odds, also of infinite ones; small probabilities stay exact."""
    return np.asarray(np.exp(-np.logaddexp(0, -log_odds)))


def residual_of(sides: tuple[Side, Side], point: Array) -> tuple[Array, Array]:
    """The difference of each player's gain from that of its coordinate, (2,), and its derivatives, (2, 2)."""
    residual, jacobian = np.zeros(2), np.zeros((2, 2))
    logs = [log_policy(float(side.log_odds(s))) for side, s in zip(sides, point, strict=True)]
    for mine, other in ((0, 1), (1, 0)):
        side = sides[mine]
        imagined = adversary(side.payoffs, logs[mine], logs[other], side.tau, side.direction)
        residual[mine] = side.gain(point[mine]) - imagined @ side.gains
        by_partner, by_payoff = sensitivity(imagined, logs[other], side.tau, side.direction)
        own, rate = _speeds(side, point[mine])
        jacobian[mine, mine] = rate + own * (side.gains @ by_payoff @ side.gains)
        # In log-odds, whose derivative by s is finite at pure policies too; d log y_1 - d log y_0 is all that counts.
        partner = sides[other]
        if partner.eps > 0:
            jacobian[mine, other] = -(side.gains @ by_partner[:, 1]) / partner.eps
        elif 0 < point[other] < 1:
            jacobian[mine, other] = -(side.gains @ by_partner[:, 1]) * 2 * partner.most
    return residual, jacobian


def _speeds(side: Side, s: Array) -> tuple[float, float]:
    """dx/ds and dq/ds."""
    x = float(probability(side.log_odds(s)))
    if side.eps > 0:
        return x * (1 - x) / side.eps, 1.0
    return (2 * side.most * x * (1 - x), 0.0) if 0 < s < 1 else (0.0, 1.0)


def growth_at(sides: tuple[Side, Side], point: Array) -> float | None:
    """-1 + sqrt(product of the best responses' slopes), or its real part; see `equilibrium`."""
    if any(side.eps == 0 and min(abs(s), abs(s - 1)) < KINK for side, s in zip(sides, point, strict=True)):
        return None
    _, jacobian = residual_of(sides, point)
    turned, own = jacobian[0, 1] * jacobian[1, 0], jacobian[0, 0] * jacobian[1, 1]
    if turned <= 0:
        return -1.0
    return -1.0 + float(np.sqrt(turned / own)) if own > 0 else np.inf


def log_policy(log_odds: float) -> Array:
    """Log-probabilities of two actions, from the log-odds of the second."""
    return np.array([-np.logaddexp(0, log_odds), -np.logaddexp(0, -log_odds)])
