"""Hanabi in words: what a player sees, how a move is written, and how a reply is read.

Players are named relative to the reader: player 1 moves next, player 2 after that, and so on. So seats that see the
same cards get the same text, and one policy can have every seat. The text depends only on the state.
"""

import re

from tasks.bare import bare
from tasks.hanabi.cards import COLOURS, Card, Known, Setup
from tasks.hanabi.rules import Event, Move, State, legal_moves

ANY = "any"

_MOVE = re.compile(rf"(play|discard) ([0-9]{{1,2}})|hint ([0-9]{{1,2}}) (?:({'|'.join(COLOURS)})|rank ([0-9]{{1,2}}))")
_LEAD = re.compile(r"(?:[0-9]{1,2}[.)] |(?:my )?(?:move|answer)s?: |(?:i|we)(?: will|['’]ll)? |let me |let['’]s )+")
_FILLER = re.compile(r"\b(?:player|card|number|colour|color|the|with|about) ")


def move_text(move: Move) -> str:
    """`play 1`, `discard 2`, `hint 1 red`, `hint 2 rank 3`."""
    if move.kind != "hint":
        return f"{move.kind} {move.at}"
    return f"hint {move.at} {told_text(move.told)}"


def read_move(reply: str, strict: bool = True) -> Move | None:
    """The move that a reply names; None if it names none, or more than one. The move need not be legal.

    A line that holds only the words of a move names it; case, white space and signs around it do not matter. All other
    lines are ignored, and so is the text before `</think>`.

    Args:
        reply: Untrusted.
        strict: Whether the line may hold nothing else. If not, `1.`, `My move:`, `I` or `I will` may stand before the
            move, and `player`, `card`, `the` and the like in it: `Hint player 1 red`, `I play 1.`, `1. play card 1`.
    """
    lines = reply.rpartition("</think>")[2].splitlines()
    matches = [_MOVE.fullmatch(_plain(line, strict)) for line in lines]
    found = [match for match in matches if match]
    if len(found) != 1:
        return None
    kind, place, player, colour, rank = found[0].groups()
    if kind is not None:
        return Move(kind, int(place))  # type: ignore[arg-type]  # the pattern knows these two kinds only
    return Move("hint", int(player), colour or int(rank))


def _plain(line: str, strict: bool) -> str:
    """A line in small letters, without the signs around it; and without the words that may stand in and before it."""
    text = " ".join(bare(line).casefold().split())
    if strict:
        return text
    text = text.replace("*", "").replace("`", "")
    return _FILLER.sub("", text[lead.end() :] if (lead := _LEAD.match(text)) else text)


def view_text(state: State, viewer: int, explain: bool = True) -> str:
    """What a player sees, and the moves that it may make, in the words in which to answer.

    Args:
        state: The state of the game.
        viewer: Number of the player that sees it, from 0.
        explain: Whether the rules come first.
    """
    setup = state.setup
    stacks = ", ".join(f"{colour} {rank}" for colour, rank in zip(setup.palette, state.stacks, strict=True))
    lines = [*([rules_text(setup)] if explain else [])]
    lines += [
        f"Stacks, up to {setup.ranks}: {stacks}",
        f"Discards: {_discards_text(state)}",
        f"Tokens: {state.information} of {setup.information}",
        f"Lives: {state.lives} of {setup.lives}",
        f"Deck: {len(state.deck)}",
    ]
    if state.turns_left is not None:
        lines.append(f"Turns left: {state.turns_left}")
    own = (f"{at} {known_text(held.known, setup)}" for at, held in enumerate(state.hands[viewer], start=1))
    lines.append(f"Your cards: {', '.join(own) or 'none'}")
    for away in range(1, setup.players):
        hand = state.hands[(viewer + away) % setup.players]
        cards = (f"{card_text(held.card)} ({known_text(held.known, setup)})" for held in hand)
        lines.append(f"Player {away}: {', '.join(cards) or 'none'}")
    lines += ["Last moves:", *_last_moves(state, viewer), "Your moves:"]
    return "\n".join([*lines, *(move_text(move) for move in legal_moves(state) if viewer == state.mover)])


def rules_text(setup: Setup) -> str:
    """The rules in a paragraph; neutral, and the same for all seats."""
    between = "" if setup.ranks == 2 else "two of each rank between, "
    lost = "" if setup.keep_score else " and the score is 0"
    return (
        f"A game of Hanabi with {setup.colours} colours. In each colour a stack is built from rank 1 to rank "
        f"{setup.ranks}, one rank after the other; every card on a stack scores 1. Of each colour there are three "
        f"cards of rank 1, {between}one of rank {setup.ranks}. You do not see your own cards, but those of the others. "
        "What hints have told about a card stands at its place in your hand, and in brackets for the others: first its "
        "colour, then its rank, or what they can still be. Player 1 moves after you, then player 2, and so on. Cards "
        "are listed from the oldest. A hint takes a token and shows which of a player's cards have a colour or a rank. "
        "A discard gives a token back; so does the highest card of a colour when it is played. A card that is played "
        f"and does not fit is lost and costs a life; without lives the game is over{lost}. When the deck is empty "
        "everyone has one more turn. Answer with one of your moves, in the same words, on a line of its own. Two "
        "examples of a reply: play 1; hint 1 red.\n"
    )


def card_text(card: Card) -> str:
    """`red 1`."""
    return f"{card.colour} {card.rank}"


def known_text(known: Known, setup: Setup) -> str:
    """`any any`, `red any`, `red/blue 2/3`: the colours that are possible, then the ranks."""
    colours = ANY if len(known.colours) == setup.colours > 1 else "/".join(known.colours)
    ranks = ANY if len(known.ranks) == setup.ranks else "/".join(map(str, known.ranks))
    return f"{colours} {ranks}"


def told_text(told: str | int | None) -> str:
    """What a hint names: `red`, `rank 3`."""
    return f"rank {told}" if isinstance(told, int) else f"{told}"


def _discards_text(state: State) -> str:
    """The discards in order of colour and rank, not in the order in which they were made."""
    ordered = sorted(state.discards, key=lambda card: (COLOURS.index(card.colour), card.rank))
    return ", ".join(map(card_text, ordered)) or "none"


def _last_moves(state: State, viewer: int) -> list[str]:
    """The last move of each other player, beginning with the next to move, whose last move is the oldest."""
    last = {event.player: event for event in state.log}
    others = [(away, last.get((viewer + away) % state.setup.players)) for away in range(1, state.setup.players)]
    return [f"{away}: {_event_text(event, viewer, state.setup.players) if event else 'none'}" for away, event in others]


def _event_text(event: Event, viewer: int, players: int) -> str:
    """`play red 1, right`, `discard blue 3`, `hint you rank 2`; the hinted player is named relative to the viewer."""
    if event.card is None:
        away = (event.player + event.move.at - viewer) % players
        return f"hint {away or 'you'} {told_text(event.move.told)}"
    if event.move.kind == "discard":
        return f"discard {card_text(event.card)}"
    return f"play {card_text(event.card)}, {'right' if event.right else 'wrong'}"
