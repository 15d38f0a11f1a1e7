"""Hanabi's rules: games played by hand, tokens, lives, and what hints tell."""

from hanabi_support import FOUR, PERFECT, SMALL, TWO, begin, finish, line_of, play, text_of

from tasks.hanabi import Hanabi
from tasks.hanabi.cards import Card, Known
from tasks.hanabi.rules import Held


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
