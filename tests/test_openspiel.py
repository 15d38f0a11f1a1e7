"""Games of OpenSpiel as tasks: views, replies, payoffs, partners; our Hanabi and our equilibria beside its own."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_sra.games import RiskProfile, equilibria, exploitability, two_player
from llm_sra.partners.rosters import read_roster
from llm_sra.protocol.check import check_task
from llm_sra.registry import find_roster
from llm_sra.task import Message
from tasks import moves as words
from tasks.hanabi import rules
from tasks.hanabi.cards import COLOURS, Card, Setup, default_hand, full_deck
from tasks.openspiel.conventions import CONVENTIONS
from tasks.openspiel.partners import PARTNERS, Tabular, write_policy

pyspiel = pytest.importorskip("pyspiel")

from tasks.openspiel import OpenSpiel  # noqa: E402

TEAM = (
    "hanabi(players=2)", "hanabi(players=4,colors=3,ranks=3)", "tiny_hanabi", "tiny_bridge_2p",
    "bridge_uncontested_bidding(num_redeals=1)", "coop_box_pushing", "matrix_coordination",
)  # fmt: skip
OWN = (
    "negotiation", "bargaining", "trade_comm", "lewis_signaling", "coin_game",
    "repeated_game(stage_game=matrix_pd(),num_repetitions=5)",
)  # fmt: skip


def played(task: OpenSpiel, partner: str, number: int = 0, chance: int = 0) -> tuple[Any, dict[str, float], list[str]]:
    """A problem played by one partner in all seats: the end, what each seat got, and all that was seen."""
    rng = random.Random(chance)
    state = task.start(task.problems("dev")[number], rng)
    returns, seen = dict.fromkeys(task.seats, 0.0), []
    while seats := task.actors(state):
        views = {seat: task.view(state, seat)[-1].as_dict() for seat in seats}
        seen += [view["content"] for view in views.values()]
        state, paid = task.step(state, {s: PARTNERS[partner]().reply([v], rng) for s, v in views.items()}, rng)
        for seat, reward in paid.items():
            returns[seat] += reward.total
    return state, returns, seen


@pytest.mark.parametrize("game", [*TEAM, *OWN])
def test_a_game_plays_to_its_end_and_pays_what_openspiel_says(game: str) -> None:
    task = OpenSpiel(game=game)
    for partner in ("random", "first_legal"):
        state, returns, seen = played(task, partner)
        assert list(returns.values()) == pytest.approx(list(state.at.returns()))
        assert state.illegal == (0,) * len(task.seats) and sum(state.made) == len(seen)
        outcome = task.outcome(state)
        assert 0 <= outcome.metrics[task.headline] <= 1
    again = played(task, "random")
    assert played(task, "random")[1:] == again[1:]
    longest = max(len(move) for move in task.legal_replies())
    assert longest <= task.max_reply_chars


@pytest.mark.parametrize("game", ["tiny_hanabi", "lewis_signaling", "coin_game", "matrix_coordination"])
def test_the_protocol_holds(game: str) -> None:
    assert check_task(OpenSpiel(game=game)).findings == ()


def test_a_deal_belongs_to_its_problem_and_later_chance_to_the_episode() -> None:
    task = OpenSpiel(game="hanabi(players=2)")
    first, second = (task.start(task.problems("train")[0], random.Random(seed)) for seed in (1, 2))
    assert first == second
    after = [task.step(first, {"first": "Play 0"}, random.Random(seed))[0].moves for seed in range(6)]
    assert len(set(after)) > 1  # the card that is drawn
    deals = {task.start(problem, random.Random(0)).moves for problem in task.problems("train", 8)}
    assert len(deals) == 8


def test_games_that_draw_by_themselves_are_seeded_by_their_problem() -> None:
    task = OpenSpiel(game="negotiation")
    one, same, other = (task.problems("train")[i] for i in (0, 0, 1))
    seen = [
        task.view(task.start(problem, random.Random(i)), "first")[0].content for i, problem in enumerate((one, same))
    ]
    assert seen[0] == seen[1] != task.view(task.start(other, random.Random(0)), "first")[0].content


def test_views_show_what_is_known_and_the_moves() -> None:
    task = OpenSpiel(game="hanabi(players=2)", explain=True)
    view = task.view(task.start(task.problems("train")[0], random.Random(0)), "first")
    text = view[-1].content
    assert text.startswith("You play Hanabi together.") and "for example: Play 0" in text
    assert words.shown_moves(text)[:3] == ["Play 0", "Play 1", "Play 2"] and "Deck size: 40" in text


@pytest.mark.parametrize(
    ("reply", "strict", "place"),
    [
        ("(Play 1)", True, 1),
        ("play 1", True, 1),
        ("**Play  1.**", True, 1),
        ("I play 1.", True, None),
        ("I would play 1, I think", False, 1),
        ("play 1 or play 0", False, None),
        ("play 11", False, None),
        ("play 10", False, 2),
        ("Reveal player +1 color R!", True, 3),
        ("I reveal player +1 color r", False, 3),
        ("b", True, None),
        ("", False, None),
    ],
)
def test_which_move_a_reply_means(reply: str, strict: bool, place: int | None) -> None:
    moves = ["(Play 0)", "(Play 1)", "(Play 10)", "(Reveal player +1 color R)"]
    assert words.read_move(reply, moves, strict) == place


def test_with_letters_a_model_chooses_among_them() -> None:
    task = OpenSpiel(game="tiny_hanabi", letters=True)
    state = task.start(task.problems("train")[0], random.Random(0))
    assert task.view(state, "first")[0].content.splitlines()[-3:] == ["A: p0a0", "B: p0a1", "C: p0a2"]
    assert task.choices == ("A", "B", "C") and task.legal_replies() == task.choices
    for reply, made in (("B", 1), ("p0a2", 2), ("D", 0)):
        after, _ = task.step(state, {"first": reply}, random.Random(0))
        assert after.moves[-1] == made and after.illegal == ((reply == "D"), 0)
    with pytest.raises(ValueError, match="moves, more than letters"):
        OpenSpiel(game="negotiation", letters=True)


@pytest.mark.parametrize("game", ["tiny_hanabi", "lewis_signaling", "trade_comm", "coin_game"])
def test_moves_may_stand_above_what_is_seen(game: str) -> None:
    below, above = OpenSpiel(game=game), OpenSpiel(game=game, moves_first=True)
    for partner in CONVENTIONS.get(game, PARTNERS):
        rng = random.Random(0)
        state = below.start(below.problems("dev")[0], rng)
        while seats := below.actors(state):
            seat = seats[0]
            one, other = (task.view(state, seat)[0].content for task in (below, above))
            assert words.shown_observation(one) == words.shown_observation(other)
            assert other.startswith(words.MOVES) and other.endswith(words.shown_observation(one))
            assert words.shown_moves(one) == words.shown_moves(other)
            said = [
                below.partners[partner]().reply([{"role": "user", "content": text}], random.Random(1))
                for text in (one, other)
            ]
            assert said[0] == said[1]
            state, _ = below.step(state, {seat: said[0]}, rng)


def test_illegal_replies_are_the_first_legal_move_and_counted() -> None:
    task = OpenSpiel(game="matrix_coordination")
    state = task.start(task.problems("train")[0], random.Random(0))
    after, paid = task.step(state, {"first": "nonsense", "second": "Left"}, random.Random(0))
    assert after.illegal == (1, 0) and paid["first"].team == 1.0
    outcome = task.outcome(after)
    assert (
        outcome.solved and outcome.metrics["illegal/first"] == 1.0 and outcome.effort == {"first": 1.0, "second": 1.0}
    )


def test_payoffs_are_shared_or_each_seats_own_and_can_be_scaled() -> None:
    task = OpenSpiel(game="tiny_hanabi", normalise=True)
    _, returns, _ = played(task, "first_legal")
    plain = played(OpenSpiel(game="tiny_hanabi"), "first_legal")[1]
    assert {seat: value * 10 for seat, value in returns.items()} == pytest.approx(plain)
    own = OpenSpiel(game="bargaining")
    state = own.start(own.problems("dev")[0], random.Random(0))
    _, paid = own.step(state, {"first": words.shown_moves(own.view(state, "first")[0].content)[0]}, random.Random(0))
    assert all(reward.team == 0 for reward in paid.values())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"game": "no_such_game"}, "OpenSpiel has no game 'no_such_game'"),
        ({"game": "2048"}, "has 1 players: two to"),
        ({"game": "mfg_crowd_modelling"}, "players|mean-field"),
    ],
)
def test_what_cannot_be_played_is_refused(options: Mapping[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OpenSpiel(**options)
    with pytest.raises(TypeError, match="must be text"):
        OpenSpiel(game=3)  # type: ignore[arg-type]


def test_without_openspiel_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyspiel", None)
    with pytest.raises(ValueError, match="pip install 'open_spiel==2"):
        OpenSpiel(game="tiny_hanabi")


def test_a_table_of_a_solver_sits_at_the_table(tmp_path: Path) -> None:
    from open_spiel.python.algorithms.cfr import CFRSolver
    from open_spiel.python.algorithms.expected_game_score import policy_value

    game = pyspiel.load_game("tiny_hanabi")
    solver = CFRSolver(game)
    for _ in range(50):
        solver.evaluate_and_update_policy()
    policy = solver.average_policy()
    write_policy(policy, tmp_path / "cfr.json")
    partner, task, rng = Tabular(tmp_path / "cfr.json"), OpenSpiel(game="tiny_hanabi"), random.Random(0)
    got = []
    for problem in task.problems("train", 600):
        state, total = task.start(problem, rng), 0.0
        while seats := task.actors(state):
            said = partner.reply([task.view(state, seats[0])[-1].as_dict()], rng)
            state, paid = task.step(state, {seats[0]: said}, rng)
            total += paid["first"].total
        got.append(total)
    assert np.mean(got) == pytest.approx(policy_value(game.new_initial_state(), [policy] * 2)[0], abs=0.4)
    with pytest.raises(ValueError, match="no information state"):
        partner.reply([Message("user", words.view_text("", "elsewhere", ["p0a0"], False)).as_dict()], rng)


def all_deals(game: str, first: str, second: str) -> list[float]:
    """What both get in 64 deals, with these partners in their seats."""
    task, got = OpenSpiel(game=game), []
    players = {"first": task.partners[first](), "second": task.partners[second]()}
    for problem in task.problems("train", 64):
        state, rng = task.start(problem, random.Random(0)), random.Random(0)
        while seats := task.actors(state):
            said = {seat: players[seat].reply([task.view(state, seat)[-1].as_dict()], rng) for seat in seats}
            state, _ = task.step(state, said, rng)
        assert state.illegal == (0, 0)
        got.append(state.returns[0])
    return got


@pytest.mark.parametrize(
    ("game", "first", "second", "pays"),
    [
        ("tiny_hanabi", "signaller", "signaller", 10.0),
        ("tiny_hanabi", "safe", "safe", 8.0),
        ("tiny_hanabi", "safe", "signaller", 8.0),
        ("tiny_hanabi", "signaller", "safe", 0.0),
        ("lewis_signaling", "plain", "plain", 1.0),
        ("lewis_signaling", "shifted", "shifted", 1.0),
        ("lewis_signaling", "plain", "shifted_twice", 0.0),
        ("trade_comm", "shifted_twice", "shifted_twice", 1.0),
        ("trade_comm", "plain", "shifted", 0.0),
    ],
)
def test_a_convention_pays_with_itself(game: str, first: str, second: str, pays: float) -> None:
    assert set(all_deals(game, first, second)) == {pays}


@pytest.mark.parametrize("game", CONVENTIONS)
def test_three_games_have_rosters_of_their_own(game: str) -> None:
    names = {}
    for kind in ("dev", "test"):
        names[kind] = {partner.name for partner in read_roster(find_roster(f"openspiel_{game}_{kind}"))}
        for name in names[kind]:
            all_deals(game, name, name)
    assert not names["dev"] & names["test"]


@pytest.mark.parametrize("game", ["matrix_pd", "matrix_rps", "matrix_sh", "matrix_bos", "matrix_coordination"])
def test_exploitability_without_risk_aversion_is_that_of_openspiel(game: str) -> None:
    """At tau 0 and eps 0 `llm_sra.games` counts what the seat that gains most gains; OpenSpiel's `nash_conv` sums."""
    from open_spiel.python.algorithms.exploitability import nash_conv
    from open_spiel.python.policy import TabularPolicy

    matrix = pyspiel.load_game(game)
    rows, columns = matrix.num_rows(), matrix.num_cols()
    first, second = (
        np.array([[pays(a, b) for b in range(columns)] for a in range(rows)])
        for pays in (matrix.row_utility, matrix.col_utility)
    )
    ours, plain = two_player(game, first, second), RiskProfile.same(0.0, 0.0)
    turns = pyspiel.convert_to_turn_based(matrix)
    spiel = TabularPolicy(turns)
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(5):
        mixed = (rng.dirichlet(np.ones(rows)), rng.dirichlet(np.ones(columns)))
        for state, policy in zip(spiel.states, mixed, strict=True):
            spiel.action_probability_array[spiel.state_index(state)] = policy
        theirs = nash_conv(turns, spiel, return_only_nash_conv=False)
        assert exploitability(ours, plain, mixed) == pytest.approx(max(theirs.player_improvements), abs=1e-9)
        gains.append(theirs.nash_conv)
    assert max(gains) > 0.1
    for nash in equilibria(ours, RiskProfile.same(0.0, 1e-3)):  # as good as no entropy bonus
        for state, policy in zip(spiel.states, nash.policies, strict=True):
            spiel.action_probability_array[spiel.state_index(state)] = policy
        assert nash_conv(turns, spiel) < 0.02


