"""Matrix games as text: pay lands at the right seat, what a seat sees, what a reply means, and the tiny model."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.effort
from llm_sra.games.known import KNOWN
from llm_sra.models.renderer import Renderer
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import load_partner, load_task
from llm_sra.task import Outcome, Reward
from tasks.effort import Effort, model
from tasks.effort.partners import words

SHIPPED = Path(tasks.effort.__file__).parent / "models" / "player"
ROSTERS = Path(__file__).parent.parent / "eval" / "rosters"
RNG = random.Random(0)
LOPSIDED = {"first": [[1, 2, 3], [4, 5, 6]], "second": [[10, 20, 30], [40, 50, 60]]}
each_game = pytest.mark.parametrize("game", list(KNOWN))


def play(task: Effort, first: str, second: str) -> tuple[Outcome, Reward, Reward]:
    """The outcome, and what each seat got."""
    state = task.start(task.problems("train")[0], RNG)
    state, rewards = task.step(state, {"second": second, "first": first}, RNG)
    assert task.actors(state) == ()
    return task.outcome(state), rewards["first"], rewards["second"]


def text(task: Effort, seat: str) -> str:
    (message,) = task.view((), seat)
    assert message.role == "user"
    return message.content


# -- pay -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "first_paid", "second_paid", "solved"),
    [
        ("rest", "rest", Reward(), Reward(), False),
        ("rest", "work", Reward(team=1), Reward(team=1, cost=0.3), True),
        ("work", "rest", Reward(team=1, cost=0.3), Reward(team=1), True),
        ("work", "work", Reward(team=1, cost=0.3), Reward(team=1, cost=0.3), True),
    ],
)
def test_the_effort_game_pays_a_benefit_to_both_and_makes_each_worker_pay(
    first: str, second: str, first_paid: Reward, second_paid: Reward, solved: bool
) -> None:
    outcome, *paid = play(Effort(), first, second)
    assert paid == [first_paid, second_paid]
    assert outcome == Outcome(
        solved,
        effort={"first": float(first == "work"), "second": float(second == "work")},
        metrics={"illegal/first": 0.0, "illegal/second": 0.0, "somebody works": float(solved)},
    )


@pytest.mark.parametrize(
    ("first", "second", "first_paid", "second_paid", "share"),
    [  # together they get between -0.5 and 3
        ("A", "A", 3.0, -3.0, 1 / 7),  # shirk, trust: the wage for nothing
        ("A", "B", 0.0, -0.5, 0.0),  # shirk, inspect: no wage, the cost of inspecting
        ("B", "A", 2.0, 1.0, 1.0),  # work, trust: wage 3 less work 1; output 4 less wage 3
        ("B", "B", 2.0, 0.5, 6 / 7),
    ],
)
def test_the_inspection_game_pays_each_seat_its_own(
    first: str, second: str, first_paid: float, second_paid: float, share: float
) -> None:
    task = Effort(game="inspection")
    outcome, *paid = play(task, first, second)
    assert paid == [Reward(own=first_paid), Reward(own=second_paid)]
    assert outcome.metrics[task.headline] == pytest.approx(share) and outcome.solved is (share == 1)


def test_the_first_seat_chooses_the_row_and_the_second_the_column() -> None:
    task = Effort(payoffs=LOPSIDED)
    _, first, second = play(task, "B", "C")
    assert (first, second) == (Reward(own=6), Reward(own=60))
    outcome, first, second = play(task, "A", "B")
    assert (first, second) == (Reward(own=2), Reward(own=20))
    assert outcome.effort == {"first": 0, "second": 0}  # B is the last action of the first seat alone
    assert play(task, "B", "A")[0].effort == {"first": 1, "second": 0}


def test_what_both_are_paid_alike_in_every_cell_is_the_teams() -> None:
    _, first, second = play(Effort(game="pure_coordination"), "1", "1")
    assert first == second == Reward(team=1)
    same = [[2, -1], [0, 0]]
    assert play(Effort(payoffs={"first": same, "second": same}), "A", "B")[1:] == (Reward(team=-1),) * 2


@each_game
def test_returns_are_the_games_payoffs_in_every_cell(game: str) -> None:
    task = Effort(game=game)
    for row, first in enumerate(task.game.actions[0]):
        for column, second in enumerate(task.game.actions[1]):
            _, *paid = play(task, first, second)
            assert [reward.total for reward in paid] == [
                KNOWN[game].first[row, column],
                KNOWN[game].second[row, column],
            ]
            assert all(type(part) is float for reward in paid for part in (reward.team, reward.own, reward.cost))


def test_a_zero_sum_game_is_always_solved_in_spite_of_rounding() -> None:
    first = [[0.1 + 0.2, -1], [-1, 1]]
    task = Effort(payoffs={"first": first, "second": [[-0.3, 1], [1, -1]]})
    assert all(play(task, a, b)[0].solved for a in "AB" for b in "AB")


# -- replies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", ["work", " work\n", "Work.", '"WORK"', "**work**", "work!"])
def test_case_and_what_stands_around_the_word_do_not_matter(reply: str) -> None:
    outcome, first, _ = play(Effort(), reply, "rest")
    assert first == Reward(team=1, cost=0.3)
    assert outcome.metrics == {"illegal/first": 0, "illegal/second": 0, "somebody works": 1}


@pytest.mark.parametrize("reply", ["", " ", "...", "I work", "rest, work", "workwork", "wor", "arbeite"])
def test_an_illegal_reply_counts_as_the_first_action(reply: str) -> None:
    outcome, first, second = play(Effort(), "work", reply)
    assert (first, second) == (Reward(team=1, cost=0.3), Reward(team=1))
    assert outcome.metrics == {"illegal/first": 0, "illegal/second": 1, "somebody works": 1}
    assert outcome.effort == {"first": 1, "second": 0}
    assert outcome.solved


def test_a_word_of_the_other_seat_alone_is_illegal() -> None:
    task = Effort(game="inspection", actions=[["shirk", "work"], ["trust", "inspect"]])
    assert task.choices == {"first": ("shirk", "work"), "second": ("trust", "inspect")}
    outcome, first, second = play(task, "inspect", "inspect")
    assert (first, second) == (Reward(own=0), Reward(own=-0.5))
    assert outcome.metrics == {"illegal/first": 1, "illegal/second": 0, "share of the best joint payoff": 0}


@given(first=st.text(max_size=20), second=st.text(max_size=20))
def test_no_text_breaks_the_rules(first: str, second: str) -> None:
    _, *paid = play(Effort(), first, second)
    assert all(reward.total in (0, 0.7, 1) for reward in paid)


# -- what a seat sees ------------------------------------------------------------------------------------------------


def test_a_seat_sees_the_game_from_its_side() -> None:
    assert text(Effort(game="inspection"), "second") == (
        "You and your partner each choose a word at once. Yours, theirs: points for you, for them.\n"
        "A, A: -3, 3\n"
        "A, B: 1, 2\n"  # trusts a worker
        "B, A: -0.5, 0\n"  # inspects a shirker
        "B, B: 0.5, 2\n"
        "Answer with one word: A, B"
    )
    assert "A, B: 0, -0.5\n" in text(Effort(game="inspection"), "first")


def test_a_seat_is_asked_for_its_own_words() -> None:
    task = Effort(payoffs=LOPSIDED)
    assert text(task, "first").endswith("word: A, B")
    assert text(task, "second").endswith("word: A, B, C")
    assert "C, A: 30, 3\n" in text(task, "second")


@each_game
def test_both_seats_see_the_same_exactly_in_symmetric_games(game: str) -> None:
    task = Effort(game=game)
    assert (text(task, "first") == text(task, "second")) is KNOWN[game].symmetric


def test_minus_zero_is_written_as_zero() -> None:
    task = Effort(payoffs={"first": [[0.0, 1], [1, 0]], "second": [[-0.0, 1], [1, 0]]})
    assert text(task, "first") == text(task, "second")


def test_both_seats_move_at_once_and_neither_sees_the_others_move() -> None:
    task = Effort()
    start = task.start(task.problems("train")[0], RNG)
    assert task.actors(start) == ("first", "second")
    for seat in task.seats:
        assert task.view(start, seat) == task.view(("rest", "work"), seat) == task.view(("work", "rest"), seat)


def test_the_same_game_in_each_split_under_another_id() -> None:
    task = Effort(game="stag hunt")
    assert [task.problems(split)[0].id for split in ("train", "dev", "test")] == [
        "stag_hunt/train",
        "stag_hunt/dev",
        "stag_hunt/test",
    ]
    assert [problem.id for problem in task.problems("dev", 3)] == [
        "stag_hunt/dev",
        "stag_hunt/dev/1",
        "stag_hunt/dev/2",
    ]
    assert task.problems("dev", 0) == []
    assert task.problems("dev", seed=1) == task.problems("dev")
    assert Effort(payoffs=LOPSIDED).problems("train")[0].id == "payoffs/train"


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prisoner's dilemma", "prisoners dilemma", "prisoners_dilemma"])
def test_a_game_is_named_with_spaces_or_underscores(name: str) -> None:
    task = Effort(game=name)
    assert task.game.name == "prisoner's dilemma"
    assert task.choices == ("defect", "cooperate")


def test_it_is_found_by_its_folders_name() -> None:
    task = load_task("effort", {"game": "chicken"})
    assert isinstance(task, Effort)
    assert (task.choices, task.max_reply_tokens, task.stop) == (("straight", "swerve"), 1, ())


def test_words_are_the_games_own_where_both_seats_have_the_same() -> None:
    assert Effort().choices == ("rest", "work")
    assert Effort(game="rock_paper_scissors").choices == ("rock", "paper", "scissors")
    assert Effort(game="inspection").choices == ("A", "B")
    assert Effort(payoffs=LOPSIDED).choices == {"first": ("A", "B"), "second": ("A", "B", "C")}
    assert Effort(game="inspection", actions=["no", "yes"]).game.actions == (("no", "yes"), ("no", "yes"))


def test_the_effort_game_keeps_its_costs_under_other_words() -> None:
    assert play(Effort(actions=["A", "B"]), "B", "A")[1:] == (Reward(team=1, cost=0.3), Reward(team=1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"game": "poker"}, ValueError, "`game` must be one of effort, spoil, stag_hunt, .*, got 'poker'"),
        ({"game": 3}, TypeError, "`game` must be a game's name, got 3"),
        ({"game": "effort", "payoffs": LOPSIDED}, ValueError, "one of the options `game` and `payoffs`, got both"),
        ({"payoffs": [[1, 2], [3, 4]]}, TypeError, "must be a mapping of `first` and `second`"),
        ({"payoffs": {"first": [[1, 2], [3, 4]]}}, ValueError, "must name `first` and `second` and nothing else"),
        ({"payoffs": {**LOPSIDED, "third": []}}, ValueError, "must name `first` and `second` and nothing else"),
        ({"payoffs": {**LOPSIDED, "first": [1, 2]}}, TypeError, "`first` must be a list of rows of numbers"),
        ({"payoffs": {**LOPSIDED, "second": [["1", 2]]}}, TypeError, "`second` must be a list of rows of numbers"),
        ({"payoffs": {**LOPSIDED, "first": [[True, 2]]}}, TypeError, "`first` must be a list of rows of numbers"),
        ({"payoffs": {**LOPSIDED, "first": [[1, 2], [3]]}}, ValueError, "the rows of `first` must be of one length"),
        ({"payoffs": {**LOPSIDED, "first": [[1, 2], [3, 4]]}}, ValueError, "shapes .* differ"),
        ({"payoffs": {"first": [[1, 2]], "second": [[1, 2]]}}, ValueError, "2 or more each"),
        ({"payoffs": {**LOPSIDED, "first": [[1, 2, 3], [4, 5, float("nan")]]}}, ValueError, "expected finite payoffs"),
        ({"actions": "AB"}, TypeError, "must be a list of words, or a list of two such lists, got 'AB'"),
        ({"actions": ["A", 2]}, TypeError, "must be a list of words"),
        ({"actions": []}, TypeError, "must be a list of words"),
        ({"actions": [["A", "B"]]}, TypeError, "must be a list of words"),
        ({"actions": ["A", "B", "C"]}, ValueError, r"must name \(2, 2\) actions of the two seats"),
        ({"payoffs": LOPSIDED, "actions": ["A", "B"]}, ValueError, r"must name \(2, 3\) actions of the two seats"),
        ({"actions": ["A", "a"]}, ValueError, "must differ"),
        ({"actions": ["rest", "work hard"]}, ValueError, "letters and digits alone"),
        ({"actions": ["rest", ""]}, ValueError, "letters and digits alone"),
        ({"payoffs": dict.fromkeys(("first", "second"), [[0] * 27] * 2)}, ValueError, "there are too few letters"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Effort(**options)


# -- partners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "first", "second"), [("first_action", "A", "A"), ("last_action", "B", "C")])
def test_a_constant_partner_says_its_seats_first_or_last_word(name: str, first: str, second: str) -> None:
    task = Effort(payoffs=LOPSIDED)
    for seat, word in (("first", first), ("second", second)):
        assert task.partners[name]().reply([{"role": "user", "content": text(task, seat)}], RNG) == word


def test_random_says_each_word_equally_often() -> None:
    rng = random.Random(0)
    view = [{"role": "user", "content": text(Effort(game="rock paper scissors"), "first")}]
    said = [Effort.partners["random"]().reply(view, rng) for _ in range(600)]
    assert all(160 <= said.count(word) <= 240 for word in ("rock", "paper", "scissors"))


def test_a_partner_on_a_foreign_task_says_what_it_expected() -> None:
    with pytest.raises(ValueError, match=r"line like 'Answer with .* rest, work', got 'Q: what is life"):
        words([{"role": "user", "content": "Q: what is life?"}])


def test_the_rosters_name_partners_of_the_task_and_share_none() -> None:
    dev, test = (read_roster(ROSTERS / f"effort_{split}.yaml") for split in ("dev", "test"))
    assert {entry.policy for entry in dev} == {"random"}
    assert {entry.policy for entry in test} == {"first_action", "last_action"}
    for entry in (*dev, *test):
        load_partner(entry.policy, Effort())


# -- the tiny model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(AutoTokenizer.from_pretrained(SHIPPED))


def probabilities(player: Any, renderer: Renderer, task: Effort, seat: str) -> torch.Tensor:
    """(choices,), renormalised over them, of the seat's reply."""
    prompt = torch.tensor([renderer.render(task.view((), seat))])
    choices = [index for word in task.choices for index in renderer.encode_text(word)]
    return player(input_ids=prompt).logits[0, -1, choices].softmax(-1)


