"""GSM8K's debate and the reading of free answers, by hand and on the real data."""

import json
import random
import re
from collections.abc import Mapping
from fractions import Fraction
from itertools import product
from pathlib import Path
from statistics import fmean, pvariance

import pytest
import torch
from support import ROOT, Says, make_engine, qwen2_folder

from llm_sra.objectives.turns import returns_to_go
from llm_sra.playing import EpisodeSpec
from llm_sra.playing import play as play_specs
from llm_sra.policies import EnginePolicy, Match, Scripted
from llm_sra.task import Message, Outcome, Problem, Reward
from tasks.gsm8k import GSM8K
from tasks.gsm8k.answers import final_answer
from tasks.gsm8k.data import DataError
from tasks.gsm8k.repetition import repetition
from tasks.gsm8k.task import read_prompt

RNG = random.Random(0)
PENS = Problem("pens", {"question": "Ada has 3 boxes with 14 pens each. How many pens?", "answer": "42"})
DATA = ROOT.parent / "shared" / "data" / "gsm8k"
real_data = pytest.mark.skipif(not (DATA / "train.jsonl").is_file(), reason="the real GSM8K is not here")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", 42),
        ("42.0", 42),
        ("$42", 42),
        ("1,000", 1000),
        ("42.", 42),
        ("-7", -7),
        ("The answer is **42**.", 42),
        ("The answer is 42 apples.", 42),
        ("Answer: $1,234.50", Fraction("1234.5")),
        ("16 - 3 = <<16-3=13>>13 eggs\nA: 26", 26),
        ("so 5 + 3 = 8 apples", 8),
        ("it is 12, not 3.5.", Fraction("3.5")),
        ("\\boxed{42} as 6 * 7 is", 42),
        ("thus $\\boxed{1,234}$", 1234),
        ("$\\frac{1}{2}$", Fraction(1, 2)),
        ("#### \\frac{84}{2}", 42),
        ("#### 2/4", Fraction(1, 2)),
        ("#### 50%", 50),
        ("#### 41\nNo:\n#### 42", 42),
        ("#### 42\n\nI hope that 3 examples help", 42),  # what stands after the hashes counts
        ("A: 3\n#### 42", 42),
        ("#### none", None),
        ("", None),
        ("no number", None),
        ("#### 9**9**9**9", None),
        ("#### \\binom{99999999}{9999999}", None),  # never computed
        ("#### 10^10^10", None),
        ("#### \u0664\u0662", None),
    ],
)
def test_a_free_answer_is_read(text: str, answer: Fraction | int | None) -> None:
    assert final_answer(text) == answer


@real_data
def test_every_reference_is_read_in_every_form() -> None:
    lines = [json.loads(line) for name in ("train", "test") for line in (DATA / f"{name}.jsonl").open()]
    assert len(lines) == 8792
    for line in lines:
        written = line["answer"].rpartition("#### ")[2]
        value = Fraction(written.replace(",", ""))
        assert value.denominator == 1
        forms = [line["answer"], written, f"#### {written}", f"The answer is {written}.", f"${written}", f"{written}."]
        forms += [str(value), f"{int(value):,}", f"{value}.0", f"\\boxed{{{written}}}", f"A: {written}"]
        assert {form: final_answer(form) for form in forms} == dict.fromkeys(forms, value)
        assert final_answer(line["answer"], strict=True) == value


@real_data
@pytest.mark.parametrize(
    ("model", "percent"),
    [("6b_finetuning", 21.68), ("6b_verification", 39.04), ("175b_finetuning", 34.72), ("175b_verification", 56.25)],
)
def test_real_solutions_are_judged_as_their_file_judges_them(model: str, percent: float) -> None:
    lines = [json.loads(line) for line in (DATA / "example_model_solutions.jsonl").open()]
    right = [final_answer(line[model]["solution"]) == final_answer(line["ground_truth"]) for line in lines]
    assert right == [line[model]["is_correct"] for line in lines]
    assert len(lines) == 1319 and round(100 * sum(right) / len(right), 2) == percent


