"""Hanabi in random play: what holds in every state of every game, and what no seat can see."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.hanabi import Hanabi
from tasks.hanabi.cards import Card, full_deck
from tasks.hanabi.rules import Held, State, apply, deal, fits, is_over, legal_moves, score
from tasks.hanabi.words import move_text, view_text

RNG = random.Random(0)
GAMES = st.sampled_from(
    [
        {},
        {"players": 2},
        {"players": 3, "colours": 2, "information": 2, "lives": 1},
        {"players": 5, "colours": 5, "ranks": 5},
        {"players": 2, "colours": 1, "ranks": 2, "hand": 1, "information": 1},
        {"players": 2, "colours": 2, "ranks": 4, "keep_score": True, "lives": 2, "hand": 4},
    ]
)


def moves_shown(state: State) -> list[str]:
    return view_text(state, state.mover, explain=False).partition("Your moves:\n")[2].split("\n")


def random_game(options: dict[str, object], seed: int) -> Iterator[tuple[Hanabi, State, random.Random]]:
    """The states of a game of legal moves with many right plays, so that it gets somewhere."""
    rng = random.Random(seed)
    task = Hanabi(explain=False, **options)  # type: ignore[arg-type]
    deck = list(full_deck(task.setup.colours, task.setup.ranks))
    rng.shuffle(deck)
    state = deal(task.setup, deck)
    yield task, state, rng
    while moves := legal_moves(state):
        hand = state.hands[state.mover]
        right = [move for move in moves if move.kind == "play" and fits(state, hand[move.at - 1].card)]
        state = apply(state, rng.choice(right if right and rng.random() < 0.7 else moves))
        yield task, state, rng


def all_words(task: Hanabi) -> list[str]:
    """The words of all moves that could ever be legal, and of some that never are."""
    setup = task.setup
    told = [*setup.palette, "purple", *(f"rank {rank}" for rank in range(setup.ranks + 2))]
    places = [f"{kind} {at}" for kind in ("play", "discard") for at in range(setup.hand + 2)]
    return [*places, *(f"hint {at} {what}" for at in range(setup.players + 1) for what in told)]


@settings(max_examples=40, deadline=None)
@given(options=GAMES, seed=st.integers(0, 10**6))
def test_cards_tokens_and_lives_are_conserved(options: dict[str, object], seed: int) -> None:
    states = []
    for task, state, _ in random_game(options, seed):
        setup = task.setup
        built = [Card(c, r) for c, top in zip(setup.palette, state.stacks, strict=True) for r in range(1, top + 1)]
        held = [held.card for hand in state.hands for held in hand]
        everything = Counter([*state.deck, *held, *built, *state.discards])
        assert everything == Counter(full_deck(setup.colours, setup.ranks))
        assert 0 <= state.information <= setup.information
        assert 0 <= state.lives <= setup.lives
        assert all(
            h.card.colour in h.known.colours and h.card.rank in h.known.ranks for hand in state.hands for h in hand
        )
        if state.deck:
            assert {len(hand) for hand in state.hands} == {setup.hand}
        assert is_over(state) == (not legal_moves(state))
        states.append(state)
    misplays = sum(event.move.kind == "play" and not event.right for event in states[-1].log)
    assert misplays == states[0].lives - states[-1].lives
    # A turn draws a card, spends a token (there at first, from a discard or a full colour), or is one of the last.
    deck, tokens = len(states[0].deck), setup.information + len(states[-1].discards) + setup.colours
    assert len(states) - 1 <= deck + tokens + setup.players


@settings(max_examples=15, deadline=None)
@given(options=GAMES, seed=st.integers(0, 10**6))
def test_the_moves_that_are_listed_are_accepted_and_nothing_else_is(options: dict[str, object], seed: int) -> None:
    for task, state, _ in random_game(options, seed):
        if not task.actors(state):
            break
        (seat,) = task.actors(state)
        listed = moves_shown(state)
        assert len(listed) == len(set(listed))
        assert set(listed) <= set(all_words(task))
        for words in all_words(task):
            event = task.step(state, {seat: words}, RNG)[0].log[-1]
            assert event.forced == (words not in listed)
            assert move_text(event.move) in listed
            assert event.forced or move_text(event.move) == words


@settings(max_examples=40, deadline=None)
@given(options=GAMES, seed=st.integers(0, 10**6), chatter=st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_the_return_is_the_score_and_no_text_breaks_the_game(
    options: dict[str, object], seed: int, chatter: list[str]
) -> None:
    task, state, rng = next(random_game(options, seed))
    paid = []
    while task.actors(state):
        (seat,) = task.actors(state)
        reply = rng.choice([*chatter, *moves_shown(state)])
        state, rewards = task.step(state, {seat: reply}, RNG)
        assert set(rewards) == set(task.seats)
        assert len({reward.total for reward in rewards.values()}) == 1
        paid.append(rewards[seat].total)
    outcome = task.outcome(state)
    assert sum(paid) == outcome.metrics["score"] == score(state)
    assert outcome.solved == (score(state) == task.setup.full_score)
    assert sum(outcome.effort.values()) == sum(state.stacks)


@settings(max_examples=40, deadline=None)
@given(options=GAMES, seed=st.integers(0, 10**6))
def test_no_card_of_the_own_hand_or_the_deck_shows_but_by_hints(options: dict[str, object], seed: int) -> None:
    for task, state, rng in random_game(options, seed):
        for viewer in range(task.setup.players):
            other = with_other_hidden_cards(state, viewer, rng)
            assert view_text(other, viewer) == view_text(state, viewer)


def with_other_hidden_cards(state: State, viewer: int, rng: random.Random) -> State:
    """The same table with cards of the viewer's hand and of the deck exchanged, as far as hints allow it."""
    knowns = [held.known for held in state.hands[viewer]]
    hidden = [*(held.card for held in state.hands[viewer]), *state.deck]

    def allowed(card: Card, place: int) -> bool:
        return place >= len(knowns) or (card.colour in knowns[place].colours and card.rank in knowns[place].ranks)

    for _ in range(20 if len(hidden) > 1 else 0):
        i, j = rng.sample(range(len(hidden)), 2)
        if allowed(hidden[i], j) and allowed(hidden[j], i):
            hidden[i], hidden[j] = hidden[j], hidden[i]
    hand = tuple(Held(card, known) for card, known in zip(hidden, knowns, strict=False))
    hands = (*state.hands[:viewer], hand, *state.hands[viewer + 1 :])
    return replace(state, hands=hands, deck=tuple(hidden[len(knowns) :]))


@settings(max_examples=40, deadline=None)
@given(options=GAMES, seed=st.integers(0, 10**6))
def test_all_seats_see_the_same_text_from_the_same_place(options: dict[str, object], seed: int) -> None:
    for task, state, rng in random_game(options, seed):
        players = task.setup.players
        by = rng.randrange(players)  # everyone moves this many seats on
        turned = replace(
            state,
            hands=tuple(state.hands[(player - by) % players] for player in range(players)),
            mover=(state.mover + by) % players,
            log=tuple(replace(event, player=(event.player + by) % players) for event in state.log),
        )
        for viewer in range(players):
            assert view_text(turned, (viewer + by) % players) == view_text(state, viewer)
