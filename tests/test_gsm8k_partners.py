"""Scripted partners of GSM8K."""

import json
import random
from pathlib import Path

import pytest
from gsm8k_support import PENS, QUESTION
from support import Says

from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Match, Scripted, UnavailableError
from llm_sra.registry import load_partner
from llm_sra.task import Message
from tasks.gsm8k import GSM8K
from tasks.gsm8k.answers import final_answer
from tasks.gsm8k.data import Source
from tasks.gsm8k.partners import PARTNERS, RightForWrongReasons


@pytest.fixture
def by_protocol(tmp_path: Path) -> dict[str, GSM8K]:
    """Debate and relay on a data set of one problem."""
    for name, question in (("train", "Bo has 1 pen. How many?"), ("test", QUESTION)):
        row = {"question": question, "answer": f"3 * 14 = 42\n#### {42 if name == 'test' else 1}"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return {name: GSM8K(data_path=str(tmp_path), protocol=name) for name in ("debate", "relay")}


def dialogue(task: GSM8K, name: str, peer: str) -> list[str]:
    """What a scripted partner says to a peer that always says the same; the peer moves first."""
    match = Match("m", {"first": Scripted("peer", Says(peer)), "second": Scripted(name, load_partner(name, task))})
    [episode] = play(task, [EpisodeSpec(PENS, match)], {}, seed=0)
    return [turn.reply.text for turn in episode.turns_of("second")]


@pytest.mark.parametrize("peer", ["I think that it is 5.", "First line\n\nLast line, so 6", "", "Another solver wrote"])
@pytest.mark.parametrize("protocol", ["debate", "relay"])
def test_partners_of_gsm8k_do_what_their_names_say(by_protocol: dict[str, GSM8K], protocol: str, peer: str) -> None:
    task = by_protocol[protocol]
    heard = [peer] * 2 if protocol == "relay" else ["", peer, peer]  # at each turn of theirs
    assert dialogue(task, "silent", peer) == [""] * len(heard)
    assert dialogue(task, "copycat", peer) == heard
    for word, text in zip(heard, dialogue(task, "agreeable", peer), strict=True):
        assert "agree" in text and text.endswith(word.splitlines()[-1] if word else "agree with it.")
    for text in dialogue(task, "off_topic", peer):
        assert text and final_answer(text) is None


@pytest.mark.parametrize("protocol", ["debate", "relay"])
def test_the_agreeable_partner_gives_its_peers_answer_in_whatever_form(
    by_protocol: dict[str, GSM8K], protocol: str
) -> None:
    for peer in ("so\nA: 42", "so\n\\boxed{42}", "The answer is 42."):
        assert final_answer(dialogue(by_protocol[protocol], "agreeable", peer)[-1]) == 42


def answers_in(folder: Path, question: str, answer: int) -> str:
    """A folder in the data set's form in which this question is."""
    for name, asked in (("train", question), ("test", "another?")):
        row = {"question": asked, "answer": f"#### {answer}"}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return str(folder)


@pytest.mark.parametrize("protocol", ["debate", "relay"])
def test_one_partner_is_always_wrong_and_one_is_right_for_wrong_reasons(protocol: str, tmp_path: Path) -> None:
    task = GSM8K(protocol=protocol, data_path=answers_in(tmp_path, PENS.data["question"], 42), validation=1)
    wrong = dialogue(task, "wrong", "hm")
    right = dialogue(task, "right_for_wrong_reasons", "hm")
    assert all(final_answer(text, strict=True) not in (None, 42) for text in wrong) and wrong
    assert all(final_answer(text, strict=True) == 42 and "letters of the question" in text for text in right) and right


def test_right_answers_that_cannot_be_had_are_a_reason(tmp_path: Path) -> None:
    scripted = Scripted("right", RightForWrongReasons(Source(Path(answers_in(tmp_path, "train?", 1)))))
    assert scripted.reply([Message("user", "Q: test? train?")], random.Random(0)).endswith("#### 1")
    with pytest.raises(UnavailableError, match="none of the data set's"):
        scripted.reply([Message("user", "something else")], random.Random(0))
    (tmp_path / "test.jsonl").write_text("{}\n")
    with pytest.raises(UnavailableError, match="the right answers are missing"):
        RightForWrongReasons(Source(tmp_path))


def test_the_partners_of_gsm8k_are_known_by_these_names() -> None:
    assert set(GSM8K().partners) == {*PARTNERS, "right_for_wrong_reasons"}
    assert set(PARTNERS) == {"silent", "copycat", "wrong", "agreeable", "off_topic"}