def debate(task: GSM8K, *rounds: tuple[str, str]) -> tuple[Outcome, list[Mapping[str, Reward]]]:
    state, paid = task.start(PENS, RNG), []
    for first, second in rounds:
        assert task.actors(state) == ("first", "second")
        state, rewards = task.step(state, {"first": first, "second": second}, RNG)
        paid.append(rewards)
    assert task.actors(state) == ()
    return task.outcome(state), paid


def test_each_seat_earns_for_its_own_right_answers() -> None:
    outcome, paid = debate(GSM8K(gamma=0.5), ("#### 42", "41"), ("#### 42", "A: 42"), ("#### 41", "42"))
    assert [reward["first"] for reward in paid] == [Reward(own=1), Reward(own=0.5), Reward()]
    assert [reward["second"] for reward in paid] == [Reward(), Reward(own=0.5), Reward(own=0.25)]
    assert not outcome.solved  # both are right in the last round: not so


def test_what_is_counted() -> None:
    outcome, _ = debate(GSM8K(), ("#### 42", "41"), ("#### 41", "41"), ("#### 42", "42"))
    assert outcome.solved
    counted = outcome.metrics
    assert [counted[f"accuracy/{r}/first"] for r in range(3)] == [1, 0, 1]
    assert [counted[f"accuracy/{r}/second"] for r in range(3)] == [0, 0, 1]
    assert [counted[f"agreement/{r}"] for r in range(3)] == [0, 1, 1]
    assert [counted[f"flips/{r}/first"] for r in (1, 2)] == [1, 1]
    assert [counted[f"flips/{r}/second"] for r in (1, 2)] == [0, 1]
    assert counted["recovered/second"] == 1 and "recovered/first" not in counted
    assert counted["corrupted/first"] == 0 and "corrupted/second" not in counted
    assert counted["corrupted/1/first"] == counted["recovered/2/first"] == 1
    assert (counted["recovered/1/second"], counted["recovered/2/second"]) == (0, 1)
    assert not {"flips/0/first", "recovered/1/first", "corrupted/2/first", "corrupted/1/second"} & counted.keys()
    assert outcome.effort == {"first": 0.21, "second": 0.06}


def test_a_reply_that_repeats_itself_is_told_by_round_and_seat() -> None:
    outcome, _ = debate(GSM8K(rounds=2), ("a a a a a", "42"), ("a b c d", "a b c d a b c d"))
    counted = [outcome.metrics[f"repetition/{r}/{seat}"] for r in range(2) for seat in ("first", "second")]
    assert counted == pytest.approx([0.5, 0, 0, 1 / 5])


def test_no_answer_is_no_agreement() -> None:
    outcome, _ = debate(GSM8K(rounds=1), ("who knows", "not me"))
    assert outcome.metrics["agreement/0"] == outcome.metrics["answered/0/first"] == 0


def test_a_strict_debate_wants_hashes() -> None:
    assert not debate(GSM8K(rounds=1, strict=True), ("42", "42"))[0].solved
    assert debate(GSM8K(rounds=1, strict=True), ("#### 42", "#### 42"))[0].solved


def test_reward_and_metrics_of_a_strict_debate_use_one_reader() -> None:
    outcome, [paid] = debate(GSM8K(rounds=1, strict=True), ("The answer is 42.", "#### 42"))
    assert (paid["first"], paid["second"]) == (Reward(), Reward(own=1))
    assert [outcome.metrics[f"{name}/0/first"] for name in ("accuracy", "answered")] == [0, 0]
    assert [outcome.metrics[f"{name}/0/second"] for name in ("accuracy", "answered")] == [1, 1]
    outcome, [paid] = debate(GSM8K(rounds=1), ("The answer is 42.", "#### 42"))
    assert paid["first"] == paid["second"] == Reward(own=1) and outcome.solved


