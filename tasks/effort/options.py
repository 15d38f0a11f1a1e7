"""The task's options: which game is meant, and which words name its actions."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from llm_sra.games.game import MatrixGame, two_player
from llm_sra.games.known import KNOWN

LETTERS = tuple(string.ascii_uppercase)
LIST = (list, tuple)


def plain(name: str) -> str:
    """A game's name as an option and in a problem's id: `prisoner's dilemma` -> `prisoners_dilemma`."""
    return name.replace("'", "").replace(" ", "_")


def known_game(name: str) -> MatrixGame:
    """One of `llm_sra.games.known`.

    Raises:
        TypeError: If the name is not text.
        ValueError: If there is no such game.
    """
    games = {plain(game): game for game in KNOWN}
    if not isinstance(name, str):
        raise TypeError(f"effort option `game` must be a game's name, got {name!r}")
    if plain(name) not in games:
        raise ValueError(f"effort option `game` must be one of {', '.join(games)}, got {name!r}")
    return KNOWN[games[plain(name)]]


def own_game(payoffs: Mapping[str, Sequence[Sequence[float]]]) -> MatrixGame:
    """A game from `first` and `second`, each a list of the first seat's rows, in units of the reward.

    Raises:
        TypeError: If these are not lists of rows of numbers.
        ValueError: If one is missing, or they are not two finite matrices of one shape, 2 x 2 or larger.
    """
    if not isinstance(payoffs, Mapping):
        raise TypeError(f"effort option `payoffs` must be a mapping of `first` and `second`, got {payoffs!r}")
    if set(payoffs) != {"first", "second"}:
        raise ValueError(f"effort option `payoffs` must name `first` and `second` and nothing else, got {payoffs!r}")
    for seat, rows in payoffs.items():
        if not isinstance(rows, LIST) or not all(isinstance(row, LIST) and all(map(_is_number, row)) for row in rows):
            raise TypeError(f"effort option `payoffs`: `{seat}` must be a list of rows of numbers, got {rows!r}")
        if len({len(row) for row in rows}) > 1:
            raise ValueError(f"effort option `payoffs`: the rows of `{seat}` must be of one length, got {rows!r}")
    return two_player("payoffs", payoffs["first"], payoffs["second"])


def default_words(game: MatrixGame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a known game's actions if they are the same for both seats; else letters.

    Raises:
        ValueError: If there are more actions than letters.
    """
    if game.name in KNOWN and game.actions[0] == game.actions[1]:
        return game.actions
    if max(game.shape) > len(LETTERS):
        raise ValueError(f"a game of {game.shape} actions needs the effort option `actions`: there are too few letters")
    return LETTERS[: game.shape[0]], LETTERS[: game.shape[1]]


def words(
    actions: Sequence[str] | Sequence[Sequence[str]], shape: tuple[int, int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of both seats, from one list for both or from two lists.

    Args:
        actions: Value of the option.
        shape: Number of actions of each seat.

    Raises:
        TypeError: If `actions` is neither.
        ValueError: If the words do not fit the game, differ by case alone, or are not made of letters and digits.
    """
    lists: Sequence[Any] = actions if _are(LIST, actions) else (actions, actions)
    if len(lists) != 2 or not all(_are(str, each) for each in lists):
        raise TypeError(
            f"effort option `actions` must be a list of words, or a list of two such lists, got {actions!r}"
        )
    for each, count in zip(lists, shape, strict=True):
        if len(each) != count:
            raise ValueError(f"effort option `actions` must name {shape} actions of the two seats, got {actions!r}")
        if len({word.casefold() for word in each}) < count:
            raise ValueError(f"effort option `actions`: the words of a seat must differ (not in case), got {actions!r}")
        if not all(word.isalnum() for word in each):
            raise ValueError(f"effort option `actions`: words are made of letters and digits alone, got {actions!r}")
    return tuple(lists[0]), tuple(lists[1])


def _are(kind: type | tuple[type, ...], things: object) -> bool:
    return isinstance(things, LIST) and bool(things) and all(isinstance(thing, kind) for thing in things)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
