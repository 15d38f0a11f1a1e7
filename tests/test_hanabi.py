"""Hanabi: games played by hand, what a seat sees and does not see, illegal replies, scripted strangers."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from llm_sra.partners.rosters import read_roster
from llm_sra.registry import load_partner, load_task
from llm_sra.task import Outcome, Problem, Reward
from tasks.hanabi import Hanabi
from tasks.hanabi.cards import COLOURS, Card, Known, full_deck
from tasks.hanabi.rules import Held, Move, State, apply, score
from tasks.hanabi.words import read_move

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


# -- games played by hand --------------------------------------------------------------------------------------------


def test_a_perfect_game_scores_nine_and_every_right_card_pays_the_whole_team_one() -> None:
    state, outcome, rewards = finish(FOUR, PERFECT)
    assert outcome.solved
    for seat in ("first", "second", "third", "fourth"):
        assert [reward.total for reward in rewards[seat]] == [1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1]
    assert outcome.effort == {"first": 3, "second": 3, "third": 3, "fourth": 0}
    seats = ("first", "second", "third", "fourth")
    hints = {"first": 0, "second": 0, "third": 0, "fourth": 2}
    nothing = {f"{name}/{seat}": 0 for name in ("misplays", "illegal") for seat in seats}
    assert outcome.metrics == {
        "score": 9,
        "share of the full score": 1,
        "lives": 3,
        **nothing,
        **{f"hints/{seat}": n for seat, n in hints.items()},
    }
    assert (state.information, state.turns_left, state.stacks, state.discards) == (8, 0, (3, 3, 3), ())


def test_agents_are_compared_by_the_share_of_the_full_score() -> None:
    _, outcome, _ = finish(FOUR, ["play 1", "play 2", "play 1", "play 1"], keep_score=True)
    assert outcome.metrics[Hanabi().headline] == 1 / 9


def test_the_game_ends_with_the_last_card_though_turns_are_left() -> None:
    # First r1 r3, second r2 r1; then r1 r2.
    state, outcome, _ = finish("r1 r3 r2 r1 r1 r2", ["play 1", "play 1", "play 1"], **SMALL)
    assert outcome.solved
    assert state.turns_left == 1  # second drew the last card, so 2 turns were left; first took one of them


def test_tokens_through_the_perfect_game() -> None:
    task, state = begin(FOUR)
    tokens = []
    for reply in PERFECT:
        state, _ = play(task, state, [reply])
        tokens.append(state.information)
    assert tokens == [8, 8, 8, 7, 7, 7, 8, 7, 7, 7, 8]


def test_three_misplays_lose_the_game_and_what_it_paid() -> None:
    # r1 fits; g2 on an empty stack does not; r3 on r1 does not; r1 on r1 does not.
    state, outcome, rewards = finish(FOUR, ["play 1", "play 2", "play 1", "play 1"])
    assert [reward.team for reward in rewards["third"]] == [1, 0, 0, -1]
    assert not outcome.solved
    assert (outcome.metrics["score"], outcome.metrics["lives"]) == (0, 0)
    assert [outcome.metrics[f"misplays/{seat}"] for seat in Hanabi().seats] == [0, 1, 1, 1]
    assert outcome.effort == {"first": 1, "second": 0, "third": 0, "fourth": 0}
    assert state.discards == (Card("green", 2), Card("red", 3), Card("red", 1))


def test_a_lost_game_can_keep_its_score() -> None:
    _, outcome, rewards = finish(FOUR, ["play 1", "play 2", "play 1", "play 1"], keep_score=True)
    assert [reward.team for reward in rewards["first"]] == [1, 0, 0, 0]
    assert (outcome.metrics["score"], outcome.metrics["lives"]) == (1, 0)


def test_after_the_last_card_is_drawn_each_player_has_one_more_turn() -> None:
    replies = [
        "hint 1 rank 1",  # first: 7 tokens
        "discard 1",  # second: r1; 8 tokens, draws r1, has r3 r1; one card is left
        "play 1",  # first: r1 fits; draws r2, the last card, has r2 r2; 2 turns are left
        "play 1",  # second: r3 does not fit; a life is lost
        "play 1",  # first: r2 fits: the end
    ]
    task, state = begin(TWO, **SMALL)
    left, shown = [], []
    for reply in replies:
        state, _ = play(task, state, [reply])
        left.append(state.turns_left)
        shown.append("Turns left: " in text_of(task, state, "first"))
    assert left == [None, None, 2, 1, 0]
    assert shown == [False, False, True, True, True]
    assert task.actors(state) == ()
    outcome = task.outcome(state)
    assert (outcome.solved, outcome.metrics["score"], outcome.metrics["lives"]) == (False, 2, 2)


def test_completing_a_colour_gives_a_token_back() -> None:
    # Two colours of two ranks: first r1 r2 g1, second g1 g2 g1; then r1 r1.
    task, state = begin("r1 r2 g1 g1 g2 g1 r1 r1", players=2, colours=2, ranks=2, hand=3)
    state, _ = play(task, state, ["hint 1 green", "hint 1 red", "play 1", "hint 1 rank 1"])
    assert state.information == 5  # three hints; r1 fits but completes nothing. First has r2 g1 r1
    state, _ = play(task, state, ["play 1"])
    assert (state.information, state.stacks) == (6, (2, 0))


def test_a_misplayed_highest_card_gives_no_token() -> None:
    task, state = begin(TWO, **SMALL)
    state, _ = play(task, state, ["hint 1 rank 1", "play 2"])  # r3 on an empty stack
    assert (state.information, state.lives) == (7, 2)


# -- hints and what is known -----------------------------------------------------------------------------------------


def test_hints_tell_of_every_card_of_the_hand_what_it_can_still_be() -> None:
    task, state = begin(FOUR)
    hands = []
    for reply in (
        "hint 1 rank 2",  # first tells second: all of r2 g2 b2 are 2
        "hint 3 red",  # second tells first: of r1 g1 b1 the first is red, the others are not
        "hint 2 green",  # third tells first: the second is green, so the third can be blue alone
        "hint 3 blue",  # fourth tells third: of r3 g3 b3 the last is blue, the others are not
    ):
        state, _ = play(task, state, [reply])
        hands.append(line_of(text_of(task, state, "first"), "Your cards"))
    assert hands == [
        "Your cards: 1 any any, 2 any any, 3 any any",
        "Your cards: 1 red any, 2 green/blue any, 3 green/blue any",
        "Your cards: 1 red any, 2 green any, 3 blue any",
        "Your cards: 1 red any, 2 green any, 3 blue any",
    ]
    assert line_of(text_of(task, state, "second"), "Your cards") == "Your cards: 1 any 2, 2 any 2, 3 any 2"
    assert line_of(text_of(task, state, "third"), "Your cards") == (
        "Your cards: 1 red/green any, 2 red/green any, 3 blue any"
    )
    assert line_of(text_of(task, state, "first"), "Player 2: ") == (
        "Player 2: red 3 (red/green any), green 3 (red/green any), blue 3 (blue any)"
    )


def test_what_is_known_moves_up_with_the_cards_and_a_new_card_is_unknown() -> None:
    task, state = begin(FOUR)
    state, _ = play(task, state, ["hint 1 rank 2", "hint 3 rank 1", "hint 1 rank 1", "hint 1 green", "play 2"])
    # First had r1 g1 b1, all known as 1, the second as green; it played that one and drew g1.
    assert state.hands[0][-1] == Held(Card("green", 1), Known(("red", "green", "blue"), (1, 2, 3)))
    assert line_of(text_of(task, state, "first"), "Your cards") == ("Your cards: 1 red/blue 1, 2 red/blue 1, 3 any any")


def test_known_after_hints() -> None:
    known = Known(("red", "green", "blue"), (1, 2, 3))
    assert known.after("green", touched=True) == Known(("green",), (1, 2, 3))
    assert known.after("green", touched=False) == Known(("red", "blue"), (1, 2, 3))
    assert known.after(3, touched=False).after(2, touched=False) == Known(("red", "green", "blue"), (1,))


# -- what a seat sees ------------------------------------------------------------------------------------------------


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


# -- replies ---------------------------------------------------------------------------------------------------------


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


# -- options and problems --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "hand", "cards_left"),
    [
        ({}, 3, 6),  # 18 cards - 12; 6 + 4 >= 9. With 4 in hand: 2 + 4 < 9
        ({"players": 2}, 5, 8),
        ({"players": 3}, 4, 6),  # 6 + 3 >= 9. With 5 in hand: 3 + 3 < 9
        ({"players": 5}, 2, 8),  # with 3 in hand: 3 + 5 < 9
        ({"players": 2, "colours": 5, "ranks": 5}, 5, 40),
        ({"players": 3, "colours": 5, "ranks": 5}, 5, 35),
        ({"players": 4, "colours": 5, "ranks": 5}, 4, 34),
        ({"players": 5, "colours": 5, "ranks": 5}, 4, 30),
        ({"hand": 2}, 2, 10),
    ],
)
def test_hands_are_the_official_ones_or_as_large_as_the_deck_allows(
    options: dict[str, int], hand: int, cards_left: int
) -> None:
    task = Hanabi(**options)
    state = task.start(task.problems("dev", 1)[0], RNG)
    assert {len(held) for held in state.hands} == {hand}
    assert len(state.deck) == cards_left


def test_the_deck_has_three_ones_one_highest_card_and_two_of_each_between() -> None:
    assert [card.rank for card in full_deck(1, 5)] == [1, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert [card.rank for card in full_deck(1, 2)] == [1, 1, 1, 2]
    assert (len(full_deck(5, 5)), len(full_deck(3, 3))) == (50, 18)


@pytest.mark.parametrize("players", [2, 3, 4, 5])
def test_seats_are_as_many_as_players(players: int) -> None:
    task = load_task("hanabi", {"players": players})
    assert task.seats == ("first", "second", "third", "fourth", "fifth")[:players]
    assert Hanabi.seats == ("first", "second", "third", "fourth")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"players": 1}, "`players` must be from 2 to 5, got 1"),
        ({"players": 6}, "`players` must be from 2 to 5"),
        ({"colours": 0}, "`colours` must be from 1 to 5"),
        ({"ranks": 1}, "`ranks` must be from 2 to 5"),
        ({"hand": 0}, "`hand` must be 1 or more"),
        ({"hand": 4}, "4 hands of 4 are too many for a deck of 18 cards.* at least 9"),
        ({"hand": 5}, "4 hands of 5 are too many for a deck of 18"),
        ({"players": 5, "colours": 1, "ranks": 2}, "5 hands of 1 are too many for a deck of 4"),
        ({"information": 0}, "`information` must be 1 or more"),
        ({"lives": 0}, "`lives` must be 1 or more"),
        ({"hint_cost": -0.1}, "`hint_cost` must be finite and 0 or more"),
        ({"hint_cost": float("nan")}, "`hint_cost` must be finite"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Hanabi(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        *(
            {name: value}
            for name in ("players", "colours", "ranks", "information", "lives")
            for value in (3.0, "3", True)
        ),
        *({"hand": "3"}, {"hand": True}, {"keep_score": 1}, {"hint_cost": "x"}, {"hint_cost": True}, {"explain": 0}),
    ],
)
def test_options_of_the_wrong_kind_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"`{next(iter(options))}` must be"):
        Hanabi(**options)  # type: ignore[arg-type]


SPLITS = ("train", "dev", "test")


def test_problems_are_orders_of_the_deck_each_in_one_split() -> None:
    task = Hanabi()
    problems = [problem for split in SPLITS for problem in task.problems(split)]
    assert [len(task.problems(split)) for split in SPLITS] == [4096, 512, 512]
    assert (
        len({problem.id for problem in problems}) == len({tuple(problem.data["deck"]) for problem in problems}) == 5120
    )
    assert {problem.id for problem in task.problems("dev")} == {f"3x3-dev-{index}" for index in range(512)}
    assert json.loads(json.dumps(problems[0].data)) == problems[0].data


def test_tiny_games_have_few_problems_and_no_order_twice() -> None:
    # Of r1 r1 r1 r2 there are 4!/3! = 4 orders; none of them falls to the dev split.
    tiny = Hanabi(players=2, colours=1, ranks=2)
    orders = [tuple(problem.data["deck"]) for split in ("train", "test") for problem in tiny.problems(split)]
    assert len(orders) == len(set(orders)) == 4
    with pytest.raises(ValueError, match="no order of these 4 cards is in the dev split: use more colours or ranks"):
        tiny.problems("dev")


def test_the_seed_orders_and_chooses_problems() -> None:
    task = Hanabi()
    assert task.problems("dev", 20, seed=1) == task.problems("dev", 20, seed=1) == task.problems("dev", seed=1)[:20]
    assert task.problems("dev", 20, seed=1) != task.problems("dev", 20, seed=2)
    assert task.problems("dev", 0) == []
    with pytest.raises(ValueError, match="train, dev, test, got 'validation'"):
        task.problems("validation")
    with pytest.raises(ValueError, match="count must be 0 or more"):
        task.problems("dev", -1)


def test_a_problem_deals_the_same_cards_whatever_the_generator() -> None:
    task = Hanabi()
    problem = task.problems("train", 1)[0]
    assert task.start(problem, random.Random(1)) == task.start(problem, random.Random(2))


def test_a_problem_of_another_game_is_refused() -> None:
    with pytest.raises(ValueError, match="a problem goes with the options that it was made with"):
        Hanabi().start(Hanabi(colours=4).problems("dev", 1)[0], RNG)
    with pytest.raises(ValueError, match="a card is like 'red 1', got 'purple 1'"):
        Hanabi().start(Problem("odd", {"deck": ["purple 1"]}), RNG)


# -- scripted strangers ----------------------------------------------------------------------------------------------


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
