"""Games of TextArena as tasks: which work for two without a network, what they truly pay, views, replies, chance."""

import contextlib
import io
import random
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from support import ROOT

from llm_sra.protocol.check import check_task
from llm_sra.task import Message
from tasks.adapters import Table

textarena = pytest.importorskip("textarena")

from tasks.moves import shown_moves  # noqa: E402
from tasks.textarena import TextArena  # noqa: E402
from tasks.textarena.arena import inside  # noqa: E402
from tasks.textarena.known import MOVES  # noqa: E402
from tasks.textarena.scores import SCORES  # noqa: E402

# Games for two that play here without a network: how they are named, and what they pay. `score`: read from the state,
# which TextArena flattens to win or lose. `result`: no state has more than that, or it is not what decides.
GAMES = {
    "Alquerque-v0": "result", "Battleship-v0": "result", "Breakthrough-v0-tiny": "result", "Briscola-v0": "score",
    "Chopsticks-v0": "result", "ColonelBlotto-v0-small": "score", "ConnectFour-v0": "result", "Crusade-v0": "result",
    "GameOfPureStrategy-v0": "score", "GermanWhist-v0": "score", "Golf-v0": "score", "HighSociety-v0": "score",
    "IndianPoker-v0-short": "score", "IteratedMatchingPennies-v0": "score", "IteratedPrisonersDilemma-v0": "score",
    "IteratedRockPaperScissors-v0": "score", "IteratedTwoThirdsAverage-v0": "score",
    "IteratedUltimatumGame-v0": "score", "KuhnPoker-v0": "score", "LiarsDice-v0-small": "result",
    "LinesOfAction-v0": "result", "MarketEntryGame-v0": "score", "MemoryGame-v0": "score", "NewRecruit-v0": "score",
    "Nim-v0": "result", "Othello-v0-tiny": "score", "PigDice-v0": "score", "Poker-v0-small": "score",
    "PublicGoodsGame-v0": "score", "QuantumTicTacToe-v0": "result", "SantoriniBaseFixed-v0": "result",
    "SimpleBlindAuction-v0-quick": "score", "SimpleNegotiation-v0-short": "score", "SimpleTak-v0": "result",
    "Snake-v0": "result", "SpiteAndMalice-v0": "result", "Stratego-v0": "result", "Surround-v0": "result",
    "Tak-v0": "result", "TicTacToe-v0": "result", "TruthAndDeception-v0": "result", "TwoDollar-v0": "score",
    "UltimateTicTacToe-v0": "result", "WildTicTacToe-v0": "result",
}  # fmt: skip
# For two, but not here: word lists that nltk downloads, a language model as judge, files that the wheel lacks.
NOT_HERE = (
    "Debate-v0", "DontSayIt-v0", "LetterAuction-v0", "ScenarioPlanning-v0", "SpellingBee-v0-small",
    "UsedCarNegotiation-v0", "WordChains-v0",
)  # fmt: skip
# Their files are Python 3.12's.
NEWER_PYTHON = ("Checkers-v0", "Chess-v0", "IteratedStagHunt-v0", "ReverseTicTacToe-v0")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise OSError("a test of games without a network asked for one")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr("nltk.download", lambda *args, **named: False)
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)


def family(game: str) -> str:
    return game.partition("-v")[0]


def played(task: TextArena, replies: Sequence[str], number: int = 0) -> tuple[Table, dict[str, float]]:
    """A problem played by what is said in turn, and what each seat got."""
    state, returns = task.start(task.problems("dev")[number], random.Random(0)), dict.fromkeys(task.seats, 0.0)
    for reply in replies:
        (seat,) = task.actors(state)
        state, paid = task.step(state, {seat: reply}, random.Random(0))
        for each, reward in paid.items():
            returns[each] += reward.total
            assert reward.team == reward.cost == 0
    return state, returns