SETTINGS = (
    {"players": 2, "colours": 5, "ranks": 5}, {"players": 3, "colours": 5, "ranks": 5},
    {"players": 4, "colours": 3, "ranks": 3}, {"players": 5, "colours": 5, "ranks": 5},
    {"players": 2, "colours": 2, "ranks": 5, "information": 3, "lives": 1},
    {"players": 3, "colours": 4, "ranks": 4, "information": 5, "lives": 2},
)  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_our_hanabi_is_openspiels_move_by_move(setting: dict[str, int]) -> None:
    """50 random games: the same legal moves, scores and ends."""
    options = {"information": 8, "lives": 3, **setting}
    hand = default_hand(Setup(hand=1, keep_score=False, **options))
    setup = Setup(hand=hand, keep_score=False, **options)
    game = pyspiel.load_game(
        f"hanabi(players={setup.players},colors={setup.colours},ranks={setup.ranks},hand_size={hand},"
        f"max_information_tokens={setup.information},max_life_tokens={setup.lives})"
    )
    moves = 0
    for seed in range(50):
        rng = random.Random(seed)
        deck = list(full_deck(setup.colours, setup.ranks))
        rng.shuffle(deck)
        ours, theirs, drawn = rules.deal(setup, deck), game.new_initial_state(), iter(deck)
        while True:
            while theirs.is_chance_node():
                theirs.apply_action(card_number(next(drawn), setup))
            assert rules.is_over(ours) == theirs.is_terminal()
            assert float(rules.score(ours)) == theirs.returns()[0]
            if theirs.is_terminal():
                break
            legal = {their_name(move): move for move in rules.legal_moves(ours)}
            actions = {theirs.action_to_string(action): action for action in theirs.legal_actions()}
            assert set(legal) == set(actions)
            name = rng.choice(sorted(legal))
            ours = rules.apply(ours, legal[name])
            theirs.apply_action(actions[name])
            moves += 1
    assert moves > 100


def card_number(card: Card, setup: Setup) -> int:
    return COLOURS.index(card.colour) * setup.ranks + card.rank - 1


def their_name(move: rules.Move) -> str:
    if move.kind != "hint":
        return f"({move.kind.title()} {move.at - 1})"
    told = f"rank {move.told}" if isinstance(move.told, int) else f"color {'RYGWB'[COLOURS.index(str(move.told))]}"
    return f"(Reveal player +{move.at} {told})"
