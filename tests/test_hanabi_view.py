"""What a seat of Hanabi sees and does not see, and how replies are read."""

from dataclasses import replace

import pytest
from hanabi_support import FOUR, begin, moves_in, play, text_of

from llm_sra.task import Reward
from tasks.hanabi import Hanabi
from tasks.hanabi.cards import Card
from tasks.hanabi.rules import Move, apply
from tasks.hanabi.words import read_move


def test_the_view_word_by_word() -> None:
    task, state = begin(FOUR)
    state, _ = play(task, state, ["play 1", "play 2", "hint 1 rank 1", "discard 1", "hint 2 rank 3"])
    # Second misplayed g2 and drew b1; fourth, told that all of r1 r1 g1 are 1, discarded r1 and drew b1.
    assert text_of(task, state, "second") == "\n".join(
        [
            "Stacks, up to 3: red 1, green 0, blue 0",
            "Discards: red 1, green 2",
            "Tokens: 7 of 8",
            "Lives: 2 of 3",
            "Deck: 3",
            "Your cards: 1 any any, 2 any any, 3 any any",
            "Player 1: red 3 (any 3), green 3 (any 3), blue 3 (any 3)",
            "Player 2: red 1 (any 1), green 1 (any 1), blue 1 (any any)",
            "Player 3: green 1 (any any), blue 1 (any any), green 1 (any any)",
            "Last moves:",
            "1: hint 2 rank 1",
            "2: discard red 1",
            "3: hint 1 rank 3",
            "Your moves:",
            *("play 1", "play 2", "play 3", "discard 1", "discard 2", "discard 3"),
            *("hint 1 red", "hint 1 green", "hint 1 blue", "hint 1 rank 3"),
            *("hint 2 red", "hint 2 green", "hint 2 blue", "hint 2 rank 1"),
            *("hint 3 green", "hint 3 blue", "hint 3 rank 1"),
        ]
    )


def test_the_last_moves_say_what_a_play_came_to_and_who_was_told() -> None:
    def last_moves(seat: str) -> list[str]:
        return text_of(task, state, seat).partition("Last moves:\n")[2].partition("\nYour moves:")[0].split("\n")

    task, state = begin(FOUR)
    state, _ = play(task, state, ["play 1", "play 2", "hint 2 rank 1"])  # third tells first, two places on
    assert last_moves("fourth") == ["1: play red 1, right", "2: play green 2, wrong", "3: hint 1 rank 1"]
    assert last_moves("first") == ["1: play green 2, wrong", "2: hint you rank 1", "3: none"]
    assert last_moves("second") == ["1: hint 3 rank 1", "2: none", "3: play red 1, right"]


def test_the_rules_come_first_unless_told_otherwise_and_are_the_same_for_all_seats() -> None:
    task, state = begin(FOUR)
    told = Hanabi()
    headers = set()
    for seat in told.seats:
        header, _, rest = text_of(told, state, seat).partition("\n\n")
        assert rest == text_of(task, state, seat)
        headers.add(header)
    assert len(headers) == 1
    assert "the score is 0" in headers.pop()
    assert "the score is 0" not in text_of(
        Hanabi(keep_score=True), replace(state, setup=Hanabi(keep_score=True).setup), "first"
    )


def test_a_seat_whose_turn_it_is_not_has_no_moves() -> None:
    task, state = begin(FOUR)
    assert text_of(task, state, "third").endswith("Your moves:")


@pytest.mark.parametrize(
    "hidden",  # first's own hand; then the deck
    [
        ("b1 r1 g1", "g1 b1 b1 r2 g2 b2"),
        ("r2 g2 b1", "g1 b1 b1 r1 b2 g1"),
        ("b2 b1 b1", "r1 g1 g1 b1 r2 g2"),
    ],
)
def test_own_cards_and_the_deck_do_not_show(hidden: tuple[str, str]) -> None:
    task, state = begin(FOUR)
    own, deck = hidden
    _, other = begin(f"{own} r2 g2 b2 r3 g3 b3 r1 r1 g1 {deck}")
    assert text_of(task, other, "first") == text_of(task, state, "first")
    assert text_of(task, other, "second") != text_of(task, state, "second")