def by_partner(task: TextArena, name: str, seed: int = 0) -> Table:
    """The first problem, played by a scripted partner in both seats."""
    rng = random.Random(seed)
    state = task.start(task.problems("test")[0], rng)
    while seats := task.actors(state):
        (seat,) = seats
        said = task.partners[name]().reply([message.as_dict() for message in task.view(state, seat)], rng)
        state, _ = task.step(state, {seat: said}, rng)
    return state


def dealt(task: TextArena) -> Any:
    """TextArena's environment of the first problem."""
    return inside(task.start(task.problems("dev")[0], random.Random(0)).at.env)


@pytest.mark.parametrize("game", GAMES)
def test_a_game_for_two_plays_without_a_network_and_keeps_to_the_protocol(game: str) -> None:
    task = TextArena(game=game, max_replies=30)
    assert ("score" if family(game) in SCORES else "result") == GAMES[game]
    findings = [finding.text for finding in check_task(task, episodes=2).findings]
    assert [text for text in findings if "nothing in any" not in text] == []  # stand-ins soon lose
    state = by_partner(task, "examples")
    assert task.outcome(state) == task.outcome(by_partner(task, "examples"))


def test_no_other_family_of_two_players_is_left_out() -> None:
    known = {family(game) for game in (*GAMES, *NOT_HERE, *NEWER_PYTHON)}
    listed = textarena.envs.registration.ENV_REGISTRY
    plays = set()
    for game in {family(name): name for name in reversed(listed) if not name.endswith(("-train", "-raw"))}.values():
        if family(game) not in known:
            with contextlib.suppress(ValueError), contextlib.redirect_stdout(io.StringIO()):
                TextArena(game=game)
                plays.add(game)
    assert plays == set()


@pytest.mark.parametrize("game", [game for game in GAMES if family(game) in MOVES])
def test_where_moves_are_listed_partners_play_legally_to_the_end(game: str) -> None:
    task = TextArena(game=game)
    for partner in ("random", "last_legal"):
        state = by_partner(task, partner)
        assert state.illegal == (0, 0) and sum(state.made) > 0
        outcome = task.outcome(state)
        results = [outcome.metrics[f"result/{seat}"] for seat in task.seats]
        if GAMES[game] == "result":
            assert list(state.returns) == results
        elif not outcome.metrics["truncated"] and sum(results) == 0 and results[0]:
            assert (state.returns[0] > state.returns[1]) == (results[0] > results[1])
        assert GAMES[game] == "result" or 0 <= outcome.metrics[task.headline] <= 1


