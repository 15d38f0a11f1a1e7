"""Partners whose replies were recorded."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from partners_support import play_toy, recording
from support import Says

from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Recorded, Scripted, UnavailableError
from llm_sra.task import Message
from tasks.gsm8k import GSM8K

pytestmark = pytest.mark.usefixtures("quick")


def test_a_recorded_partner_says_what_was_recorded_for_the_problem_and_repeats_itself(tmp_path: Path) -> None:
    rows = [{"q": f"word: {word}", "gpt.2": {"said": f"{word} is <<it>>"}} for word in ("apple", "pear")]
    policy = Recorded("old", recording(tmp_path, *rows), field="gpt.2.said", key="q", rewrite={"<<(.*?)>>": r"\1"})
    assert play_toy(policy, Scripted("x", Says("hm"))) == [
        ["apple is it", "hm", "apple is it", "hm"],
        ["pear is it", "hm", "pear is it", "hm"],
    ]


def test_a_question_is_told_by_the_first_user_message_and_its_first_and_longest_match(tmp_path: Path) -> None:
    rows = [{"question": q, "reply": f"re {q}"} for q in ("one", "one and two", "three")]
    policy = Recorded("old", recording(tmp_path, *rows), field="reply")

    def reply(*messages: tuple[Any, str]) -> str:
        return policy.reply([Message(role, text) for role, text in messages], random.Random(0))

    assert reply(("user", "Q: one?")) == "re one"
    assert reply(("user", "Q: one and two? three")) == "re one and two"  # a peer quotes another question
    assert reply(("system", "three"), ("user", "one"), ("assistant", "hm"), ("user", "three")) == "re one"
    with pytest.raises(UnavailableError, match=r"'old': none of the 3 questions.*'four'.*split that was recorded"):
        reply(("user", "four"), ("user", "three"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], "line 1 is not JSON"),
        ([[1]], "line 1: expected an object"),
        (
            [{"question": "a", "replies": "b", "by": {"me": "x"}}],
            "at 'reply', got null; there are: question, replies, by.me",
        ),
        ([{"reply": "a"}], "at 'question'"),
        ([{"question": " ", "reply": "b"}], "the question is empty"),
        (
            [{"question": "a", "reply": "b"}, "", {"question": "a", "reply": "c"}],
            "line 3: the question was recorded before",
        ),
        ([], "holds no recorded reply"),
    ],
)
def test_a_recording_that_cannot_be_used_is_a_reason(tmp_path: Path, rows: Sequence[object], message: str) -> None:
    with pytest.raises(UnavailableError, match=message):
        Recorded("old", recording(tmp_path, *rows), field="reply")


def test_a_missing_recording_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=f"cannot read the recorded replies in {tmp_path}/no.jsonl"):
        Recorded("old", tmp_path / "no.jsonl", field="reply")


def test_the_four_recorded_models_answer_the_test_set_of_gsm8k(gsm8k_folder: Path) -> None:
    path = gsm8k_folder / "example_model_solutions.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    task = GSM8K(data_path=str(gsm8k_folder))
    problems = task.problems("test", 40)
    for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
        policy = Recorded(model, path, field=f"{model}.solution", rewrite={"(?m)^A: ": "#### "})
        specs = [EpisodeSpec(problem, Match(model, dict.fromkeys(task.seats, policy))) for problem in problems]
        marked = {row["question"]: row[model]["is_correct"] for row in rows}
        episodes = play(task, specs, {}, seed=0)
        assert [e.outcome.solved for e in episodes] == [marked[problem.data["question"]] for problem in problems]
        assert len({turn.reply.text for turn in episodes[0].turns}) == 1