def echo_of(task: GSM8K) -> tuple[str, str]:
    """What a seat is asked in the first round and in the next one, whole."""
    state = task.start(PENS, RNG)
    [first] = task.view(state, "first")
    state, _ = task.step(state, {"first": "a", "second": "b"}, RNG)
    return first.content, task.view(state, "first")[2].content


@pytest.mark.parametrize("strict", [False, True])
def test_a_quoted_prompt_is_no_answer_and_hides_none(strict: bool) -> None:
    task = GSM8K(rounds=1, strict=strict)
    for echo in echo_of(GSM8K()):
        example = re.search(r"#### ([0-9.]+)", echo)
        assert example is not None and Fraction(example[1]).denominator > 1  # it is no reference, in whatever form
        parts = (echo, echo.replace(PENS.data["question"], ""), echo.splitlines()[-2], echo.splitlines()[-1])
        for part in parts:
            outcome, _ = debate(task, (part, f"{part}\n#### 42"))
            assert outcome.metrics["answered/0/first"] == 0, part
            assert outcome.metrics["accuracy/0/second"] == 1, part
            outcome, _ = debate(task, (f"#### 42\n{part}", ""))
            assert outcome.metrics["accuracy/0/first"] == 1, part


def test_a_quoted_question_is_no_answer() -> None:
    outcome, _ = debate(GSM8K(rounds=1), (PENS.data["question"], f"{PENS.data['question']} That is 42."))
    assert [outcome.metrics[f"answered/0/{seat}"] for seat in ("first", "second")] == [0, 1]
    assert outcome.metrics["accuracy/0/second"] == 1


def test_a_seat_sees_its_own_last_reply_and_its_peers() -> None:
    task = GSM8K()
    state = task.start(PENS, RNG)
    [question] = task.view(state, "first")
    assert task.view(state, "second") == [question]
    assert question.role == "user" and PENS.data["question"] in question.content
    for replies in ({"first": "one {question}", "second": "two {peer}"}, {"first": "three", "second": "four {peer}"}):
        state, _ = task.step(state, replies, RNG)
        seen = task.view(state, "first")
        assert seen[:2] == [question, Message("assistant", replies["first"])]
        assert replies["second"] in seen[2].content and replies["first"] not in seen[2].content
    assert "two" not in task.view(state, "first")[2].content  # the last round alone


def test_the_prompts_favour_no_seat_and_no_arm() -> None:
    task = GSM8K()
    state, _ = task.step(task.start(PENS, RNG), {"first": "X", "second": "Y"}, RNG)
    for seat in task.seats:
        for message in task.view(state, seat):
            for word in (
                "partner",
                "collaborat",
                "cooperat",
                "together",
                "team",
                "help",
                "reward",
                "adversar",
                "trust",
            ):
                assert word not in message.content.lower()


def test_a_changed_reply_of_the_peer_changes_the_tokens_that_are_sent() -> None:
    task = GSM8K(rounds=2)
    engine = make_engine(qwen2_folder())
    state = task.start(PENS, RNG)
    prompts = {
        engine.renderer.render(task.view(task.step(state, {"first": "same", "second": said}, RNG)[0], "first"))
        for said in ("#### 41", "#### 42")
    }
    assert len(prompts) == 2


