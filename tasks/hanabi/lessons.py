"""Games to learn from: what a beginner, a habit that is no partner of any roster, does in all kinds of situations.

A beginner plays cards that are likely to fit, tells others what they can play, and often does something else. Its
habit is soft: every legal move has its chance, so that a model that learned it has everything left to try out.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_sra.task import Message, Problem
from tasks.hanabi.cards import Card, Known
from tasks.hanabi.rules import Move, State, fits, legal_moves
from tasks.hanabi.task import Hanabi
from tasks.hanabi.words import move_text


@dataclass(frozen=True, slots=True)
class Lesson:
    """One turn to learn from.

    Attributes:
        messages: What the seat saw, and a move that the habit drew.
        chances: By legal move, in its words, how likely the habit is to make it; they sum to 1.
    """

    messages: tuple[Message, ...]
    chances: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Habit:
    """How a move is drawn: with a chance in proportion to its weight.

    Attributes:
        play: Weight of playing a card that is proven to fit; less for one that may not, by the square of its chance.
        discard: Weight of discarding, whichever card.
        tell: Weight of a hint that proves to its holder that a card fits; less for one that only makes it likelier.
        hint: Weight of any other hint.
    """

    play: float
    discard: float
    tell: float
    hint: float

    def weight(self, state: State, move: Move) -> float:
        """The weight of a legal move."""
        hand = state.hands[state.mover]
        if move.kind == "play":
            return self.play * likelihood(state, hand[move.at - 1].known) ** 2
        if move.kind == "discard":
            return self.discard / len(hand)
        return self.hint + self.tell * _gain(state, move)

    def chances(self, state: State) -> dict[Move, float]:
        """By legal move, how likely it is; they sum to 1."""
        weights = {move: self.weight(state, move) for move in legal_moves(state)}
        total = sum(weights.values())
        return {move: weight / total for move, weight in weights.items()}


BEGINNER = Habit(play=2.0, discard=1.0, tell=1.0, hint=0.1)
WILD = 0.25  # share of the seats whose moves are random: the learner meets all kinds of players


def likelihood(state: State, known: Known) -> float:
    """Share of the cards that one can still be, each colour and rank counted once, that fit; in [0, 1]."""
    cards = [Card(colour, rank) for colour in known.colours for rank in known.ranks]
    return sum(fits(state, card) for card in cards) / len(cards)


def _gain(state: State, hint: Move) -> float:
    """By how much a hint makes a card that fits look likelier to fit, for the card for which it does most."""
    assert hint.told is not None
    hand = state.hands[(state.mover + hint.at) % state.setup.players]
    touched = [held for held in hand if fits(state, held.card) and hint.told in (held.card.colour, held.card.rank)]
    gains = (
        likelihood(state, held.known.after(hint.told, touched=True)) - likelihood(state, held.known) for held in touched
    )
    return max((gain for gain in gains if gain > 0), default=0.0)


def game(task: Hanabi, problem: Problem, habit: Habit, rng: random.Random) -> list[Lesson]:
    """One game: at each turn, what the seat saw and what the habit would do there, also where a wild seat moves."""
    wild = {seat: rng.random() < WILD for seat in task.seats}
    state = task.start(problem, rng)
    lessons: list[Lesson] = []
    while actors := task.actors(state):
        seat = actors[0]
        chances = habit.chances(state)
        move = rng.choices([*chances], [*chances.values()])[0]
        messages = (*task.view(state, seat), Message("assistant", move_text(move)))
        lessons.append(Lesson(messages, {move_text(move): chance for move, chance in chances.items()}))
        made = rng.choice(legal_moves(state)) if wild[seat] else move
        state, _ = task.step(state, {seat: move_text(made)}, rng)
    return lessons


def games(task: Hanabi, problems: Sequence[Problem], habit: Habit, count: int, rng: random.Random) -> list[Lesson]:
    """The lessons of some games on random problems."""
    return [lesson for _ in range(count) for lesson in game(task, rng.choice(problems), habit, rng)]
