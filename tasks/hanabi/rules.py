"""The rules of Hanabi as pure functions on frozen records. It knows no text, rewards or policies.

Source: the rules of the card game (A. Bauza, 2010), without the sixth colour. Players are numbers from 0 in the order
of play; states are values.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from tasks.hanabi.cards import COLOURS, Card, Known, Setup, full_deck

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """A card in a hand, and what its holder knows about it."""

    card: Card
    known: Known


@dataclass(frozen=True, slots=True)
class Move:
    """A move of a player.

    Attributes:
        kind: `play`, `discard` or `hint`.
        at: For a play or a discard, the card's place in the own hand, from 1, the oldest. For a hint, how many places
            after the mover the other player sits, from 1.
        told: For a hint, a colour or a rank; else None.
    """

    kind: Literal["play", "discard", "hint"]
    at: int
    told: str | int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A move that was made.

    Attributes:
        player: The player that made it.
        move: The move.
        card: The card that was played or discarded; None for a hint.
        right: Whether a card was played that fits.
        forced: Whether the move replaces a reply that was not a legal move.
    """

    player: int
    move: Move
    card: Card | None = None
    right: bool = False
    forced: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The state of a game.

    Attributes:
        setup: The game.
        deck: Cards that are left; the first is drawn next.
        hands: By player, oldest card first.
        stacks: By colour, the highest rank on its stack; 0 for none.
        discards: Cards discarded or misplayed, oldest first.
        information: Tokens left.
        lives: Lives left.
        turns_left: Turns until the end once the deck is empty; None before.
        mover: The player whose turn it is.
        log: All moves, oldest first.
    """

    setup: Setup
    deck: tuple[Card, ...]
    hands: tuple[tuple[Held, ...], ...]
    stacks: tuple[int, ...]
    discards: tuple[Card, ...]
    information: int
    lives: int
    turns_left: int | None
    mover: int = 0
    log: tuple[Event, ...] = ()


def deal(setup: Setup, deck: Iterable[Card]) -> State:
    """The state before the first turn: the first cards go to player 0, the next ones to player 1, and so on.

    Raises:
        ValueError: If the deck does not hold exactly the cards of the game.
    """
    deck = tuple(deck)
    if Counter(deck) != Counter(full_deck(setup.colours, setup.ranks)):
        raise ValueError(
            f"hanabi: the deck must hold the cards of {setup.colours} colours and {setup.ranks} ranks, got {len(deck)} "
            "others: use a problem with the options that it was made with"
        )
    held = [Held(card, setup.nothing_known) for card in deck[: setup.players * setup.hand]]
    rest = deck[len(held) :]
    return State(
        setup=setup,
        deck=rest,
        hands=tuple(tuple(held[p * setup.hand : (p + 1) * setup.hand]) for p in range(setup.players)),
        stacks=(0,) * setup.colours,
        discards=(),
        information=setup.information,
        lives=setup.lives,
        turns_left=None if rest else setup.players,
    )


def fits(state: State, card: Card) -> bool:
    """Whether the card is the next one of its colour."""
    return state.stacks[COLOURS.index(card.colour)] + 1 == card.rank


def score(state: State) -> int:
    """Cards on the stacks; 0 when all lives are lost, unless the game keeps the score."""
    return sum(state.stacks) if state.lives or state.setup.keep_score else 0


def is_over(state: State) -> bool:
    """Whether all stacks are built, all lives are lost, or everyone has had a turn since the last card was drawn."""
    return state.lives == 0 or state.turns_left == 0 or sum(state.stacks) == state.setup.full_score


def legal_moves(state: State) -> tuple[Move, ...]:
    """The mover's plays, discards and hints, in this order: none when the game is over, else at least one."""
    if is_over(state):
        return ()
    places = range(1, len(state.hands[state.mover]) + 1)
    moves = [Move("play", at) for at in places]
    if state.information < state.setup.information:
        moves += [Move("discard", at) for at in places]
    if state.information:
        for at in range(1, state.setup.players):
            cards = [held.card for held in state.hands[(state.mover + at) % state.setup.players]]
            moves += [Move("hint", at, c) for c in state.setup.palette if any(card.colour == c for card in cards)]
            moves += [Move("hint", at, rank) for rank in sorted({card.rank for card in cards})]
    return tuple(moves)


def forced_move(state: State) -> Move:
    """The move in place of a reply that is not a legal move: it discards the oldest card.

    If no token is missing, nothing may be discarded. Then it is the first legal hint, or else it plays the oldest card.
    """
    moves = legal_moves(state)
    return next(move for kind in ("discard", "hint", "play") for move in moves if move.kind == kind)


def apply(state: State, move: Move, forced: bool = False) -> State:
    """The state after the mover's move.

    Raises:
        ValueError: If the move is not legal.
    """
    if move not in legal_moves(state):
        raise ValueError(f"hanabi: {move} is not legal here; legal are {legal_moves(state)}")
    if move.kind == "hint":
        after, event = _hint(state, move), Event(state.mover, move, forced=forced)
    else:
        card = state.hands[state.mover][move.at - 1].card
        right = move.kind == "play" and fits(state, card)
        after, event = (
            _draw(_lay_down(state, move, card, right), move.at),
            Event(state.mover, move, card, right, forced),
        )
    if state.turns_left is not None:
        after = replace(after, turns_left=state.turns_left - 1)
    return replace(after, mover=(state.mover + 1) % state.setup.players, log=(*state.log, event))


def _hint(state: State, move: Move) -> State:
    """Spend a token; each card of the other hand is then known to have, or not to have, the colour or rank."""
    assert move.told is not None
    told, player = move.told, (state.mover + move.at) % state.setup.players
    hand = tuple(
        Held(held.card, held.known.after(told, told in (held.card.colour, held.card.rank)))
        for held in state.hands[player]
    )
    return replace(state, hands=_with(state.hands, player, hand), information=state.information - 1)


def _lay_down(state: State, move: Move, card: Card, right: bool) -> State:
    """Put the card onto its stack or the discards, and change tokens and lives accordingly."""
    setup = state.setup
    gained = (right and card.rank == setup.ranks) or move.kind == "discard"
    state = replace(state, information=min(setup.information, state.information + gained))
    if right:
        return replace(state, stacks=_with(state.stacks, COLOURS.index(card.colour), card.rank))
    lost = move.kind == "play"
    return replace(state, discards=(*state.discards, card), lives=state.lives - lost)


def _draw(state: State, at: int) -> State:
    """Take the card at a place from the mover's hand, and put a new one at the hand's end if there is one."""
    hand = state.hands[state.mover]
    hand = (*hand[: at - 1], *hand[at:], *(Held(card, state.setup.nothing_known) for card in state.deck[:1]))
    is_last = len(state.deck) == 1
    return replace(
        state,
        hands=_with(state.hands, state.mover, hand),
        deck=state.deck[1:],
        turns_left=state.setup.players if is_last else state.turns_left,
    )


def _with(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])
