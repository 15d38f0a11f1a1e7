"""What a seat is shown of a game of OpenSpiel, and which move a reply means. It plays nothing."""

import re
import string
from collections.abc import Sequence

MOVES = "Your moves:"
LETTERS = string.ascii_uppercase
AROUND = string.whitespace + string.punctuation

# What a game is about, for models that do not know it; the rules that its observations leave open.
ABOUT = {
    "hanabi": (
        "You play Hanabi together. Cards have a colour and a rank; stacks are built from 1 upwards, one for each "
        "colour, and each card on a stack is a point for all. You see all cards but your own (XX). Playing a card that "
        "does not fit costs a life, and without lives all points are lost. Revealing costs an information token, "
        "discarding gains one."
    ),
    "tiny_hanabi": (
        "You and your partner each have a card that only the holder sees, and each choose one action. The first "
        "one's action tells the second one something. Cards and actions decide how many points both get."
    ),
    "tiny_bridge_2p": (
        "You and your partner bid with two cards each, out of jacks, queens, kings and aces of hearts and spades. You "
        "see your own. The last bid is played: a higher one pays both more, and costs both if the cards do not make it."
    ),
    "bridge_uncontested_bidding": (
        "You and your partner bid in bridge, and the others pass. You see your own hand: spades, hearts, diamonds, "
        "clubs. The last bid is the contract; both are paid by how near its score comes to that of the best one."
    ),
    "coop_box_pushing": (
        "Two robots push boxes to the top of a field. The big box, which pays most, moves only if both push at once. "
        "Each step costs a little. You see what is before you."
    ),
    "matrix_coordination": "You and your partner each choose at once. Both get a point if you choose the same.",
    "negotiation": (
        "You and another divide items. Your values are yours alone to know. By turns you propose what you would keep; "
        "an accepted proposal pays each its values, no agreement pays nothing."
    ),
    "bargaining": (
        "You and another divide a pool of items that you value differently. An offer says what the other one gets. "
        "An agreed offer pays each the values of the items; no agreement pays nothing."
    ),
    "trade_comm": (
        "Each of you has an item that only you see. First each says one thing, then each proposes a trade: the item "
        "given and the item wanted. Both get a point if the trades fit."
    ),
    "lewis_signaling": (
        "The first sees a state and sends a message; the second sees the message and chooses an action. Both get a "
        "point if the action has the state's number."
    ),
    "coin_game": (
        "You and another walk on a field with coins. One colour is your favourite, and one is the other one's; only "
        "you know yours. Coins of either favourite colour pay both of you, other coins cost both."
    ),
    "repeated_game": "You and another choose at once, again and again, and see what was chosen. Points add up.",
}


def view_text(about: str, seen: str, moves: Sequence[str], letters: bool) -> str:
    """What a seat sees: what the game is about, if it is told; what it observes; its moves, a line each."""
    names = [move_name(move) for move in moves]
    lines = [f"{letter}: {name}" for letter, name in zip(LETTERS, names, strict=False)] if letters else names
    told = (
        [f"{about} Answer with one of your moves, for example: {LETTERS[0] if letters else names[0]}"] if about else []
    )
    return "\n".join([*told, *[seen.strip("\n")] * bool(seen.strip()), MOVES, *lines])


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
    moves = [re.sub(r"^[A-Z]: ", "", line) for line in after.strip("\n").split("\n")] if mark else []
    if not any(moves):
        raise ValueError(f"partners of openspiel read the moves below the line {MOVES!r}, got {text[-80:]!r}")
    return moves


def shown_observation(text: str) -> str:
    """What a view shows above its moves, where it does not tell what the game is about."""
    return text.rpartition(MOVES)[0].strip("\n")


def read_move(reply: str, moves: Sequence[str], strict: bool, letters: bool = False) -> int | None:
    """Which move a reply means: the place among the moves, or None.

    Case, and white space and punctuation around a move, do not matter. Unless `strict` is on, a reply may say more, if
    just one move is in it; one that is part of another that is there, too, does not count. With `letters` a move's
    letter means the move, too.
    """
    letter = reply.strip(AROUND).upper()
    if letters and len(letter) == 1 and letter in LETTERS[: len(moves)]:
        return LETTERS.index(letter)
    names = [_plain(move_name(move)) for move in moves]
    said = _plain(reply)
    if said in names:
        return names.index(said)
    if strict:
        return None
    found = {name for name in names if name and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)}
    whole = [name for name in found if not any(name != other and name in other for other in found)]
    return names.index(whole[0]) if len(whole) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(AROUND)
