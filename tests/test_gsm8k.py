"""GSM8K: what counts as an answer, how the relay goes, its partners, and the real data."""

import random
import time
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from gsm8k_support import PENS, QUESTION, RNG, made_up_rows, play, write_data

from llm_sra.registry import load_partner, load_task
from llm_sra.task import Message
from tasks.gsm8k import GSM8K
from tasks.gsm8k.answers import final_answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"), made_up_rows(30), made_up_rows(7, start=1000))


@pytest.fixture
def task(folder: str) -> GSM8K:
    return GSM8K(data_path=folder, protocol="relay")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 42", "42"),
        ("3 * 14 = 42\n#### 42\n", "42"),
        ("####42", "42"),
        ("#### 42.", "42"),
        ("#### 42,", "42"),
        ("#### 42.0", "42"),
        ("#### $42", "42"),
        ("#### $ 42.00", "42"),
        ("#### 1,000", "1000"),
        ("#### $1,234,567.50.", "1234567.5"),
        ("#### 1000000", "1000000"),
        ("#### 007", "7"),
        ("#### -3", "-3"),
        ("#### - 3", "-3"),
        ("#### -$3", "-3"),
        ("#### $-3", "-3"),
        ("#### +3", "3"),
        ("#### .5", "0.5"),
        ("#### 42 pens", "42"),
        ("#### 50%", "50"),
        ("so #### 42 it is", "42"),
        ("#### 41\nNo:\n#### 42", "42"),  # the last one counts
        ("#### 42\n#### unknown", "42"),  # and a later one without a number does not
        ("", None),
        ("42", None),
        ("A: 42", None),
        ("### 42", None),
        ("##### 42", None),
        ("####\n42", None),
        ("#### forty-two", None),
        ("#### number", None),
        ("#### ", None),
        ("#### .", None),
        ("#### 1,00", None),
        ("#### 1000,000", None),
        ("#### 1.2.3", None),
        ("#### --3", None),
        ("#### $$3", None),
        ("#### ٤٢", None),
    ],
)
def test_an_answer_is_the_last_number_after_four_hashes(text: str, answer: str | None) -> None:
    assert final_answer(text, strict=True) == (None if answer is None else Fraction(answer))


@pytest.mark.parametrize("filler", [" ", "#", "#### ", "1", "1,", ".", "$", "-"])
def test_no_text_takes_long_to_read(filler: str) -> None:
    start = time.process_time()
    assert final_answer("#### 7 " + "#### " + filler * 200_000 + "x", strict=True) == 7
    final_answer("#### 7 " + "#### " + filler * 200_000 + "x")
    assert time.process_time() - start < 10  # it takes milliseconds; hours, were it not linear


def test_one_seat_goes_on_and_the_other_finishes(task: GSM8K) -> None:
    outcome, rewards = play(task, ["3 * 14 = 41", "No, 42.", "", "#### 42"])
    assert outcome.solved
    assert [reward.team for reward in rewards["first"]] == [0, 0, 0, 1]
    assert [reward.team for reward in rewards["second"]] == [0, 0, 0, 1]
    assert outcome.effort == {"first": 0.11, "second": 0.14}  # 11 and 0, 7 and 7 characters
    assert outcome.metrics == {
        "finished": 1,
        "finished/first": 0,
        "finished/second": 1,
        "steps/first": 1,
        "steps/second": 2,
        "repetition/0/first": 0,
        "repetition/0/second": 0,
        "repetition/1/first": 0,
        "repetition/1/second": 0,
    }


def test_a_step_that_repeats_itself_is_told_by_turn_and_seat(task: GSM8K) -> None:
    outcome, _ = play(task, ["x", "y y y y y", "x", "#### 42"])
    assert (outcome.metrics["repetition/0/second"], outcome.metrics["repetition/1/second"]) == (0.5, 0)


def test_the_first_reply_with_an_answer_ends_the_episode(task: GSM8K) -> None:
    outcome, rewards = play(task, ["#### 41\n#### 42.0"])
    assert outcome.solved
    assert outcome.metrics["finished/first"] == 1
    assert outcome.effort["second"] == outcome.metrics["steps/second"] == outcome.metrics["finished/second"] == 0
    assert [reward.total for reward in rewards["second"]] == [1]
    assert not play(task, ["3 * 14 = 42", "#### 42\n#### 41"])[0].solved


def test_after_the_last_turn_a_solution_without_an_answer_is_unsolved(task: GSM8K) -> None:
    outcome, rewards = play(task, ["3 * 14 = 42", "42 pens", "The answer is 42", "####"])
    assert not outcome.solved
    assert outcome.metrics["finished"] == outcome.metrics["finished/first"] == outcome.metrics["finished/second"] == 0
    assert all(reward.total == 0 for reward in chain(*rewards.values()))
    assert not play(GSM8K(data_path=None, protocol="relay", turns=2), ["####", "42"])[
        0
    ].solved  # no answer is put together from two


