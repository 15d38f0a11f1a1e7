"""The worksheet: what is right, what it costs, what a seat sees, how its scripted partners play."""

import json
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SPLITS, play_replies

from llm_sra.task import Message, Outcome, Problem, Reward
from tasks.worksheet import Worksheet
from tasks.worksheet.sheet import SLIPS, Sheet, read

EXAMPLE = Problem("3+2+5", {"numbers": [3, 2, 5]})  # its chain: 3+2=5, 5+5=10
RNG = random.Random(0)


def play(lines: Sequence[str], task: Worksheet | None = None) -> tuple[Outcome, dict[str, list[Reward]]]:
    """Play 3+2+5 with these replies; the outcome and what each seat got at each step."""
    return play_replies(task or Worksheet(), EXAMPLE, lines, RNG)


def say(partner: str, *lines: str, seat: str = "first", rng: random.Random = RNG) -> str:
    """What a scripted partner replies to a sheet of 3+2+5 with these lines."""
    task = Worksheet()
    messages = [message.as_dict() for message in task.view(Sheet((3, 2, 5), lines), seat)]
    return task.partners[partner]().reply(messages, rng)


def test_the_chain_in_order_solves_the_sheet() -> None:
    outcome, rewards = play(["3+2=5", "5+5=10", "pass", "pass", "pass", "pass"])
    assert outcome.solved
    assert [reward.team for reward in rewards["first"]] == [0, 0, 0, 0, 0, 1]
    assert [reward.team for reward in rewards["second"]] == [0, 0, 0, 0, 0, 1]


def test_wrong_lines_in_between_do_no_harm_but_cost_their_writer() -> None:
    outcome, rewards = play(["3+2=5", "5+5=11", "nonsense", "5+5=10", "pass", "5+5=12"])
    assert outcome.solved
    assert [reward.cost for reward in rewards["first"]] == [0.1, 0, 0.1, 0, 0, 0]
    assert [reward.cost for reward in rewards["second"]] == [0, 0.1, 0, 0.1, 0, 0.1]
    assert sum(reward.total for reward in rewards["first"]) == pytest.approx(0.8)
    assert sum(reward.total for reward in rewards["second"]) == pytest.approx(0.7)


def test_one_diligent_seat_solves_it_alone_from_either_seat() -> None:
    assert play(["3+2=5", "pass", "5+5=10", "pass", "pass", "pass"])[0].solved
    assert play(["pass", "3+2=5", "pass", "5+5=10", "pass", "pass"])[0].solved


@pytest.mark.parametrize(
    "lines",
    [
        ["pass"] * 6,
        ["3+2=5", *["pass"] * 5],  # half of the chain
        ["5+5=10", "3+2=5", *["pass"] * 4],  # the wrong order
        ["2+3=5", "5+5=10", *["pass"] * 4],  # a true sum, but not the line that is asked for
        ["3+2=5", "5+5=10 ", *["pass"] * 4],  # white space counts
        ["3 + 2 = 5", "5+5=10", *["pass"] * 4],
        ["3+2=5", "5+5=10" + "0" * 40, *["pass"] * 4],
    ],
)
def test_anything_but_the_exact_chain_in_order_is_unsolved(lines: list[str]) -> None:
    outcome, rewards = play(lines)
    assert not outcome.solved
    assert all(reward.team == 0 for seat in rewards.values() for reward in seat)


@pytest.mark.parametrize("reply", ["", "\n", "\npass", " pass", "pass ", "Pass", "3+2=6", "hello", "x" * 1000, "\r"])
def test_every_line_other_than_pass_costs_its_writer_alone(reply: str) -> None:
    _, rewards = play([reply, *["pass"] * 5])
    assert [reward.cost for reward in rewards["first"]] == [0.1, 0, 0, 0, 0, 0]
    assert [reward.cost for reward in rewards["second"]] == [0] * 6