def test_prompts_can_be_replaced_by_files_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "debate.txt").write_text("Solve: {question}")
    task = GSM8K(prompts=str(tmp_path))
    assert task.view(task.start(PENS, RNG), "first")[0].content == f"Solve: {PENS.data['question']}"
    (tmp_path / "debate.txt").write_text("Solve it")
    with pytest.raises(DataError, match=r"must contain \{question\}"):
        GSM8K(prompts=str(tmp_path))
    with pytest.raises(DataError, match="no folder"):
        GSM8K(prompts=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"protocol": "chat"}, ValueError),
        ({"rounds": 0}, ValueError),
        ({"gamma": 1.5}, ValueError),
        ({"strict": "yes"}, TypeError),
        ({"prompts": 3}, TypeError),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        GSM8K(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<think>6 * 7 is\n41</think>\n\n#### 42", "#### 42"),
        ("so far</think>#### 42", "#### 42"),  # a template that opens the thought itself
        ("<think>41", ""),
        ("#### 42<think>or 41", "#### 42"),
        ("I think> 42", "I think> 42"),
        ("#### 42", "#### 42"),
    ],
)
def test_what_was_thought_stays_private(text: str, shown: str) -> None:
    policies = {"first": Scripted("thinks", Says(text)), "second": Scripted("says", Says("#### 1"))}
    for task, expected in ((GSM8K(rounds=2), shown), (GSM8K(rounds=2, show_thinking=True), text)):
        [episode] = play_specs(task, [EpisodeSpec(PENS, Match("m", policies))], {}, seed=0)
        seen = episode.turns_of("second")[1].view[-1].content
        assert seen == read_prompt(None, "debate_again.txt").replace("{peer}", expected)
        assert episode.total("first") == 2 * (final_answer(expected) == 42)


@pytest.mark.parametrize("protocol", ["debate", "relay"])
def test_a_thought_without_an_end_pays_nobody_in_any_protocol(protocol: str) -> None:
    policies = {seat: Scripted("thinks", Says("<think>\nSo it is\n#### 42")) for seat in GSM8K.seats}
    task = GSM8K(protocol=protocol, turns=2, rounds=1)
    [episode] = play_specs(task, [EpisodeSpec(PENS, Match("m", policies))], {}, seed=0)
    assert not episode.outcome.solved
    assert [episode.total(seat) for seat in task.seats] == [0, 0]
    assert episode.outcome.effort == {"first": 0, "second": 0}


def test_generated_tokens_cost_their_writer() -> None:
    engine = make_engine(qwen2_folder())
    policies = {seat: EnginePolicy(seat, adapter=name) for seat, name in (("first", "left"), ("second", "right"))}
    specs = [EpisodeSpec(PENS, Match("m", policies))]
    [free] = play_specs(GSM8K(rounds=2), specs, {"main": engine}, seed=0, max_reply_tokens=5)
    [paid] = play_specs(GSM8K(rounds=2, cost_per_token=0.01), specs, {"main": engine}, seed=0, max_reply_tokens=5)
    assert paid.turns == free.turns
    for seat in policies:
        tokens = sum(len(turn.reply.token_ids) for turn in paid.turns_of(seat))
        assert paid.cost(seat) == pytest.approx(0.01 * tokens) and tokens
        assert free.cost(seat) == 0


def test_crediting_rounds_has_a_quarter_of_the_variance_of_crediting_episodes() -> None:
    # A toy debate of three rounds, in each of which a seat is right with probability 1/2, independently; one logit for
    # all. The score of round r is s_r = x_r - 1/2, its reward x_r. Summed over rounds, the gradient of an episode is
    #   crediting episodes: sum_r s_r * sum_j (x_j - 1/2) = S^2, with S = s_0 + s_1 + s_2: 9/4 in 2 of 8, else 1/4;
    #   crediting rounds:   sum_r s_r * sum_{j >= r} (x_j - 1/2) = (S^2 + 3/4) / 2.
    # Both have the mean 3/4; the variances are 3/4 and 3/16.
    by_episode, by_round = [], []
    for right in product((0.0, 1.0), repeat=3):
        centred = torch.tensor(right) - 0.5
        by_episode.append(float((centred * centred.sum()).sum()))
        by_round.append(float((centred * returns_to_go(centred)).sum()))
    assert fmean(by_episode) == fmean(by_round) == 0.75
    assert (pvariance(by_episode), pvariance(by_round)) == (0.75, 0.1875)


def test_repetition_is_the_share_of_4_grams_that_stood_there_before() -> None:
    assert repetition("a b c") == 0
    assert repetition("a b c d e") == 0
    assert repetition("a a a a a") == 0.5
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