def test_both_seats_see_the_same_opening_then_the_steps(task: GSM8K) -> None:
    state = task.start(PENS, RNG)
    (opening,) = task.view(state, "first")
    assert task.view(state, "second") == (opening,)
    assert opening.role == "user"
    assert opening.content.endswith(f"#### number\n\nProblem: {QUESTION}\n\nSolution:")
    for reply in (" Each box has 14. ", "3 * 14 = 41", "\nNo, 42."):
        state, _ = task.step(state, {task.actors(state)[0]: reply}, RNG)
    assert task.view(state, "second") == (
        Message("user", opening.content + "\n Each box has 14. "),
        Message("assistant", "3 * 14 = 41"),
        Message("user", "\nNo, 42."),
    )
    assert task.view(state, "first")[:3] == (
        opening,
        Message("assistant", " Each box has 14. "),
        Message("user", "3 * 14 = 41"),
    )


def test_a_relay_is_not_ended_by_its_quoted_instructions(task: GSM8K) -> None:
    opening = task.view(task.start(PENS, RNG), "first")[0].content
    assert "#### 7.5" in opening
    outcome, _ = play(task, [opening, opening.split("\n\nProblem")[0], "3 * 14 = 42", "#### 42"])
    assert outcome.solved and outcome.metrics["finished/second"] == 1


def test_the_instructions_favour_no_seat_and_no_arm(task: GSM8K) -> None:
    opening = task.view(task.start(PENS, RNG), "first")[0].content.lower()
    for word in ("partner", "collaborat", "cooperat", "together", "team", "help", "first", "second", "reward"):
        assert word not in opening.removesuffix(f"problem: {QUESTION.lower()}\n\nsolution:")


@pytest.mark.parametrize(
    ("name", "steps", "reply"),
    [
        ("silent", ["3 * 14 = 42"], ""),
        ("copycat", [], ""),
        ("copycat", ["3 * 14\n\nSolution:\n= 42"], "3 * 14\n\nSolution:\n= 42"),
        ("copycat", [""], ""),
        ("copycat", ["one", "two"], "two"),
        ("copycat", ["one", "two", "three"], "three"),
    ],
)
def test_partners_reply(task: GSM8K, name: str, steps: list[str], reply: str) -> None:
    state = task.start(PENS, RNG)
    for step in steps:
        state = state.with_step(step)
    messages = [message.as_dict() for message in task.view(state, task.actors(state)[0])]
    assert load_partner(name, task).reply(messages, RNG) == reply


@pytest.mark.parametrize("protocol", ["relay", "debate"])
def test_repeating_the_worked_examples_before_a_problem_is_no_answer(folder: str, protocol: str) -> None:
    options: dict[str, Any] = {"data_path": folder, "protocol": protocol, "validation": 5, "strict": True}
    bare, told = GSM8K(**options), GSM8K(**options, explain=True)
    [problem] = bare.problems("train", 1)
    state = told.start(problem, RNG)
    [short], [long] = bare.view(bare.start(problem, RNG), "first"), told.view(state, "first")
    example = long.content.removesuffix(short.content).strip()
    assert long.content.endswith(f"\n\n{short.content}") and example.count("#### ") == 2
    for reply in (example, example.rpartition("\n\n")[2]):
        after, _ = told.step(state, dict.fromkeys(told.actors(state), reply), RNG)
        assert (after.answer if protocol == "relay" else after.answers[-1]["first"]) is None
    asked = [message.as_dict() for message in told.view(state, "first")]
    right = f"#### {problem.data['answer']}"
    assert load_partner("right_for_wrong_reasons", told).reply(asked, RNG).endswith(right)


def test_the_wrong_partner_finishes_and_is_never_right(task: GSM8K) -> None:
    for seed in range(50):
        reply = load_partner("wrong", task).reply([{"role": "user", "content": "?"}], random.Random(seed))
        answer = final_answer(reply)
        assert answer is not None and answer.denominator != 1


def test_the_task_is_found_by_its_folder(folder: str) -> None:
    assert isinstance(load_task("gsm8k", {"data_path": folder, "turns": 6}), GSM8K)
    with pytest.raises(ValueError, match=r"its options are: data_path, protocol"):
        load_task("gsm8k", {"path": folder})


def test_every_problem_of_the_real_data_is_read(gsm8k_folder: Path) -> None:
    task = GSM8K(data_path=str(gsm8k_folder))
    problems = [task.problems(split) for split in ("train", "dev", "test")]
    assert [len(split) for split in problems] == [6973, 500, 1319]
    assert len({problem.id for problem in chain(*problems)}) == 8792
    # As the wrong partner takes it to be.
    assert all(Fraction(problem.data["answer"]) % 1 == 0 for problem in chain(*problems))
