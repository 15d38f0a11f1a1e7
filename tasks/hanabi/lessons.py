"""Games to learn from: what a beginner would do in all kinds of situations. The beginner is in no roster.

A beginner plays cards that are likely to fit, tells others what they can play, and often does something else. Every
legal move has some probability, so a model that has learned this habit can still explore all moves.
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
        messages: What the seat saw, and a move that was drawn by the habit.
        chances: For each legal move, in its words, the habit's probability; they sum to 1.
    """

    messages: tuple[Message, ...]
    chances: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Habit:
    """How a move is drawn: with a probability in proportion to its weight.

    Attributes:
        play: Weight of playing a card that surely fits; for other cards it is multiplied by the square of the
            probability that the card fits.
        discard: Weight of discarding any card.
        tell: Weight of a hint that proves to the holder of a card that it fits; less for a hint that only makes this
            likelier.
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
        """The probability of each legal move; they sum to 1."""
        weights = {move: self.weight(state, move) for move in legal_moves(state)}
        total = sum(weights.values())
        return {move: weight / total for move, weight in weights.items()}


BEGINNER = Habit(play=2.0, discard=1.0, tell=1.0, hint=0.1)
RANDOM_SEATS = 0.25  # share of the seats with random moves, so that the learner meets all kinds of players


def likelihood(state: State, known: Known) -> float:
    """Of the cards that a card can still be, each colour and rank counted once, the share that fits; in [0, 1]."""
    cards = [Card(colour, rank) for colour in known.colours for rank in known.ranks]
    return sum(fits(state, card) for card in cards) / len(cards)


def _gain(state: State, hint: Move) -> float:
    """How much likelier a hint makes it look that a card fits which does, for the card with the largest increase."""
    assert hint.told is not None
    hand = state.hands[(state.mover + hint.at) % state.setup.players]
    touched = [held for held in hand if fits(state, held.card) and hint.told in (held.card.colour, held.card.rank)]
    gains = (
        likelihood(state, held.known.after(hint.told, touched=True)) - likelihood(state, held.known) for held in touched
    )
    return max((gain for gain in gains if gain > 0), default=0.0)


def game(task: Hanabi, problem: Problem, habit: Habit, rng: random.Random) -> list[Lesson]:
    """One game: for each turn, also those of random seats, what the seat saw and what the habit would do there."""
    at_random = {seat: rng.random() < RANDOM_SEATS for seat in task.seats}
    state = task.start(problem, rng)
    lessons: list[Lesson] = []
    while actors := task.actors(state):
        seat = actors[0]
        chances = habit.chances(state)
        move = rng.choices([*chances], [*chances.values()])[0]
        messages = (*task.view(state, seat), Message("assistant", move_text(move)))
        lessons.append(Lesson(messages, {move_text(move): chance for move, chance in chances.items()}))
        made = rng.choice(legal_moves(state)) if at_random[seat] else move
        state, _ = task.step(state, {seat: move_text(made)}, rng)
    return lessons


def games(task: Hanabi, problems: Sequence[Problem], habit: Habit, count: int, rng: random.Random) -> list[Lesson]:
    """The lessons of some games on random problems."""
    return [lesson for _ in range(count) for lesson in game(task, rng.choice(problems), habit, rng)]