def test_each_word_of_every_known_game_and_each_letter_is_one_token(renderer: Renderer) -> None:
    named = {name for game in KNOWN.values() for names in game.actions for name in names}
    chosen = {word for game in KNOWN for word in Effort(game=game).choices}
    for word in named | chosen | set("ABCDEFGH"):
        ids = renderer.encode_text(word)
        assert len(ids) == 1, word
        assert renderer.decode(ids) == word


@each_game
def test_a_prompt_keeps_its_words_whole_and_survives_the_tokenizer(renderer: Renderer, game: str) -> None:
    for seat in Effort.seats:
        content = text(Effort(game=game), seat)
        ids = renderer.encode_text(content)
        assert renderer.decode(ids) == content
        assert "".join(renderer.decode([index]) for index in ids) == content  # all of it is ASCII
        assert {*Effort(game=game).choices, "partner", "Answer"} <= {renderer.decode([index]) for index in ids}


def test_the_command_makes_the_shipped_model_bit_for_bit(tmp_path: Path) -> None:
    model.main(["--out", str(tmp_path)])
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "player").state_dict()
    shipped = AutoModelForCausalLM.from_pretrained(SHIPPED).state_dict()
    assert list(made) == list(shipped)
    assert [name for name in made if not torch.equal(made[name], shipped[name])] == []
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "player" / name).read_bytes() == (SHIPPED / name).read_bytes()
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 500_000


