"""SRPO on a matrix game without a model: logits of heroes and adversaries, by exact and by sampled gradients.

`python -m benchmarks.exact_learning` prints what becomes of the effort game at (τ, ε) = (10, 0.1), whose only
equilibrium is 0.844 / 0.844. What exact gradients do not reach, no number of episodes does; what they reach and sampled
ones do not is noise. Updates are Adam's, as in a training; its steps have one length, so that the rate is about how far
a logit moves in a step. Adversaries are 2.5 times as fast, as in the recipe `effort/srpo`, and all follow a cosine.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from llm_sra.games import MatrixGame, RiskProfile, equilibria
from llm_sra.games.game import Array
from llm_sra.games.known import KNOWN
from llm_sra.objectives.tau_schedule import TauSchedule

TAU, EPS = 10.0, 0.1
EPISODES = 64  # of each match in a step of the recipe
RATIO = 2.5  # of the adversaries' rate to the heroes'
NEAR = 0.05
BETAS, TINY = (0.9, 0.999), 1e-8  # of Adam


@dataclass(frozen=True)
class Setting:
    """A training.

    Attributes:
        rate: About how far a logit moves in a step, at first.
        steps: How many.
        start: τ at first; it goes along a line to its end in half of the steps. None: it is constant.
    """

    rate: float
    steps: int
    start: float | None = None

    def tau(self, step: int) -> float:
        """τ of a step."""
        if self.start is None:
            return TAU
        return TauSchedule("linear", TAU, self.start, self.steps // 2).at(step)


SETTINGS = (
    Setting(0.08, 150), Setting(0.08, 400), Setting(0.08, 150, 3.0), Setting(0.08, 400, 3.0), Setting(0.02, 150),
    Setting(0.02, 150, 3.0), Setting(0.02, 400), Setting(0.02, 400, 3.0), Setting(0.01, 800),
)  # fmt: skip


def exact_gradients(payoffs: Array, x: Array, p: Array, y: Array, tau: float, eps: float) -> tuple[Array, Array]:
    """Gradients of a hero's and its adversary's objective by their logits.

    Args:
        payoffs: (A, B), the hero's, own actions as rows.
        x: (N, A), the hero's policies.
        p: (N, B), the adversary's.
        y: (N, B), the live partner's.
        tau: Degree of risk aversion, above 0.
        eps: Weight of the hero's entropy.

    Returns:
        (N, A) and (N, B): of E[R] + ε H(x), and of -E[R] - KL(p ‖ y) / τ.
    """
    mine = p @ payoffs.T - eps * np.log(x)
    theirs = -(x @ payoffs) - (np.log(p) - np.log(y)) / tau
    return _by_logits(x, mine), _by_logits(p, theirs)


def sampled_gradients(
    payoffs: Array, x: Array, p: Array, y: Array, tau: float, eps: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The same from `EPISODES` episodes, as a training estimates them: leave-one-out baseline, exact entropy, k1."""
    a, b = _drawn(x, rng), _drawn(p, rng)
    paid = payoffs[a, b]
    nats = np.take_along_axis(np.log(p) - np.log(y), b, axis=1)
    gradients = []
    for policy, said, pay in ((x, a, paid), (p, b, -paid - nats / tau)):
        advantage = (pay - pay.mean(axis=1, keepdims=True)) * EPISODES / (EPISODES - 1)
        score = np.eye(policy.shape[1])[said] - policy[:, None]
        gradients.append((advantage[..., None] * score).mean(axis=1))
    return gradients[0] + _by_logits(x, -eps * np.log(x)), gradients[1]


def learn(game: MatrixGame, setting: Setting, eps: float = EPS, seeds: int | None = None) -> Array:
    """Train from uniform policies.

    Args:
        game: The game.
        setting: How.
        eps: Weight of the heroes' entropy.
        seeds: Of so many trainings by sampled gradients; None: one by exact gradients.

    Returns:
        (steps, N, 2), the probability of each hero's last action after each step.
    """
    rng, count = np.random.default_rng(0), seeds or 1
    heroes, others = (0, 1), (2, 3)  # players; 2 is the adversary of hero 0, in the seat of hero 1
    logits = [np.zeros((count, game.shape[seat])) for seat in (0, 1, 1, 0)]
    first, second = ([np.zeros_like(each) for each in logits] for _ in range(2))
    path = []
    for step in range(setting.steps):
        policies, tau = [_softmax(each) for each in logits], setting.tau(step)
        gradients: list[Array] = [np.zeros(0)] * 4
        for me, other in zip(heroes, others, strict=True):
            given = game.own[me], policies[me], policies[other], policies[1 - me], tau, eps
            found = exact_gradients(*given) if seeds is None else sampled_gradients(*given, rng)
            gradients[me], gradients[other] = found
        rate = setting.rate * (1 + cos(pi * step / setting.steps)) / 2
        for player, gradient in enumerate(gradients):
            first[player] += (1 - BETAS[0]) * (gradient - first[player])
            second[player] += (1 - BETAS[1]) * (gradient**2 - second[player])
            mean, square = (
                moment[player] / (1 - beta ** (step + 1)) for moment, beta in zip((first, second), BETAS, strict=True)
            )
            logits[player] += rate * (RATIO if player in others else 1.0) * mean / (np.sqrt(square) + TINY)
        path.append([_softmax(logits[me])[:, -1] for me in heroes])
    return np.asarray(path).transpose(0, 2, 1)


def table(settings: Sequence[Setting] = SETTINGS, seeds: int = 20) -> str:
    """A Markdown table: a row for each setting."""
    game = KNOWN["effort"]
    [exact] = equilibria(game, RiskProfile.same(TAU, EPS))
    goal = float(exact.policies[0][-1])
    head = ("rate", "steps", "τ", "exact: end", "exact: highest", "sampled: off by, median", "sampled: within 0.05")
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for setting in settings:
        path, ends = learn(game, setting)[:, 0], learn(game, setting, seeds=seeds)[-1]
        off = np.abs(ends - goal).max(axis=1)
        start = "" if setting.start is None else f"{setting.start:g} to "
        rows.append(
            f"| {setting.rate:g} | {setting.steps} | {start}{TAU:g} | {path[-1].max():.3f} | {path.max():.3f} "
            f"| {np.median(off):.3f} | {(off <= NEAR).sum()} of {seeds} |"
        )
    return "\n".join(rows)


def _by_logits(policy: Array, value: Array) -> Array:
    """(N, A) gradient of Σ policy · value by the logits of a softmax policy, the value held fixed."""
    return np.asarray(policy * (value - (policy * value).sum(axis=1, keepdims=True)))


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _drawn(policy: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    """(N, EPISODES) actions."""
    below = rng.random((len(policy), EPISODES, 1)) < np.cumsum(policy, axis=1)[:, None, :]
    return np.asarray(below.argmax(axis=2))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="The effort game at (10, 0.1), learned by exact and sampled gradients."
    )
    parser.add_argument("--seeds", type=int, default=20, help="trainings by sampled gradients (default %(default)s)")
    print(table(seeds=parser.parse_args(arguments).seeds))


if __name__ == "__main__":
    main()
