"""What games of TextArena count: the score of each player, where a game's state has one.

TextArena pays 1 for a win, -1 for a loss, and 0 for a draw, whatever the score. Games that are missing here have
nothing but that, or are not decided by what they count (Alquerque, Crusade and Snake can be lost with more points).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Pair = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """How a game's score is read.

    Attributes:
        read: From the environment, what both players have; of chips, what they won.
        bounds: The least and the largest score of a player; None where the largest is not known. A player whose reply
            ended the game gets the least.
    """

    read: Callable[[Any], Pair]
    bounds: Callable[[Any], tuple[float, float | None]]


def _counted(name: str, start: str = "") -> Callable[[Any], Pair]:
    """Reads a field of the state; `start` names the environment's attribute of what each player begins with."""

    def read(env: Any) -> Pair:
        pair, begun = env.state.game_state[name], getattr(env, start) if start else 0
        return float(pair[0] - begun), float(pair[1] - begun)

    return read


def _rounds(env: Any) -> tuple[float, float]:
    return 0.0, float(env.num_rounds)


def _prisoners(env: Any) -> tuple[float, float]:
    payoffs = (env.cooperate_reward, env.defect_reward, env.sucker_reward, env.mutual_defect_reward)
    return float(env.num_rounds * min(payoffs)), float(env.num_rounds * max(payoffs))


def _inventory(env: Any) -> Pair:
    value = env.state.game_state["inventory_value"]
    return float(value[0]["change"]), float(value[1]["change"])


def _worth(env: Any) -> Pair:
    """The capital before the auction, the net worth after it."""
    state = env.state.game_state
    worth = state["auction_results"]["player_net_worth"] if state["auction_results"] else state["remaining_capital"]
    return float(worth[0]), float(worth[1])


def _golf(env: Any) -> Pair:
    """Less is better in golf."""
    players = env.state.game_state["players"]
    return -float(players[0]["score"]), -float(players[1]["score"])


def _recruit(env: Any) -> Pair:
    """Points of the accepted proposal; 0 without one."""
    deal = env.state.game_state["accepted_proposal"]
    points = [env._calculate_score(player, deal["choices"]) if deal else 0 for player in (0, 1)]
    return float(points[0]), float(points[1])


def _recruit_bounds(env: Any) -> tuple[float, float]:
    issues = [[pair[0] for pair in choices.values()] for choices in env.point_value_dict.values()]
    return float(sum(map(min, issues))), float(sum(map(max, issues)))


def _dollars(env: Any) -> Pair:
    return float(env.final_amounts[0]), float(env.final_amounts[1])


def _kuhn(env: Any) -> Pair:
    """TextArena takes the antes of a round that is not played any more: they are given back."""
    state = env.state.game_state
    back = env.ante * (state["current_round"] > env.max_rounds)
    return float(state["player_chips"][0] + back), float(state["player_chips"][1] + back)


def _discs(env: Any) -> Pair:
    state = env.state.game_state
    return float(state["black_count"]), float(state["white_count"])


def _market(env: Any) -> tuple[float, float]:
    payoffs = (env.entry_profit, env.overcrowding_penalty, env.safe_payoff)
    return float(env.num_rounds * min(payoffs)), float(env.num_rounds * max(payoffs))


SCORES: Mapping[str, Score] = {
    "Briscola": Score(_counted("points_won"), lambda env: (0.0, 120.0)),
    "ColonelBlotto": Score(_counted("scores"), lambda env: (0.0, env.num_rounds // 2 + 1.0)),
    "GameOfPureStrategy": Score(_counted("player_scores"), lambda env: (0.0, 91.0)),
    "GermanWhist": Score(_counted("tricks_won"), lambda env: (0.0, 26.0)),
    "Golf": Score(_golf, lambda env: (-10.0 * env.num_cards, 0.0)),
    "HighSociety": Score(_counted("player_prestige"), lambda env: (0.0, float(sum(range(1, 11))))),
    "IndianPoker": Score(
        _counted("player_chips", "starting_bank"), lambda env: (-env.starting_bank, env.starting_bank)
    ),
    "IteratedMatchingPennies": Score(_counted("points"), _rounds),
    "IteratedPrisonersDilemma": Score(_counted("scores"), _prisoners),
    "IteratedRockPaperScissors": Score(_counted("points"), _rounds),
    "IteratedTwoThirdsAverage": Score(_counted("points"), _rounds),
    "IteratedUltimatumGame": Score(_counted("player_totals"), lambda env: (0.0, env.pool * (env.max_turns // 2))),
    "KuhnPoker": Score(_kuhn, lambda env: (-2.0 * env.max_rounds, 2.0 * env.max_rounds)),
    "MarketEntryGame": Score(_counted("total_scores"), _market),
    "MemoryGame": Score(_counted("score"), lambda env: (0.0, env.grid_size**2 // 2)),
    "NewRecruit": Score(_recruit, _recruit_bounds),
    "Othello": Score(_discs, lambda env: (0.0, env.N**2)),
    "PigDice": Score(_counted("scores"), lambda env: (0.0, env.winning_score)),
    "Poker": Score(_counted("player_chips", "starting_chips"), lambda env: (-env.starting_chips, env.starting_chips)),
    "PublicGoodsGame": Score(
        _counted("total_scores"),
        lambda env: (0.0, env.num_rounds * env.endowment * max(1.0, 1.0 + env.multiplication_factor / 2)),
    ),
    "SimpleBlindAuction": Score(_worth, lambda env: (0.0, None)),
    "SimpleNegotiation": Score(
        _inventory,
        lambda env: (-max(value["initial"] for value in env.state.game_state["inventory_value"].values()), None),
    ),
    "TwoDollar": Score(_dollars, lambda env: (0.0, env.total_amount)),
}
