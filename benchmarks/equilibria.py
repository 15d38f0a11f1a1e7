"""Equilibria of the known games over τ and ε: `python -m benchmarks.equilibria` prints the table of docs/equilibria.md.

Everything is exact (`llm_sra.games`). The team's payoff is what both seats are paid together on average when each plays
its own policy of the equilibrium: the risk aversion is in the policies, not in the pay.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from llm_sra.games import Equilibrium, MatrixGame, RiskProfile, equilibria
from llm_sra.games.known import KNOWN

TAUS, EPSES = (1.0, 3.0, 10.0, 100.0), (0.1, 0.2)


@dataclass(frozen=True)
class Found:
    """The equilibria of a game at one (τ, ε).

    Attributes:
        pays: The team's payoff in each equilibrium that is not known to be unstable, ascending, in units of the
            payoffs' range.
        count: How many equilibria there are, unstable ones included.
    """

    pays: tuple[float, ...]
    count: int

    def cell(self) -> str:
        """The payoff, or the least and the largest, and the number of equilibria."""
        shown = dict.fromkeys(f"{pay:z.2f}" for pay in (*self.pays[:1], *self.pays[-1:]))
        return f"{' to '.join(shown) or 'none stable'} ({self.count})"


def team_payoff(game: MatrixGame, found: Equilibrium) -> float:
    """What both players are paid together, on average, in units of the reward."""
    first, second = found.policies
    return float(first @ (game.first + game.second) @ second)


@cache
def _equilibria(name: str, tau: float, eps: float) -> Found:
    game = scaled(KNOWN[name])
    found = equilibria(game, RiskProfile.same(tau, eps))
    pays = sorted(team_payoff(game, each) for each in found if each.stable is not False)
    return Found(tuple(pays), len(found))


def scaled(game: MatrixGame) -> MatrixGame:
    """The game with payoffs that range over 1, as `normalise` of the task: τ and ε mean the same in all games."""
    return MatrixGame(game.name, game.first / game.scale, game.second / game.scale, game.actions)


def table(games: Sequence[str] = tuple(KNOWN), taus: Sequence[float] = TAUS, epses: Sequence[float] = EPSES) -> str:
    """A Markdown table: a row for each game and ε."""
    head = ("game", "ε", "Nash", "quantal response", *(f"τ {tau:g}" for tau in taus))
    rows = [_row(head), "|---" * len(head) + "|"]
    for name in games:
        for eps in epses:
            cells = [_equilibria(name, tau, e).cell() for tau, e in ((0.0, 0.0), *((t, eps) for t in (0.0, *taus)))]
            rows.append(_row((name, f"{eps:g}", *cells)))
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Team payoffs in the equilibria of the known games, over τ and ε.")
    parser.add_argument("--games", nargs="+", choices=tuple(KNOWN), default=list(KNOWN))
    parser.add_argument("--tau", nargs="+", type=float, default=list(TAUS))
    parser.add_argument("--eps", nargs="+", type=float, default=list(EPSES))
    options = parser.parse_args(arguments)
    print(table(options.games, options.tau, options.eps))


if __name__ == "__main__":
    main()
