"""What a model behind a server thought leaves nothing of itself, however the server spells it, in every protocol."""

import random
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, answer, says
from partners_support import HELLO, endpoint
from support import Says

from llm_sra.partners.identity import describe
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import ChatClient, Endpoint, Match, Scripted
from llm_sra.task import Problem
from tasks.gsm8k import GSM8K

pytestmark = pytest.mark.usefixtures("quick")
PENS = Problem("pens", {"question": "Ada has 3 boxes with 14 pens each. How many pens?", "answer": "42"})
SPELLINGS = {
    "its end alone": "6 * 7, or #### 41\n</think>\n\n{said}",
    "both tags": "<think>\n#### 41\n</think>\n\n{said}",
    "two thoughts": "<think>a</think>{said}<think>#### 41</think>{said}",
    "Magistral": "[THINK]#### 41[/THINK]{said}",
    "Seed": "<seed:think>#### 41</seed:think>{said}",
    "Command": "<|START_THINKING|>#### 41<|END_THINKING|>{said}",
    "Kimi": "\u25c1think\u25b7#### 41\u25c1/think\u25b7{said}",
    "Gemma 4": "<|channel>thought\n#### 41\n<channel|>{said}",
    "GPT-OSS": "<|channel|>analysis<|message|>#### 41<|end|><|start|>assistant<|channel|>final<|message|>{said}",
    "GPT-OSS without a thought": "<|channel|>final<|message|>{said}",
    "a prompt that asks for it": "<thinking>#### 41</thinking>{said}",
}


def played(server: FakeEndpoint, protocol: str, **options: Any) -> tuple[float, str]:
    """What the endpoint earned in the first seat, and what the other seat was shown at the end."""
    task = GSM8K(protocol=protocol, rounds=2, turns=2)
    hosted = Endpoint("hosted", "m", ChatClient(server.url, retries=0), max_tokens=64, **options)
    match = Match("m", {"first": hosted, "second": Scripted("idle", Says("I see."))})
    [episode] = play(task, [EpisodeSpec(PENS, match)], {}, seed=0)
    return episode.total("first"), episode.turns_of("second")[-1].view[-1].content if protocol == "debate" else ""


@pytest.mark.parametrize("protocol", ["debate", "relay"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_thought_is_neither_shown_nor_scored(server: FakeEndpoint, spelling: str, protocol: str) -> None:
    server.rule = lambda body: SPELLINGS[spelling].format(said="#### 42")
    earned, shown = played(server, protocol)
    assert earned == (2 if protocol == "debate" else 1)
    assert "41" not in shown.split("number is")[0]
    server.rule = lambda body: SPELLINGS[spelling].format(said="so")
    assert played(server, protocol)[0] == 0


@pytest.mark.parametrize("protocol", ["debate", "relay"])
def test_a_cut_thought_that_the_server_began_is_nothing_where_the_roster_says_so(
    server: FakeEndpoint, protocol: str
) -> None:
    server.rule = lambda body: "It is 6 * 7.\n#### 42"
    assert played(server, protocol)[0] > 0  # nobody can tell it from an answer
    earned, shown = played(server, protocol, opens_thought=True)
    assert earned == 0 and "6 * 7" not in shown
    server.rule = lambda body: "It is 6 * 7.</think>\n#### 42"
    assert played(server, protocol, opens_thought=True)[0] > 0


def finished(text: str | None, finish: str, **more: Any) -> Any:
    """A server's answer."""
    whole = answer(text)
    whole["choices"][0]["finish_reason"] = finish
    whole["choices"][0]["message"] |= more
    return says(200, whole)


CUT = "It is 6 * 7.\n#### 42"


@pytest.mark.parametrize("protocol", ["debate", "relay"])
@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("text", [None, "", CUT, f"\n{CUT}\n"])
def test_a_thought_that_a_server_sends_apart_leaves_nothing_if_it_was_cut(
    server: FakeEndpoint, text: str | None, field: str, protocol: str
) -> None:
    server.faults = [finished(text, "length", **{field: CUT}) for _ in range(2)]
    earned, shown = played(server, protocol)
    assert earned == 0 and "6 * 7" not in shown


def test_a_reply_beside_a_thought_is_the_reply(server: FakeEndpoint) -> None:
    server.faults = [finished("#### 42", "stop", reasoning_content="#### 41") for _ in range(2)]
    assert played(server, "debate")[0] == 2
    server.faults = [finished("#### 42", "stop", reasoning_content=None, reasoning=7) for _ in range(2)]
    assert played(server, "debate")[0] == 2


CLOSED, OPEN = "6 * 7\n</think>\n\n#### 42", "<think>6 * 7"
SEEN: dict[str, tuple[list[tuple[str, str]], int]] = {
    "closed, then cut": ([(CLOSED, "stop"), (CUT, "length")], 1),
    "cut, then closed in another spelling": ([(CUT, "length"), ("6 * 7[/THINK]42", "stop")], 1),
    "said once": ([(CLOSED, "stop"), (CUT, "length"), (CUT, "length"), (CLOSED, "stop")], 1),
    "cut alone": ([(CUT, "length")] * 3, 0),
    "closed alone": ([(CLOSED, "stop"), (CLOSED, "length")], 0),
    "a thought of its own": ([(OPEN + CLOSED, "stop"), (OPEN, "length"), (CUT, "length")], 0),
    "an answer that ended": ([(CLOSED, "stop"), (CUT, "stop")], 0),
}


@pytest.mark.parametrize("case", SEEN)
def test_a_server_that_shows_that_it_begins_thoughts_is_named_once(
    server: FakeEndpoint, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    replies, warnings = SEEN[case]
    server.faults = [finished(text, finish) for text, finish in replies]
    hosted = endpoint(server)
    with caplog.at_level("WARNING"):
        for number in range(len(replies)):
            hosted.reply(HELLO, random.Random(number))
    said = [record.getMessage() for record in caplog.records if "opens_thought: true" in record.getMessage()]
    assert len(said) == warnings
    assert all(server.url in line and "max_tokens" in line and "\n" not in line for line in said)


def test_an_endpoint_that_begins_thoughts_is_another_partner_and_others_stay_who_they_were(
    server: FakeEndpoint,
) -> None:
    plain, thinks = (Endpoint("a", "m", ChatClient(server.url), opens_thought=one) for one in (False, True))
    facts = [describe(policy, lambda policy: {}) for policy in (plain, thinks)]
    assert facts[1] == {**facts[0], "opens_thought": True} and "opens_thought" not in facts[0]


def test_words_that_come_in_parts_are_joined_and_thoughts_among_them_left_out(server: FakeEndpoint) -> None:
    whole = answer("")
    whole["choices"][0]["message"]["content"] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "#### 41"}]},
        {"type": "text", "text": "so "},
        {"type": "text", "text": "42"},
    ]
    server.faults = [says(200, whole)]
    assert endpoint(server).reply(HELLO, random.Random(0)) == "so 42"


@pytest.mark.parametrize("content", [[{"type": "text"}], [7], {"text": "a"}, 7, [{"type": "text", "text": 7}]])
def test_parts_that_are_none_are_asked_for_again(server: FakeEndpoint, content: Any) -> None:
    broken = answer("")
    broken["choices"][0]["message"]["content"] = content
    server.faults = [says(200, broken)]
    assert endpoint(server).reply(HELLO, random.Random(0)) == "hm"