def test_only_the_first_line_of_a_reply_is_taken_cut_at_forty_characters() -> None:
    task = Worksheet()
    sheet, _ = task.step(Sheet((3, 2, 5)), {"first": "3+2=5\n5+5=10"}, RNG)
    sheet, _ = task.step(sheet, {"second": "a" * 41 + "\nb"}, RNG)
    assert sheet.lines == ("3+2=5", "a" * 40)
    assert play(["pass\n3+2=5", *["pass"] * 5])[1]["first"][0].cost == 0


def test_the_cost_is_an_option() -> None:
    assert play(["3+2=5", *["pass"] * 5], Worksheet(cost=0.25))[1]["first"][0].cost == 0.25


def test_last_word_asks_that_the_last_written_value_is_the_total() -> None:
    fragile = Worksheet(last_word=True)
    assert play(["3+2=5", "5+5=10", "pass", "pass", "pass", "pass"], fragile)[0].solved
    spoiled = ["3+2=5", "5+5=10", "pass", "pass", "pass", "5+5=11"]
    assert not play(spoiled, fragile)[0].solved
    assert play(spoiled)[0].solved
    assert play(["3+2=5", "5+5=10", "pass", "5+5=11", "5+5=10", "?"], fragile)[0].solved
    assert not play(["pass", "pass", "pass", "pass", "pass", "5+5=10"], fragile)[0].solved


def test_outcome_counts_lines_by_seat() -> None:
    outcome, _ = play(["3+2=5", "3+2=5", "5+5=11", "5+5=10", "pass", ""])
    assert outcome.effort == {"first": 2, "second": 3}
    assert outcome.metrics == {
        "right_lines/first": 1,
        "wrong_lines/first": 1,
        "contribution/first": 0.5,
        "right_lines/second": 2,  # one of them repeats what stood there
        "wrong_lines/second": 1,
        "contribution/second": 0.5,
    }


def test_a_link_before_its_turn_is_wrong_and_a_repeated_one_is_not() -> None:
    sheet = Sheet((3, 2, 5), ("5+5=10", "pass", "3+2=5", "5+5=10", "3+2=5"))
    assert sheet.verdicts == ("wrong", "pass", "useful", "useful", "repeated")


def test_a_chain_may_hold_lines_that_look_alike() -> None:
    assert Sheet((1, 1, 2, 4)).chain == ("1+1=2", "2+2=4", "4+4=8")


def test_the_first_seat_sees_the_problem_then_alternating_lines() -> None:
    task = Worksheet()
    assert task.view(Sheet((3, 2, 5)), "first") == (Message("user", "Q: 3+2+5"),)
    assert task.view(Sheet((3, 2, 5), ("3+2=5", "pass")), "first") == (
        Message("user", "Q: 3+2+5"),
        Message("assistant", "3+2=5"),
        Message("user", "pass"),
    )


def test_the_second_seat_first_sees_one_message_of_two_lines() -> None:
    task = Worksheet()
    assert task.view(Sheet((3, 2, 5), ("3+2=5",)), "second") == (Message("user", "Q: 3+2+5\n3+2=5"),)
    assert task.view(Sheet((3, 2, 5), ("3+2=5", "", "pass")), "second") == (
        Message("user", "Q: 3+2+5\n3+2=5"),
        Message("assistant", ""),
        Message("user", "pass"),
    )


def test_seats_alternate_for_the_given_number_of_turns() -> None:
    task = Worksheet(turns=5)
    sheet, seats = Sheet((3, 2, 5)), []
    while actors := task.actors(sheet):
        seats.append(actors)
        sheet, _ = task.step(sheet, {actors[0]: "pass"}, RNG)
    assert seats == [("first",), ("second",), ("first",), ("second",), ("first",)]


def test_splits_are_disjoint_and_hold_every_problem_whatever_the_seed() -> None:
    ids = [{problem.id for problem in Worksheet().problems(split, seed=seed)} for seed, split in enumerate(SPLITS)]
    assert [len(split) for split in ids] == [515, 106, 108]
    assert len(set.union(*ids)) == 9**3