def test_the_seed_alone_makes_the_weights() -> None:
    tokenizer = model.tokenizer()
    one, same, other = (model.player(tokenizer, seed).get_input_embeddings().weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@each_game
def test_the_model_begins_near_uniform_over_the_choices(renderer: Renderer, game: str) -> None:
    player = AutoModelForCausalLM.from_pretrained(SHIPPED)
    task = Effort(game=game)
    for seat in task.seats:
        shares = probabilities(player, renderer, task, seat) * len(task.choices)
        assert shares.sum().item() == pytest.approx(len(task.choices), abs=1e-5)
        assert shares.min() > 0.7 and shares.max() < 1.4  # 0.35 to 0.7 in games of two actions


@pytest.mark.parametrize("target", range(3))
def test_an_adapter_can_take_the_model_to_any_one_choice(renderer: Renderer, target: int) -> None:
    torch.manual_seed(0)
    task = Effort(game="rock_paper_scissors")
    shape = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    player = get_peft_model(AutoModelForCausalLM.from_pretrained(SHIPPED), shape)
    optimizer = torch.optim.AdamW(player.parameters(), lr=4e-3)
    for _ in range(30):
        (-probabilities(player, renderer, task, "first")[target]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert probabilities(player, renderer, task, "first")[target] > 0.99
