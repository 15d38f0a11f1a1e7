"""Moves of games of TextArena that can be listed, as replies. Which of them are legal is for the game to say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANYTHING = "(say anything)"  # what stands for a move while players talk, or have none
CARDS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")


@dataclass(frozen=True)
class OneList:
    """Moves of a game that has the same ones in every state.

    Attributes:
        moves: All of them.
        talks: Whether players talk before they decide.
    """

    moves: Sequence[str]
    talks: bool = False

    def __call__(self, env: Any) -> Sequence[str]:
        """The moves in a state of the environment."""
        return [ANYTHING] if self.talks and _talking(env) else self.moves


def _always(*moves: object, talks: bool = False) -> OneList:
    return OneList(tuple(f"[{move}]" for move in moves), talks)


def _talking(env: Any) -> bool:
    return bool(env.state.game_state["phase"] == "conversation")


def _nim(env: Any) -> Sequence[str]:
    piles = enumerate(env.state.game_state["piles"])
    return [f"[{pile} {taken}]" for pile, size in piles for taken in range(1, size + 1)]


def _ultimatum(env: Any) -> Sequence[str]:
    if env.state.game_state["phase"] != "offering":
        return ["[Accept]", "[Reject]"]
    return [f"[Offer: ${offer}]" for offer in range(env.pool + 1)]


def _othello(env: Any) -> Sequence[str]:
    return [f"[{row}, {column}]" for row, column in env.state.game_state["valid_moves"]] or [ANYTHING]  # it is skipped


def _goods(env: Any) -> Sequence[str]:
    return [ANYTHING] if _talking(env) else [f"[{tokens}]" for tokens in range(env.endowment + 1)]


def _chopsticks(env: Any) -> Sequence[str]:
    hits = [f"[attack {mine} {other}]" for mine in (0, 1) for other in (0, 1)]
    return [*hits, *(f"[split {left} {right}]" for left in range(5) for right in range(5))]


def _play(env: Any) -> Sequence[str]:
    hand = env.state.game_state["players"][env.state.current_player_id]["hand"]
    return [f"[play {place}]" for place in range(1, len(hand) + 1)]


def _facts(env: Any) -> Sequence[str]:
    last = env.state.turn >= env.max_turns - 1
    return ["[Fact 1]", "[Fact 2]"] if last else [ANYTHING]


MOVES: Mapping[str, Callable[[Any], Sequence[str]]] = {
    "Briscola": _play,
    "Chopsticks": _chopsticks,
    "ConnectFour": lambda env: [f"[col {column}]" for column in range(env.num_cols)],
    "GameOfPureStrategy": _always(*CARDS),
    "GermanWhist": _play,
    "HighSociety": _always(*range(1, 12)),
    "IndianPoker": _always("check", "call", "fold", "bet 1", "bet 5"),
    "IteratedMatchingPennies": _always("heads", "tails"),
    "IteratedPrisonersDilemma": _always("Cooperate", "Defect", talks=True),
    "IteratedRockPaperScissors": _always("rock", "paper", "scissors"),
    "IteratedUltimatumGame": _ultimatum,
    "KuhnPoker": _always("Check", "Bet", "Call", "Fold"),
    "MarketEntryGame": _always("E", "S", talks=True),
    "Nim": _nim,
    "Othello": _othello,
    "PigDice": _always("roll", "hold"),
    "Poker": _always("check", "call", "fold"),
    "PublicGoodsGame": _goods,
    "Snake": _always("up", "down", "left", "right"),
    "Surround": _always("up", "down", "left", "right"),
    "TicTacToe": _always(*range(9)),
    "TruthAndDeception": _facts,
    "WildTicTacToe": _always(*(f"{mark} {cell}" for mark in "XO" for cell in range(9))),
}
