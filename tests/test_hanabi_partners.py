"""Hanabi's scripted partners."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hanabi_support import (
    FOUR,
    RNG,
    begin,
    moves_in,
    play,
    text_of,
)

from llm_sra.partners.rosters import read_roster
from llm_sra.registry import load_partner
from tasks.hanabi import Hanabi
from tasks.hanabi.rules import Held, State, score


def say(partner: str, task: Hanabi, state: State, rng: random.Random = RNG) -> str:
    (seat,) = task.actors(state)
    messages = [message.as_dict() for message in task.view(state, seat)]
    return load_partner(partner, task).reply(messages, rng)


def test_the_rosters_seat_every_partner_once() -> None:
    folder = Path(__file__).parent.parent / "eval" / "rosters"
    dev, test = ({e.policy for e in read_roster(folder / f"hanabi_{name}.yaml")} for name in ("dev", "test"))
    assert not dev & test and dev | test == set(Hanabi.partners)


def test_careful_plays_only_what_hints_prove_to_fit() -> None:
    task, state = begin(FOUR)
    state, _ = play(task, state, ["hint 1 rank 2", "hint 3 rank 1", "hint 1 rank 1", "hint 1 green"])
    assert say("careful", task, state) == "play 1"  # any 1 fits on empty stacks
    state = replace(state, stacks=(1, 0, 0))
    assert say("careful", task, state) == "play 2"  # `red/blue 1` could be red; `green 1` fits


def test_careful_hints_the_next_player_what_proves_its_card_or_else_the_rank() -> None:
    task, state = begin("r2 g2 b2 r1 g3 b3" + " r3 g1 b1 r1 r1 g1 g1 b1 b1 r2 g2 b2")
    assert say("careful", task, state) == "hint 1 rank 1"  # second's r1: with all stacks empty, rank 1 proves it
    later = replace(state, stacks=(0, 1, 0))
    assert say("careful", task, later) == "hint 1 rank 1"  # neither proves it: the rank
    hand = state.hands[1]
    told = (Held(hand[0].card, hand[0].known.after(1, touched=True)), *hand[1:])
    later = replace(later, hands=(state.hands[0], told, *state.hands[2:]))
    assert say("careful", task, later) == "hint 1 red"  # the rank is known


def test_careful_discards_its_oldest_card_if_it_can_help_nobody_and_hints_if_it_may_not() -> None:
    task, state = begin(FOUR)
    assert say("careful", task, state) == "hint 1 red"  # second has 2s only and no token is missing: the first hint
    assert say("careful", task, replace(state, information=7)) == "discard 1"
    third = replace(state, mover=3, information=0)  # first could play all it has, but no token is left to say so
    assert say("careful", task, third) == "discard 1"


def test_hinter_hints_whenever_it_may() -> None:
    task, state = begin(FOUR)
    assert {say("hinter", task, state) for _ in range(100)} == {
        m for m in moves_in(text_of(task, state, "first")) if "hint" in m
    }
    assert say("hinter", task, replace(state, information=0)) == "discard 1"


def test_discarder_discards_whenever_it_may() -> None:
    task, state = begin(FOUR)
    assert say("discarder", task, replace(state, information=7)) == "discard 1"
    assert say("discarder", task, state).startswith("hint ")


def test_gambler_plays_its_newest_card() -> None:
    task, state = begin(FOUR)
    assert say("gambler", task, state) == "play 3"


def test_random_legal_makes_every_legal_move() -> None:
    task, state = begin(FOUR)
    assert {say("random_legal", task, state) for _ in range(300)} == set(moves_in(text_of(task, state, "first")))


def test_a_team_of_careful_players_loses_no_life_and_builds_about_half() -> None:
    task = Hanabi()
    scores = []
    for problem in task.problems("dev", 20):
        state = task.start(problem, RNG)
        while task.actors(state):
            state, _ = play(task, state, [say("careful", task, state)])
        assert state.lives == 3
        scores.append(score(state))
    assert 4 <= sum(scores) / len(scores) <= 6


def test_a_partner_on_a_foreign_task_says_what_it_expected() -> None:
    with pytest.raises(ValueError, match=r"play Hanabi only.*got 'Q: 3\+2\+5'"):
        load_partner("careful", Hanabi()).reply([{"role": "user", "content": "Q: 3+2+5"}], RNG)