def test_the_seed_orders_and_chooses_problems() -> None:
    task = Worksheet()
    assert task.problems("dev", 20, seed=1) == task.problems("dev", 20, seed=1)
    assert task.problems("dev", 20, seed=1) != task.problems("dev", 20, seed=2)
    assert task.problems("dev", 20, seed=1) == task.problems("dev", seed=1)[:20]
    assert len(task.problems("dev", 10_000)) == 106
    assert task.problems("dev", 0) == []


def test_problems_are_plain_json() -> None:
    problem = Worksheet().problems("train", 1)[0]
    assert problem.id == "+".join(map(str, json.loads(json.dumps(problem.data))["numbers"]))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"numbers": 1}, "`numbers` must be 2 or more"),
        ({"numbers": 5}, "`turns` >= 8"),  # 4 lines to write, 3 turns each
        ({"turns": 3}, "second seat has 1"),
        ({"turns": -1}, "second seat has 0"),
        ({"low": 0}, "1 <= `low` <= `high`, got low=0"),
        ({"low": 5, "high": 4}, "got low=5 and high=4"),
        ({"high": 1000}, "more than 1,000,000 problems"),
        ({"low": 10**15, "high": 10**15}, "a line holds 40 characters"),
        ({"cost": -0.1}, "`cost` must be finite and 0 or more"),
        ({"cost": float("nan")}, "`cost` must be finite"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Worksheet(**options)


@pytest.mark.parametrize("options", [{"numbers": "3"}, {"turns": 6.0}, {"low": True}, {"cost": "x"}, {"last_word": 1}])
def test_options_of_the_wrong_kind_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"`{next(iter(options))}` must be"):
        Worksheet(**options)


def test_diligent_writes_the_next_right_line_and_passes_when_done() -> None:
    assert say("diligent") == "3+2=5"
    assert say("diligent", "3+2=6", seat="second") == "3+2=5"
    assert say("diligent", "3+2=5", seat="second") == "5+5=10"
    assert say("diligent", "3+2=5", "5+5=11") == "5+5=10"
    assert say("diligent", "3+2=5", "5+5=10") == "pass"


def test_lazy_passes() -> None:
    assert say("lazy") == say("lazy", "3+2=5", seat="second") == "pass"


def test_half_works_half_of_the_time() -> None:
    rng = random.Random(0)
    said = [say("half", rng=rng) for _ in range(400)]
    assert set(said) == {"3+2=5", "pass"}
    assert 160 <= said.count("pass") <= 240
    assert {say("half", "3+2=5", "5+5=10", rng=rng) for _ in range(20)} == {"pass"}


def test_sloppy_is_wrong_in_three_of_ten_lines() -> None:
    rng = random.Random(0)
    said = [say("sloppy", rng=rng) for _ in range(400)]
    assert "pass" not in said
    assert 85 <= 400 - said.count("3+2=5") <= 155
    assert {say("sloppy", "3+2=5", "5+5=10", rng=rng) for _ in range(20)} == {"pass"}


@pytest.mark.parametrize(
    ("seat", "before", "expected"),
    [
        ("first", 0, "pass"),
        ("first", 2, "pass"),
        ("first", 4, "3+2=5"),
        ("second", 1, "pass"),
        ("second", 3, "pass"),
        ("second", 5, "3+2=5"),
    ],
)
def test_late_works_in_its_own_last_turn_only(seat: str, before: int, expected: str) -> None:
    assert say("late", *["pass"] * before, seat=seat) == expected


def test_late_can_be_told_the_number_of_turns() -> None:
    late = Worksheet.partners["late"](turns=8)  # type: ignore[call-arg]
    messages = [{"role": "user", "content": "Q: 3+2+5\n" + "\n".join(["pass"] * 4)}]
    assert late.reply(messages, RNG) == "pass"


def test_saboteur_never_writes_a_right_line_nor_passes() -> None:
    rng = random.Random(0)
    for lines in ([], ["3+2=5", "pass"], ["3+2=5", "5+5=10"]):
        said = {say("saboteur", *lines, rng=rng) for _ in range(200)}
        assert len(said) > 5
        assert not said & {"3+2=5", "5+5=10", "pass"}


