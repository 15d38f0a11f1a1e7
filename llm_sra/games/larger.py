"""Equilibria of games of any size with ε above 0, from many starts. It is not guaranteed that all are found.

The unknowns are the earnings of each action against the adversary, q = R p. In these the equations stay well
conditioned as ε falls: the policy is softmax(q / ε). The starts are policies of both players: a Sobol sequence over the
simplices, all pairs of pure policies, and the uniform pair. From each start the Levenberg-Marquardt method is run at
the wanted ε, and along a falling ε, as Turocy does to single out Nash equilibria (*A dynamic homotopy interpretation of
the logistic quantal response equilibrium correspondence*, 2005). A last round starts between the equilibria that were
found, where unstable ones lie.
"""

from itertools import combinations

import numpy as np
from scipy.optimize import root
from scipy.stats import qmc

from llm_sra.games.game import Array, MatrixGame, RiskProfile
from llm_sra.games.objective import adversary, logsumexp, sensitivity

SAME = 1e-6  # policies closer than this count as one
HOMOTOPY = (16.0, 8.0, 4.0, 2.0, 1.4)  # multiples of ε
MOST_STEPS = 150  # of the method, from one start
ROUNDS = 3  # of starts between the equilibria that were found
MOST_BETWEEN = 200  # starts in a round
LEAST = 1e-9  # the largest error of a root, in units of the payoffs' range


def many_starts(game: MatrixGame, profile: RiskProfile, starts: int, seed: int) -> list[tuple[Array, Array]]:
    """Log-policies (A,) and (B,) of the equilibria that were reached.

    Args:
        game: The game.
        profile: Its players, both with ε above 0.
        starts: Number of quasi-random starts.
        seed: Seed of the starts.
    """
    rows, columns = game.shape
    beliefs = _beliefs(rows, columns, starts, seed)
    first = [np.concatenate([game.first @ belief[rows:], game.second.T @ belief[:rows]]) for belief in beliefs]
    found = _reach(game, profile, first, [])
    branches = first
    for factor in HOMOTOPY:
        wider = RiskProfile(profile.tau, (profile.eps[0] * factor, profile.eps[1] * factor), profile.direction)
        branches = _reach(game, wider, branches, [])
    found = _reach(game, profile, branches, found)
    for _ in range(ROUNDS):
        between = [a + part * (b - a) for a, b in combinations(found, 2) for part in (0.25, 0.5, 0.75)]
        before, found = len(found), _reach(game, profile, between[:MOST_BETWEEN], found)
        if len(found) == before:
            break
    pairs = [_log_policies(game, profile, earned) for earned in found]
    return sorted(pairs, key=lambda pair: tuple(np.exp(np.concatenate(pair)).round(6)))


def _reach(game: MatrixGame, profile: RiskProfile, starts: list[Array], found: list[Array]) -> list[Array]:
    """`found`, and each new equilibrium that is reached from the starts."""
    found = list(found)
    known = [np.exp(np.concatenate(_log_policies(game, profile, earned))) for earned in found]
    for start in starts:
        reached = _solve(game, profile, start)
        if reached is None:
            continue
        policies = np.exp(np.concatenate(_log_policies(game, profile, reached)))
        if all(np.abs(policies - other).max() > SAME for other in known):
            found.append(reached)
            known.append(policies)
    return found


def response_slopes(game: MatrixGame, profile: RiskProfile, log_policies: tuple[Array, Array]) -> tuple[Array, Array]:
    """Slopes of both best responses at an equilibrium, in logits, so that small probabilities do no harm.

    A player's logits are R p / ε, and p also moves with its own policy: with dp = P d(log y) - V R' dx and
    dx = S d(logits), d(own logits) = (1 + R V R' S / ε)⁻¹ R P / ε d(partner's logits).

    Returns:
        (A, B) and (B, A).
    """
    (own_one, cross_one), (own_two, cross_two) = _derivatives(game, profile, log_policies)
    return np.asarray(np.linalg.solve(own_one, cross_one), float), np.asarray(
        np.linalg.solve(own_two, cross_two), float
    )


def _beliefs(rows: int, columns: int, starts: int, seed: int) -> Array:
    """(starts + rows columns + 1, rows + columns): in each row, a point of either simplex."""
    corners = [np.concatenate([np.eye(rows)[a], np.eye(columns)[b]]) for a in range(rows) for b in range(columns)]
    even = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns)])
    # -log of uniform numbers, normalised, is uniform over the simplex.
    drawn = -np.log(np.clip(qmc.Sobol(rows + columns, rng=seed).random(starts), 1e-12, 1 - 1e-12))
    drawn = np.concatenate([part / part.sum(axis=1, keepdims=True) for part in np.split(drawn, [rows], axis=1)], axis=1)
    return np.vstack([even, *corners, drawn])


def _log_policies(game: MatrixGame, profile: RiskProfile, earned: Array) -> tuple[Array, Array]:
    one, two = earned[: game.shape[0]] / profile.eps[0], earned[game.shape[0] :] / profile.eps[1]
    return one - logsumexp(one), two - logsumexp(two)


def _solve(game: MatrixGame, profile: RiskProfile, start: Array) -> Array | None:
    """The q that is reached from a start, (A + B,); None if there is none."""
    eps = np.repeat(profile.eps, game.shape)

    def residual(earned: Array) -> tuple[Array, Array]:
        logs = _log_policies(game, profile, earned)
        (own_one, cross_one), (own_two, cross_two) = _derivatives(game, profile, logs)
        jacobian = np.block([[own_one, -cross_one], [-cross_two, own_two]]) * eps[:, None] / eps[None, :]
        return earned - np.concatenate(_earned(game, profile, logs)), jacobian

    result = root(residual, start, jac=True, method="lm", options={"xtol": 1e-14, "maxiter": MOST_STEPS})
    missed = np.abs(residual(result.x)[0]).max()
    return result.x if missed <= LEAST * game.scale else None


def _earned(game: MatrixGame, profile: RiskProfile, logs: tuple[Array, Array]) -> tuple[Array, Array]:
    first, second = (
        own @ adversary(own, logs[player], logs[1 - player], profile.tau[player], profile.direction)
        for player, own in enumerate(game.own)
    )
    return first, second


def _derivatives(
    game: MatrixGame, profile: RiskProfile, logs: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """For each player, the derivatives 1 + R V R' S / ε by its own logits and R P / ε by its partner's."""
    blocks = []
    for player, own in enumerate(game.own):
        tau, eps, policy = profile.tau[player], profile.eps[player], np.exp(logs[player])
        imagined = adversary(own, logs[player], logs[1 - player], tau, profile.direction)
        by_partner, by_payoff = sensitivity(imagined, logs[1 - player], tau, profile.direction)
        spread = np.diag(policy) - np.outer(policy, policy)
        blocks.append((np.eye(len(own)) + own @ by_payoff @ own.T @ spread / eps, own @ by_partner / eps))
    return blocks[0], blocks[1]
