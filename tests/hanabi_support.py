"""What the tests of Hanabi build on: decks written short, and games played from a list of replies."""

import random
from collections.abc import Sequence

from llm_sra.task import Outcome, Problem, Reward
from tasks.hanabi import Hanabi
from tasks.hanabi.cards import COLOURS
from tasks.hanabi.rules import State

RNG = random.Random(0)
LETTERS = {colour[0]: colour for colour in COLOURS}

# The paper's game. Hands of first r1 g1 b1, second r2 g2 b2, third r3 g3 b3, fourth r1 r1 g1; then the deck.
FOUR = "r1 g1 b1 r2 g2 b2 r3 g3 b3 r1 r1 g1 g1 b1 b1 r2 g2 b2"
PERFECT = [  # tokens after the move, and what is drawn
    "play 1",  # first: r1, draws g1, has g1 b1 g1; 8
    "play 1",  # second: r2, draws b1, has g2 b2 b1; 8
    "play 1",  # third: r3 completes red, but no token is missing; draws b1, has g3 b3 b1; 8
    "hint 1 rank 1",  # fourth, to first; 7
    "play 1",  # first: g1, draws r2, has b1 g1 r2; 7
    "play 1",  # second: g2, draws g2, has b2 b1 g2; 7
    "play 1",  # third: g3 completes green; draws b2, the last card, has b3 b1 b2; 8, and 4 turns are left
    "hint 1 blue",  # fourth, to first; 7, and 3 turns
    "play 1",  # first: b1; 7, and 2 turns
    "play 1",  # second: b2; 7, and 1 turn
    "play 1",  # third: b3 completes blue; 8: all nine cards lie there
]
# Two players, one colour: first r1 r2, second r1 r3; then r1 r2.
TWO = "r1 r2 r1 r3 r1 r2"
SMALL = {"players": 2, "colours": 1, "ranks": 3}


def cards(text: str) -> list[str]:
    """`r1 g2` -> `red 1`, `green 2`."""
    return [f"{LETTERS[card[0]]} {card[1]}" for card in text.split()]


def begin(deck: str, **options: object) -> tuple[Hanabi, State]:
    task = Hanabi(explain=False, **options)  # type: ignore[arg-type]
    return task, task.start(Problem("by-hand", {"deck": cards(deck)}), RNG)


def play(task: Hanabi, state: State, replies: Sequence[str]) -> tuple[State, dict[str, list[Reward]]]:
    """Play these replies; the state and what each seat got at each step."""
    rewards: dict[str, list[Reward]] = {seat: [] for seat in task.seats}
    for reply in replies:
        (seat,) = task.actors(state)
        state, paid = task.step(state, {seat: reply}, RNG)
        for name in task.seats:
            rewards[name].append(paid.get(name, Reward()))
    return state, rewards


def finish(deck: str, replies: Sequence[str], **options: object) -> tuple[State, Outcome, dict[str, list[Reward]]]:
    task, state = begin(deck, **options)
    state, rewards = play(task, state, replies)
    assert task.actors(state) == ()
    return state, task.outcome(state), rewards


def text_of(task: Hanabi, state: State, seat: str) -> str:
    (message,) = task.view(state, seat)
    assert message.role == "user"
    return message.content


def line_of(text: str, start: str) -> str:
    (line,) = [line for line in text.split("\n") if line.startswith(start)]
    return line


def moves_in(text: str) -> list[str]:
    return text.partition("Your moves:\n")[2].split("\n")