def test_repairer_works_directly_after_a_wrong_line_only() -> None:
    assert say("repairer") == "pass"
    assert say("repairer", "3+2=6", seat="second") == "3+2=5"
    assert say("repairer", "", seat="second") == "3+2=5"
    assert say("repairer", "3+2=5", seat="second") == "pass"
    assert say("repairer", "3+2=6", "pass") == "pass"
    assert say("repairer", "3+2=5", "3+2=5") == "pass"  # repeating a right line is no mistake
    assert say("repairer", "3+2=5", "5+5=10", "5+5=11", seat="second") == "pass"


def test_every_scripted_partner_solves_the_sheet_with_a_diligent_one_in_either_seat() -> None:
    task = Worksheet()
    for name in task.partners:
        for pair in ((name, "diligent"), ("diligent", name)):
            sheet = task.start(EXAMPLE, RNG)
            while actors := task.actors(sheet):
                index = task.seats.index(actors[0])
                line = say(pair[index], *sheet.lines, seat=actors[0])
                sheet, _ = task.step(sheet, {actors[0]: line}, RNG)
            assert task.outcome(sheet).solved, pair


def test_a_partner_on_a_foreign_task_says_what_it_expected() -> None:
    with pytest.raises(ValueError, match=r"line like 'Q: 3\+2\+5', got 'Q: what is life\?'"):
        Worksheet.partners["diligent"]().reply([{"role": "user", "content": "Q: what is life?"}], RNG)


@pytest.mark.parametrize(
    ("slip", "expected"),
    [
        ("sum", {"6+3=6", "6+3=7", "6+3=8", "6+3=10", "6+3=11", "6+3=12"}),
        ("swap", {"3+6=9"}),
        ("addend", {"6+1=7", "6+2=8", "6+4=10", "6+5=11", "6+6=12"}),
    ],
)
def test_wrong_lines_are_plausible(slip: str, expected: set[str]) -> None:
    rng = random.Random(0)
    assert {Sheet((6, 3, 7)).wrong_line(rng, (slip,)) for _ in range(200)} == expected  # type: ignore[arg-type]


@given(
    numbers=st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    lines=st.lists(st.sampled_from(["pass", "1+1=2", "x"]), max_size=6).map(tuple),
    slip=st.sampled_from(SLIPS),
    seed=st.integers(0, 99),
)
def test_a_wrong_line_is_never_a_line_of_the_chain(
    numbers: tuple[int, ...], lines: tuple[str, ...], slip: str, seed: int
) -> None:
    sheet = Sheet(numbers, lines)
    assert sheet.wrong_line(random.Random(seed), (slip,)) not in sheet.chain  # type: ignore[arg-type]


@given(replies=st.lists(st.text(max_size=60), min_size=6, max_size=6), last_word=st.booleans())
def test_no_text_breaks_the_rules_or_the_partners(replies: list[str], last_word: bool) -> None:
    task = Worksheet(last_word=last_word)
    sheet = task.start(EXAMPLE, RNG)
    for reply in replies:
        (seat,) = task.actors(sheet)
        messages = [message.as_dict() for message in task.view(sheet, seat)]
        assert messages[-1]["role"] == "user"
        assert read(messages) == sheet
        for partner in task.partners.values():
            assert "\n" not in partner().reply(messages, RNG)
        sheet, rewards = task.step(sheet, {seat: reply}, RNG)
        assert rewards[seat].cost == (0 if sheet.lines[-1] == "pass" else 0.1)
        assert len(sheet.lines[-1]) <= 40
    assert task.outcome(sheet).effort["first"] <= 3


# -- a partner can cross out the sheet ------------------------------------------------------------------------------

SPOILABLE = Worksheet(spoil_price=0.5)
SOLVING = ["3+2=5", "5+5=10", "pass", "pass", "pass"]


