"""Moves as text: how a seat is shown those of games that others wrote; which one a reply means. It plays nothing."""

import re
import string
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tasks.bare import bare

Move = TypeVar("Move", bound=str)
MOVES = "Your moves:"
LETTERS = string.ascii_uppercase


def view_text(about: str, seen: str, moves: Sequence[str], letters: bool, moves_first: bool = False) -> str:
    """What a seat sees: what the game is about, if it is told; what it observes; its moves, a line each.

    With `moves_first` the moves stand above what it observes, and an empty line between the two.
    """
    names = [move_name(move) for move in moves]
    lines = [f"{letter}: {name}" for letter, name in zip(LETTERS, names, strict=False)] if letters else names
    told = (
        [f"{about} Answer with one of your moves, for example: {LETTERS[0] if letters else names[0]}"] if about else []
    )
    observed, listed = [seen.strip("\n")] * bool(seen.strip()), [MOVES, *lines]
    return "\n".join([*told, *listed, "", *observed] if moves_first and observed else [*told, *observed, *listed])


def move_name(move: str) -> str:
    """A move as it is shown: on one line, without brackets or commas around it."""
    name = " ".join(move.split()).strip(" ,")
    return name[1:-1] if name.startswith("(") and name.endswith(")") else name


def shown_moves(text: str) -> list[str]:
    """The moves that a view shows.

    Raises:
        ValueError: If it shows none.
    """
    _, mark, after = text.rpartition(MOVES)
    listed = after.strip("\n").partition("\n\n")[0]
    moves = [re.sub(r"^[A-Z]: ", "", line) for line in listed.split("\n")] if mark else []
    if not any(moves):
        raise ValueError(f"partners read the moves below the line {MOVES!r}, got {text[-80:]!r}")
    return moves


def shown_observation(text: str) -> str:
    """What a view shows besides its moves, where it does not tell what the game is about."""
    above, _, below = text.rpartition(MOVES)
    return (above.strip("\n") or below.partition("\n\n")[2]).strip("\n")


def read_move(reply: str, moves: Sequence[str], strict: bool, letters: bool = False) -> int | None:
    """Which move a reply means: the place among the moves, or None.

    Case, and white space and punctuation around a move, do not matter, but where they tell moves apart. Unless `strict`
    is on, a reply may say more, if just one move is in it; one that is part of another that is there, too, does not
    count. With `letters` a move's letter means the move, too.
    """
    letter = bare(reply).upper()
    if letters and len(letter) == 1 and letter in LETTERS[: len(moves)]:
        return LETTERS.index(letter)
    said, names = _plain(reply), [_plain(move_name(move)) for move in moves]
    if said in names:
        return names.index(said)
    words = {bare(name) for name in names}
    if (word := bare(said)) in words:
        found = {word}
    else:
        found = set() if strict else _largest(name for name in words - {""} if _holds(said, name))
    if len(found) != 1:
        return None
    alike = {name for name in names if bare(name) in found}  # they differ in signs alone: `8h3c` and `8h3c+`
    if len(alike) > 1 or found == {""}:
        alike = _largest(name for name in alike if name in said)
    return names.index(alike.pop()) if len(alike) == 1 else None


def _holds(text: str, words: str) -> bool:
    """Whether words stand in a text, and not as a part of others."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _largest(texts: Iterable[str]) -> set[str]:
    """Those that are no part of another one."""
    every = set(texts)
    return {text for text in every if not any(text != other and text in other for other in every)}


def named_move(reply: str, moves: Sequence[Move], strict: bool = True) -> Move | None:
    """The move that a reply names by one word; None if it names none, or more than one.

    Case and other words do not matter: `Up.` and `I go up` are up, `upwards` is not.

    Args:
        reply: Untrusted.
        moves: One lower-case word each.
        strict: Whether the same move twice is more than one, too. If not, `Up. I go up` is up.
    """
    words = re.findall(r"[^\W_]+", reply.lower())
    named = [move for word in words for move in moves if word == move]
    return named[0] if named and (len(named) if strict else len(set(named))) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