@pytest.mark.parametrize(
    ("reply", "move"),
    [
        ("play 1", Move("play", 1)),
        ("  PLAY   2. ", Move("play", 2)),
        ("discard 3", Move("discard", 3)),
        ("Hint 1 Red", Move("hint", 1, "red")),
        ("`hint 2 rank 3`", Move("hint", 2, 3)),
        ("**play 1**\n", Move("play", 1)),
        ("Their red 1 fits, I could hint 1 red.\n\nhint 1 rank 1\nThat is all.", Move("hint", 1, 1)),
        ("<think>\nplay 2\nno\n</think>\nplay 1", Move("play", 1)),
        ("play 77", Move("play", 77)),  # whether it is legal is another matter
        ("", None),
        ("play", None),
        ("play one", None),
        ("I play 1", None),
        ("play 1 2", None),
        ("play 1, discard 2", None),
        ("hint 1", None),
        ("hint 1 3", None),
        ("hint 1 purple", None),
        ("hint red 1", None),
        ("play 1\nplay 2", None),
        ("play 1\nplay 1", None),
        ("play ١", None),  # a digit, but none of ours
        ("play 1" + "0" * 5000, None),
    ],
)
def test_a_reply_names_one_move_or_none(reply: str, move: Move | None) -> None:
    assert read_move(reply) == move


@pytest.mark.parametrize(
    "reply", ["", "?", "play 4", "discard 1\nplay 1", "hint 1 blue", "hint 3 rank 2", "hint 4 red"]
)
def test_a_reply_that_is_no_legal_move_discards_the_oldest_card(reply: str) -> None:
    # Second has told third of rank 3, third has r3 g3 (b3 is at fourth): `hint 1 blue` touches nothing there.
    task, state = begin("r1 g1 b1 r2 g2 b2 r3 g3 r1 r1 b3 g1 g1 b1 b1 r2 g2 b2")
    state, _ = play(task, state, ["hint 1 rank 2"])
    after, rewards = play(task, state, [reply])
    as_asked, _ = play(task, state, ["discard 1"])
    assert after.log[-1] == replace(as_asked.log[-1], forced=True)
    assert replace(after, log=()) == replace(as_asked, log=())
    assert (after.discards, after.information, after.lives) == ((Card("red", 2),), 8, 3)
    assert rewards["second"] == [Reward()]
    assert task.outcome(after).metrics["illegal/second"] == 1
    assert task.outcome(as_asked).metrics["illegal/second"] == 0


def test_with_all_tokens_there_it_gives_the_first_hint_and_pays_for_it() -> None:
    task, state = begin(FOUR, hint_cost=0.25)
    after, rewards = play(task, state, ["discard 1"])  # may not be discarded: all 8 tokens are there
    assert after.log[-1].move == Move("hint", 1, "red")
    assert after.log[-1].forced
    assert [reward.cost for reward in rewards["first"]] == [0.25]
    assert [reward.cost for reward in rewards["second"]] == [0]
    outcome = task.outcome(after)
    assert (outcome.metrics["illegal/first"], outcome.metrics["hints/first"]) == (1, 1)


def test_without_tokens_there_are_no_hints_and_no_reply_makes_one() -> None:
    task, state = begin(FOUR, information=1)
    state, _ = play(task, state, ["hint 1 rank 2", "hint 1 rank 3"])
    assert state.log[-1].move == Move("discard", 1)
    assert not any(
        move.startswith("hint") for move in moves_in(text_of(task, play(task, state, ["hint 1 red"])[0], "fourth"))
    )


def test_nobody_else_sees_that_a_reply_was_illegal() -> None:
    task, state = begin(FOUR)
    state, _ = play(task, state, ["hint 1 rank 2"])
    views = [text_of(task, play(task, state, [reply])[0], "third") for reply in ("nonsense", "discard 1")]
    assert views[0] == views[1]


def test_a_hint_costs_its_giver_alone_and_nothing_by_default() -> None:
    for cost in (0.0, 0.1):
        task, state = begin(FOUR, hint_cost=cost)
        _, rewards = play(task, state, ["play 1", "hint 1 rank 3", "play 1"])
        assert [reward.cost for reward in rewards["second"]] == [0, cost, 0]
        assert all(reward.cost == 0 for seat in ("first", "third", "fourth") for reward in rewards[seat])


def test_a_move_that_is_not_legal_is_an_error_of_the_rules() -> None:
    _, state = begin(FOUR)
    with pytest.raises(ValueError, match="not legal here"):
        apply(state, Move("discard", 1))