@pytest.mark.parametrize(
    ("last", "solved", "cost"),
    [
        ("pass", True, 0),
        ("5+5=10", True, 0.1),
        ("5+5=11", True, 0.1),  # a wrong line does no harm
        ("", True, 0.1),
        ("00", True, 0.1),
        ("0", False, 0.5),
    ],
)
def test_crossing_out_has_its_price_and_leaves_nothing_solved(last: str, solved: bool, cost: float) -> None:
    outcome, rewards = play([*SOLVING, last], SPOILABLE)
    assert outcome.solved is solved
    assert [reward.cost for reward in rewards["second"]] == [0, 0.1, 0, 0, 0, cost]
    assert rewards["first"][-1] == Reward(team=float(solved))


def test_what_is_crossed_out_stays_so_and_is_no_line() -> None:
    lines = ["0", "3+2=5", "5+5=10", "0", "5+5=11", "pass"]
    assert play(lines)[0].solved
    outcome, rewards = play(lines, SPOILABLE)
    assert not outcome.solved
    assert outcome.effort == {"first": 2, "second": 1}
    assert [outcome.metrics[f"{what}/first"] for what in ("right_lines", "wrong_lines", "crossed_out")] == [1, 1, 1]
    assert [outcome.metrics[f"{what}/second"] for what in ("right_lines", "wrong_lines", "crossed_out")] == [1, 0, 1]
    assert sum(reward.total for reward in rewards["first"]) == pytest.approx(-0.7)
    assert sum(reward.total for reward in rewards["second"]) == pytest.approx(-0.6)


@given(lines=st.lists(st.sampled_from(["pass", "3+2=5", "5+5=10", "5+5=11", "0"]), min_size=6, max_size=6))
def test_without_the_option_crossing_out_is_a_line_like_others(lines: list[str]) -> None:
    outcome, rewards = play(lines)
    assert outcome.solved is Sheet((3, 2, 5), tuple(lines)).complete
    assert "crossed_out/first" not in outcome.metrics
    for seat, mine in (("first", lines[::2]), ("second", lines[1::2])):
        assert outcome.effort[seat] == sum(line != "pass" for line in mine)
        assert [reward.cost for reward in rewards[seat]][["first", "second"].index(seat) :: 2] == [
            0.0 if line == "pass" else 0.1 for line in mine
        ]


@pytest.mark.parametrize("said", ["0", " 0.", "**0**", "`0`"])
def test_models_that_were_not_taught_the_task_may_dress_it_up(said: str) -> None:
    task = Worksheet(spoil_price=0.5, strict=False)
    assert "0" in task.legal_replies()
    assert "0" not in Worksheet(strict=False).legal_replies()
    assert not play([*SOLVING, said], task)[0].solved


def test_the_rules_in_words_tell_of_crossing_out() -> None:
    def rules(task: Worksheet) -> str:
        return task.view(Sheet((3, 2, 5)), "first")[0].content

    told = (
        "pass costs nothing. 0 crosses out the sheet: it costs its writer 0.5 points, and nobody gets the point. Answer"
    )
    assert told in rules(Worksheet(explain=True, spoil_price=0.5))
    assert rules(Worksheet(explain=True, spoil_price=0.5)).endswith("or with pass or 0.")
    assert "pass costs nothing. Answer with" in rules(Worksheet(explain=True))


@pytest.mark.parametrize(("price", "error"), [(-0.1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_price_of_spoiling_is_a_number_of_0_or_more(price: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="`spoil_price` must be"):
        Worksheet(spoil_price=price)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "rate"), [("spoiler", 0.1), ("vandal", 0.2)])
def test_some_partners_cross_out_now_and_then(name: str, rate: float) -> None:
    rng = random.Random(1)
    for lines, right in ((("3+2=5", "5+5=10"), "pass"), ((), "3+2=5")):
        said = Counter(say(name, *lines, rng=rng) for _ in range(2000))
        assert said["0"] / 2000 == pytest.approx(rate, abs=0.02)
        assert said["0"] + said[right] == 2000