# What is said in turn, and what it truly pays the first and the second; computed by hand.
TALK = ["hello", "hello"]
PAYOFFS: list[tuple[str, dict[str, Any], list[str], tuple[float, float]]] = [
    # (defect, cooperate) pays 5 and 0, (cooperate, cooperate) 3 each
    ("IteratedPrisonersDilemma-v0", {"num_rounds": 2},
     [*TALK, "[Defect]", "[Cooperate]", *TALK, "[Cooperate]", "I [cooperate]"], (8, 3)),
    ("IteratedMatchingPennies-v0", {"num_rounds": 3}, ["[heads]", "[h]", "[t]", "[heads]", "[t]", "[t]"], (2, 1)),
    ("IteratedRockPaperScissors-v0", {"num_rounds": 2}, ["[rock]", "[scissors]", "[p]", "paper"], (1, 0)),
    # 2/3 of the mean of 0 and 30 is 10: 0 is nearer
    ("IteratedTwoThirdsAverage-v0", {"num_rounds": 1}, ["[0]", "[30]"], (1, 0)),
    ("IteratedUltimatumGame-v0", {"pool": 10, "max_turns": 4},
     ["[Offer: $3]", "[Accept]", "[Offer: $0]", "[Reject]"], (7, 3)),
    # 4 > 3 and 4 > 3, but 2 < 4: two fields of three, one round
    ("ColonelBlotto-v0-small", {"num_fields": 3, "num_total_units": 10, "num_rounds": 1},
     ["[A4 B4 C2]", "[A3 B3 C4]"], (1, 0)),
    # the second begins, bets one, and takes the first one's ante
    ("KuhnPoker-v0", {"max_rounds": 1}, ["[Bet]", "[Fold]"], (-1, 1)),
    ("KuhnPoker-v0", {"max_rounds": 2}, ["[Bet]", "[Fold]", "[Check]", "[Bet]", "[Fold]"], (-2, 2)),
    # salary and so on: every first choice
    ("NewRecruit-v0", {}, ["[Propose] A A A A A A A A", "[Accept]"], (-3200, 10800)),
    # all of 20 kept; nothing kept: 1.5 times 20, halved
    ("PublicGoodsGame-v0", {"num_rounds": 1, "communication_turns": 1}, [*TALK, "[0]", "[20]"], (35, 15)),
    ("MarketEntryGame-v0", {"num_rounds": 1, "communication_turns": 1, "market_capacity": 1},
     [*TALK, "[E]", "[E]"], (-5, -5)),
    ("MarketEntryGame-v0", {"num_rounds": 1, "communication_turns": 1, "market_capacity": 1},
     [*TALK, "[E]", "[S]"], (15, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("game", "options", "said", "pays"), PAYOFFS)
def test_the_score_is_paid_not_the_result(
    game: str, options: Mapping[str, Any], said: list[str], pays: tuple[float, float]
) -> None:
    task = TextArena(game=game, game_args=options)
    state, returns = played(task, said)
    assert task.actors(state) == () and state.illegal == (0, 0)
    assert tuple(returns.values()) == pays == state.returns
    flat, results = played(TextArena(game=game, game_args=options, pay="result"), said)
    assert set(results.values()) <= {-1.0, 0.0, 1.0}
    assert (results["first"] > results["second"]) == (pays[0] > pays[1])
    assert {f"result/{seat}": value for seat, value in results.items()}.items() <= task.outcome(state).metrics.items()
    assert flat.returns == tuple(results.values())


def test_scores_that_depend_on_the_deal() -> None:
    trade = TextArena(game="SimpleNegotiation-v0-short", game_args={"max_turns": 2})
    worth = dealt(trade).state.game_state["player_values"]
    _, got = played(trade, ["[Offer: 1 Wheat -> 1 Ore]", "[Accept]", "Thanks."])
    assert got == {
        "first": worth[0]["Ore"] - worth[0]["Wheat"], "second": worth[1]["Wheat"] - worth[1]["Ore"],
    }  # fmt: skip
    auction = TextArena(game="SimpleBlindAuction-v0-quick")
    start, values = dealt(auction).state.game_state["remaining_capital"][0], dealt(auction).state.game_state
    _, got = played(auction, [*TALK, "[Bid on Item 0: 7]", "[Bid on Item 1: 9] [Bid on Item 0: 5]"])
    values = values["player_item_values"]
    assert got == {"first": start - 7 + values[0][0], "second": start - 14 + values[1][1]}  # lost bids are paid, too
    dollars = TextArena(game="TwoDollar-v0")
    for number in range(30):
        state, got = played(dollars, ["[Propose] $1.20", "[Accept]"], number)
        roles = inside(state.at.env).player_roles.values()
        if all(role["enforcement"] == "none" for role in roles):  # others take from those who break their role
            break
    assert got == pytest.approx({"first": 1.2, "second": 0.8})
    memory = TextArena(game="MemoryGame-v0", game_args={"grid_size": 2})
    board = dealt(memory).state.game_state["board"]
    cells = sorted(((row, column) for row in (0, 1) for column in (0, 1)), key=lambda at: board[at[0]][at[1]])
    pairs = [f"[{a} {b} {c} {d}]" for (a, b), (c, d) in (cells[:2], cells[2:])]
    state, got = played(memory, pairs)
    assert memory.actors(state) == () and sorted(got.values()) in ([0.0, 2.0], [1.0, 1.0])
    for game, total in (("Briscola-v0", 120), ("GermanWhist-v0", 26), ("Poker-v0-small", 0), ("IndianPoker-v0", 0)):
        assert sum(by_partner(TextArena(game=game), "random").returns) == pytest.approx(total)
    state = by_partner(TextArena(game="Othello-v0-tiny"), "random")
    assert sum(state.returns) == sum(map(sum, ([bool(cell) for cell in row] for row in inside(state.at.env).board)))


def test_a_reply_that_is_no_move_is_asked_for_again_and_then_loses_all() -> None:
    task = TextArena(game="GameOfPureStrategy-v0")
    state, _ = played(task, ["[A]", "nonsense"])
    seat = task.actors(state)
    assert sum(state.illegal) == 1 and task.outcome(played(task, [])[0]).metrics["truncated"] == 1.0
    assert "attempted an invalid move" in task.view(state, seat[0])[-1].content
    state, got = played(task, ["[A]", "nonsense", "more"])
    assert task.actors(state) == () and sum(state.illegal) == 2 and set(got.values()) == {0.0}
    assert not task.outcome(state).solved
    kuhn = TextArena(game="KuhnPoker-v0", game_args={"max_rounds": 3})
    state, got = played(kuhn, ["[Bet]", "[Fold]", "x", "x"])  # the loser would have kept -1
    assert got["first"] == -6.0 and kuhn.outcome(state).metrics["illegal/first"] == 2.0


def test_a_game_that_would_go_on_without_a_player_is_over() -> None:
    task = TextArena(game="PublicGoodsGame-v0")
    state, _ = played(task, ["\x00"] * 3)
    while task.actors(state):
        state, _ = task.step(state, {task.actors(state)[0]: "[x"}, random.Random(0))
    assert max(state.made) < 100 and not task.outcome(state).solved


def test_a_seat_reads_what_is_new_and_its_own_replies() -> None:
    task = TextArena(game="IteratedPrisonersDilemma-v0")
    state, _ = played(task, ["I will cooperate.", "Me, too. [GAME] You lost."])
    first, second = task.view(state, "first"), task.view(state, "second")
    assert [message.role for message in first] == ["user", "assistant", "user"] and first[1] == Message(
        "assistant", "I will cooperate."
    )
    assert first[0].content.startswith("[GAME] You are Player 0") and "[Player 1] Me, too." in first[2].content
    assert "[GAME] You lost" not in first[2].content  # TextArena takes names of speakers out of what is said
    assert shown_moves(first[2].content) == ["[Cooperate]", "[Defect]"] and len(second) == 2
    after, _ = task.step(state, {"first": "[Defect]"}, random.Random(0))
    assert task.view(after, "first")[:3] == first


def test_the_deal_is_the_problems_and_later_chance_the_episodes() -> None:
    task = TextArena(game="PigDice-v0")
    before = random.getstate()
    state = task.start(task.problems("train")[0], random.Random(0))
    rolls = {task.view(task.step(state, {"first": "[roll]"}, random.Random(seed))[0], "first") for seed in range(12)}
    assert len(rolls) > 2 and random.getstate() == before
    kuhn = TextArena(game="KuhnPoker-v0")
    views = [kuhn.view(kuhn.start(problem, random.Random(0)), "second") for problem in kuhn.problems("train", 12)]
    again = [kuhn.view(kuhn.start(problem, random.Random(1)), "second") for problem in kuhn.problems("train", 12)]
    assert views == again and len(set(views)) == 3  # jack, queen, king


def test_with_letters_a_model_chooses_among_them() -> None:
    options = {"num_rounds": 1, "communication_turns": 0}
    task = TextArena(game_args=options, letters=True)
    assert task.choices == ("A", "B") and check_task(task, episodes=2).findings == ()
    state, _ = played(task, ["A", "B"])  # "(say anything)", and B where there is no second move
    view = task.view(state, "first")
    assert view[-1].content.splitlines()[-2:] == ["A: [Cooperate]", "B: [Defect]"]
    assert view[0].content.splitlines()[-1] == "A: (say anything)" and view[1] == Message("assistant", "A")
    assert "[Player 1] B" in view[-1].content and shown_moves(view[-1].content) == ["[Cooperate]", "[Defect]"]
    for reply in ("A", "a.", "[Cooperate]"):
        state, got = played(task, ["A", "B", reply, "B"])
        assert got == {"first": 0.0, "second": 5.0} and state.illegal == (0, 0)
    kuhn = TextArena(game="KuhnPoker-v0", game_args={"max_rounds": 1}, letters=True)
    state, _ = played(kuhn, ["A", "D"])  # the second checks; then the first can check or bet, and D is no move
    assert kuhn.choices == ("A", "B", "C", "D") and state.illegal == (1, 0)


def test_with_a_goal_an_episode_is_solved_if_all_are_paid_more() -> None:
    said = ["A", "A", "[Cooperate]", "[Defect]"]  # pays 0 and 5: the first lost
    options: dict[str, Any] = {"game_args": {"num_rounds": 1, "communication_turns": 0}}
    for goal, solved in ((None, False), (0, False), (-1, True)):
        task = TextArena(**options, goal=goal)
        assert task.outcome(played(task, said)[0]).solved is solved
    assert not TextArena(goal=-1).outcome(played(TextArena(), [])[0]).solved  # it is not over
    with pytest.raises(TypeError, match="textarena option `goal` must be a number, or none, got 'much'"):
        TextArena(goal="much")  # type: ignore[arg-type]


def test_an_episode_is_cut_and_pays_the_score_so_far() -> None:
    task = TextArena(game="IteratedMatchingPennies-v0", max_replies=2)
    state, got = played(task, ["[h]", "[h]", "[h]", "[t]"])
    assert task.actors(state) == () and got == {"first": 1.0, "second": 1.0}
    outcome = task.outcome(state)
    assert outcome.metrics["truncated"] == 1.0 and not outcome.solved and outcome.effort == {"first": 2, "second": 2}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"game": "NoGame-v0"}, "TextArena has no game 'NoGame-v0'"),
        ({"game": "KuhnPoker-v0-raw"}, "named without -train or -raw"),
        ({"game": "Bandit-v0"}, "cannot be played here by two: AssertionError: The number of players has to be 1"),
        ({"game": "KuhnPoker-v0", "game_args": {"rounds": 2}}, "TypeError.*rounds"),
        ({"game": "TicTacToe-v0", "pay": "score"}, "`pay` of TicTacToe-v0 must be result, got 'score'"),
        ({"game": "KuhnPoker-v0", "pay": "chips"}, "must be score or result, got 'chips'"),
        ({"max_replies": 0}, "`max_replies` must be a whole number"),
        ({"game": "Nim-v0", "letters": True}, r"the same moves in every state \(GameOfPureStrategy, .*, got Nim-v0"),
    ],
)
def test_what_cannot_be_played_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TextArena(**options)
    with pytest.raises(TypeError, match="textarena takes `game`, a name"):
        TextArena(game=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="textarena option `letters` must be true or false"):
        TextArena(letters=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("game", ["Debate-v0", "ScenarioPlanning-v0", "UsedCarNegotiation-v0"])
def test_games_that_need_a_service_or_files_that_are_missing_are_refused(game: str) -> None:
    assert game in NOT_HERE
    with pytest.raises(ValueError, match=f"{game} cannot be played here by two"):
        TextArena(game=game)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="newer Pythons read them")
@pytest.mark.parametrize("game", NEWER_PYTHON)
def test_games_of_newer_pythons_are_refused_with_their_error(game: str) -> None:
    with pytest.raises(ValueError, match="SyntaxError"):
        TextArena(game=game)


def test_the_example_of_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "tasks" / "textarena.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    exec(example, {})
    assert capsys.readouterr().out.strip() == example.rpartition("# ")[2].strip()


def test_the_page_lists_the_games_and_what_they_pay() -> None:
    page = (ROOT / "docs" / "tasks" / "textarena.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[1:3]
        for line in page.splitlines()
        if line.startswith("|") and page.find(line) > page.find("## Games")
    ]
    listed = {
        name: "result" if paid.strip().startswith("the result") else "score"
        for paid, games in rows
        for name in re.findall(r"`(\w+)`", games)
    }
    assert listed == {family(game): pays for game, pays in GAMES.items()}
