"""Partners behind a server: what they are asked for, and how they fail."""

import json
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_endpoint import FakeEndpoint, answer, drip, drip_headers, drip_status, hang, interim, says
from partners_support import APPLE, GREEDY, SAMPLED, TOKEN, ask, endpoint, play_toy
from support import Says, Toy, make_engine, qwen2_folder

from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import ChatClient, Endpoint, EnginePolicy, Match, Policy, Scripted, UnavailableError, chat_client
from llm_sra.policies.deadline import Deadline, TooLateError, _Stream
from llm_sra.registry import load_task
from llm_sra.task import Episode, Message

pytestmark = pytest.mark.usefixtures("quick")


# -- what is asked for ------------------------------------------------------------------------------------


def test_an_endpoint_is_asked_with_model_messages_limit_and_stop(server: FakeEndpoint) -> None:
    server.rule = lambda body: "one\ntwo"
    policy = Endpoint("hosted", "qwen", ChatClient(server.url + "/"), max_tokens=6, stop=("\n",))
    view = (Message("user", "q"), Message("assistant", "a \ud800"), Message("user", "ü"))
    assert policy.decoded(GREEDY).reply(view, random.Random(0)) == "one"  # type: ignore[union-attr]
    assert server.paths == ["/v1/chat/completions"]
    assert server.asked == [
        {
            "model": "qwen",
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a ?"},
                {"role": "user", "content": "ü"},
            ],
            "temperature": 0,
            "top_p": 1,
            "max_tokens": 6,
            "stop": ["\n"],
        }
    ]
    assert "Authorization" not in server.headers[0]


def test_sampled_replies_have_seeds_of_their_turns_and_greedy_ones_none(server: FakeEndpoint) -> None:
    policy = endpoint(server)
    for seed in (0, 0, 1):
        ask(policy.decoded(SAMPLED), "x", seed=seed)
        ask(policy.decoded(GREEDY), "x", seed=seed)
    assert [(body["temperature"], "seed" in body) for body in server.asked] == [(1, True), (0, False), (1, True)]
    assert server.asked[0]["seed"] != server.asked[2]["seed"]
    assert all(0 <= body["seed"] < 2**31 for body in (server.asked[0], server.asked[2]))


def test_the_temperature_of_an_endpoint_is_that_of_sampled_replies(server: FakeEndpoint) -> None:
    policy = Endpoint("hosted", "m", ChatClient(server.url), temperature=0.7)
    for sampling in (GREEDY, SAMPLED):
        ask(policy.decoded(sampling), "x")
    ask(policy.decoded(SAMPLED).at_temperature(2.0), "x")
    assert [body["temperature"] for body in server.asked] == [0, 0.7, 2.0]


def test_a_key_from_the_environment_goes_with_every_request(
    server: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = TOKEN
    monkeypatch.setenv("MADE_UP_KEY", f"{TOKEN}\n")
    assert ask(endpoint(server, key_env="MADE_UP_KEY"), "a", "b") == ["hm", "hm"]


def test_many_replies_are_asked_for_at_a_time_but_no_more_than_allowed(server: FakeEndpoint) -> None:
    server.rule, server.seconds = lambda body: body["messages"][0]["content"].upper(), 0.1
    texts = [f"text {index}" for index in range(12)]
    assert ask(endpoint(server, concurrency=4), *texts) == [text.upper() for text in texts]
    assert 1 < server.most <= 4


def stops(body: dict[str, Any], text: str) -> str:
    """What a server says that stops at the first of the strings that it was sent."""
    return text[: min((text.find(string) for string in body.get("stop", []) if string in text), default=len(text))]


@pytest.mark.parametrize(
    ("said", "reply", "requests"),
    [
        ("7\nrest", "7", 1),
        ("\n7\nrest", "\n7", 2),
        (" \n\n3+2=5", " \n\n3+2=5", 2),
        ("<think>\na\nb\n</think>\n\n7\nrest", "<think>\na\nb\n</think>\n\n7", 2),
        ("[THINK]a\nb[/THINK]\n7\nrest", "<think>a\nb</think>\n7", 2),
        ("", "", 2),  # the protocol does not say what ended it
    ],
)
def test_a_reply_that_says_nothing_is_asked_for_without_stop_strings_and_cut_here(
    server: FakeEndpoint, said: str, reply: str, requests: int, tmp_path: Path
) -> None:
    server.rule = lambda body: stops(body, said)
    cache = tmp_path / "cache.jsonl"
    for used in (10 * requests, 0):  # the second client finds the reply in the file
        client = ChatClient(server.url, cache=cache, retries=0)
        assert ask(Endpoint("hosted", "m", client, stop=("\n",)), "x") == [reply]
        assert client.spent == used
        client.close()
    assert len(server.asked) == requests
    first, *others = server.asked
    assert first["stop"] == ["\n"] and others == [{k: v for k, v in first.items() if k != "stop"}] * (requests - 1)
    assert [json.loads(line)["tokens"] for line in cache.read_text().splitlines()] == [10 * requests]


def test_an_empty_reply_is_not_asked_for_again_where_it_was_cut_or_no_stop_string_was_sent(
    server: FakeEndpoint,
) -> None:
    cut = answer("")
    cut["choices"][0]["finish_reason"] = "length"
    server.faults = [says(200, cut)]
    assert ask(Endpoint("hosted", "m", ChatClient(server.url), stop=("\n",)), "x") == [""]
    server.rule = lambda body: "\n"
    assert ask(Endpoint("hosted", "m", ChatClient(server.url)), "y") == ["\n"]
    assert len(server.asked) == 2


def test_a_server_that_begins_thoughts_is_sent_no_stop_strings(server: FakeEndpoint) -> None:
    server.rule = lambda body: stops(body, "a\nb</think>\n7\nrest")
    policy = Endpoint("hosted", "m", ChatClient(server.url), stop=("\n",), opens_thought=True)
    assert ask(policy, "x") == ["<think>a\nb</think>\n7"]
    assert len(server.asked) == 1 and "stop" not in server.asked[0]


def test_a_reply_that_is_asked_for_again_counts_against_the_budget_and_may_fail(server: FakeEndpoint) -> None:
    server.rule = lambda body: stops(body, "\n7")
    short = ChatClient(server.url, token_budget=55)  # a request may take some 50 tokens, and takes 10
    with pytest.raises(UnavailableError, match="budget of 55 tokens is spent: 10 were used"):
        ask(Endpoint("hosted", "m", short, max_tokens=6, stop=("\n",)), "x")
    server.faults = [says(200, answer("")), says(503), says(503)]
    policy = Endpoint("hosted", "m", ChatClient(server.url, retries=1), stop=("\n",))
    with pytest.raises(UnavailableError, match=r"503 from .*\(2 attempts\)"):
        ask(policy, "y")
    assert len(server.asked) == 4


def test_a_question_is_asked_once_however_often_it_is_put(server: FakeEndpoint) -> None:
    policy = endpoint(server).decoded(GREEDY)
    ask(policy, "a", "a", "b")
    ask(policy, "b", "a")
    ask(endpoint(server).decoded(GREEDY), "a")  # another client
    assert len(server.asked) == 3


def test_play_asks_an_endpoint_for_all_pending_turns_at_once_in_whichever_seats_it_sits(server: FakeEndpoint) -> None:
    server.rule, server.seconds = lambda body: f"re: {body['messages'][-1]['content']}", 0.05
    policy = endpoint(server)
    calls: list[int] = []
    submit = policy.client.submit
    policy.client.submit = lambda questions: (calls.append(len(questions)), submit(questions))[1]  # type: ignore
    said = play_toy(policy.decoded(SAMPLED), policy.decoded(SAMPLED), Toy(turns=4, together=True))
    assert calls[0] == 4 and sum(calls) == 8 and 1 < server.most <= 4
    assert said[0] == ["re: word: apple", "re: word: apple", "re: re: word: apple", "re: go on"]


def test_an_endpoint_and_an_engine_play_together(server: FakeEndpoint) -> None:
    engine = make_engine(qwen2_folder())
    match = Match("m", {"left": EnginePolicy("agent", adapter="left"), "right": endpoint(server)})
    [episode] = play(Toy(turns=4), [EpisodeSpec(APPLE, match)], {"main": engine}, seed=0)
    assert [turn.policy for turn in episode.turns] == ["agent", "hosted"] * 2
    assert [turn.reply.text for turn in episode.turns][1::2] == ["hm", "hm"]
    assert [bool(turn.reply.token_ids) for turn in episode.turns] == [True, False] * 2
    assert server.asked[1]["messages"] == [message.as_dict() for message in episode.turns[3].view]
    assert "hm" in engine.renderer.decode(episode.turns[2].prompt_ids)


# -- faults -----------------------------------------------------------------------------------------------

CUT_OFF = b'{"model": "m", "choices": [{"message": {"content": "h'
TEN_MEGABYTES = json.dumps(answer("x" * 10_000_000)).encode()


@pytest.mark.parametrize(
    "fault",
    [
        says(429),
        says(429, Retry_After="0.05"),
        says(429, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"),
        says(429, Retry_After="soon"),
        says(500),
        says(503, b"<html>busy</html>"),
        says(529),
        says(200, CUT_OFF),
        says(200, {"choices": []}),
        says(200, {"model": "m", "choices": [{"message": {"content": ["parts"]}}]}),
        says(200, []),
        says(200, b"\xff\xfe"),
        says(200, b"[" * 100_000),
        says(200, TEN_MEGABYTES),
        says(500, TEN_MEGABYTES),
        hang(0.01),
    ],
    ids=lambda fault: "",
)
def test_a_fault_that_passes_is_asked_again_until_there_is_a_reply(server: FakeEndpoint, fault: Any) -> None:
    server.faults = [fault, fault]
    assert ask(endpoint(server), "x") == ["hm"]
    assert len(server.asked) == 3 and server.asked[0] == server.asked[2]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (says(429), r"429 from .*/v1/chat/completions.*\(3 attempts\)"),
        (says(500), r"500 from .*as the test wants it.*\(3 attempts\)"),
        (says(200, CUT_OFF), "answered without a reply .JSONDecodeError"),
        (says(200, {"choices": []}), r"answered without a reply \(IndexError"),
        (says(200, TEN_MEGABYTES), "answered with more than 1048576 bytes"),
        (hang(0.0), "broke off"),
    ],
    ids=lambda value: "",
)
def test_a_fault_that_stays_ends_with_a_reason(server: FakeEndpoint, fault: Any, message: str) -> None:
    server.faults = [fault] * 3
    with pytest.raises(UnavailableError, match=f"partner 'hosted': .*{message}"):
        ask(endpoint(server), "x")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (says(400), "400 from"),
        (says(401), "401 from .*key_env"),
        (says(404), "404 from .*no such model, or base_url lacks its last part, often /v1"),
        (says(200, answer("hm", model="other")), "answered as the model 'other', asked for 'm'.*served_as"),
        (says(429, Retry_After="3600"), "429 from .*asks to wait 3600 s"),
        (says(200, answer("hm"), Content_Encoding="gzip"), "compresses"),
        (says(307, Location="http://127.0.0.1:9/v1/chat/completions"), "redirects, which is not followed"),
        (says(200, answer("hm", model="\x1b[2J" * 200)), r"answered as the model ' \[2J"),
    ],
    ids=lambda value: "",
)
def test_a_refusal_is_a_reason_at_once_and_nobody_is_asked_again(
    server: FakeEndpoint, fault: Any, message: str
) -> None:
    server.faults = [fault]
    policy = endpoint(server)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=message):
            ask(policy, "x")
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [hang(5.0), drip(5.0)], ids=["hang", "drip"])
def test_a_server_that_hangs_or_drips_is_given_up_after_the_timeout(server: FakeEndpoint, fault: Any) -> None:
    server.faults = [fault]
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"broke off|took more than"):
        ask(endpoint(server, timeout=0.2, retries=0), "x")
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("fault", [drip_headers, interim, drip_status, drip])
def test_the_timeout_holds_for_headers_and_body_together_at_each_attempt(
    server: FakeEndpoint, fault: Callable[[float], Any]
) -> None:
    server.faults = [fault(20.0)] * 2
    policy = endpoint(server, timeout=0.5, retries=1)
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"took more than 0.5 s for an answer \(2 attempts\)"):
        ask(policy, "x")
    assert 1.0 <= time.monotonic() - start < 5
    assert len(server.asked) == 2


def test_the_deadline_holds_after_an_upgrade_to_tls_through_a_proxy_and_ends_with_its_block() -> None:
    class Inner:
        def start_tls(self, context: object, name: str | None, timeout: float | None) -> "Inner":
            assert timeout is not None and timeout <= 0.05
            return self

        def read(self, size: int, timeout: float | None) -> bytes:
            return b"x"

    deadline = Deadline(httpx.Client())
    with deadline.within(0.05):
        stream = _Stream(Inner(), deadline).start_tls(object(), "host", 9.0)
        assert stream.read(1) == b"x"
        time.sleep(0.06)
        with pytest.raises(TooLateError):
            stream.read(1)
    assert stream.read(1) == b"x"


def test_slow_headers_within_the_timeout_are_waited_for(server: FakeEndpoint) -> None:
    def slow(handler: Any) -> None:
        for piece in (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-", b"Length: "):
            handler.wfile.write(piece)
            time.sleep(0.1)
        content = json.dumps(answer("late")).encode()
        handler.wfile.write(b"%d\r\n\r\n%s" % (len(content), content))

    server.faults = [slow]
    policy = endpoint(server, timeout=5.0, retries=0)
    assert ask(policy, "x") + ask(policy, "y") == ["late", "hm"]


@pytest.mark.parametrize(("name", "reply"), [("kitchen", "stay"), ("tag", "stay"), ("hanabi", "discard 1")])
def test_a_seat_that_answers_late_plays_the_same_game_and_one_that_answers_too_late_is_a_reason(
    server: FakeEndpoint, name: str, reply: str
) -> None:
    task = load_task(name)
    problem = task.problems("test", count=1)[0]

    def game(policy: Policy) -> Episode:
        [episode] = play(task, [EpisodeSpec(problem, Match("m", dict.fromkeys(task.seats, policy)))], {}, seed=0)
        return episode

    prompt = game(Scripted("says", Says(reply)))
    server.rule, server.seconds = lambda body: reply, 0.01
    late = game(endpoint(server, timeout=5.0, retries=0))
    assert [(turn.seat, turn.reply.text, turn.view) for turn in late.turns] == [
        (turn.seat, turn.reply.text, turn.view) for turn in prompt.turns
    ]
    assert late.rewards == prompt.rewards and late.outcome == prompt.outcome
    server.faults = [hang(5.0)]
    with pytest.raises(UnavailableError, match=r"broke off|took more than"):
        game(endpoint(server, timeout=0.2, retries=0))


def test_a_server_that_is_not_there_is_a_reason() -> None:
    policy = Endpoint("hosted", "m", ChatClient("http://127.0.0.1:9/v1", retries=1))
    with pytest.raises(UnavailableError, match=r"no connection to http://127.0.0.1:9/v1.*\(2 attempts\)"):
        ask(policy, "x")


def test_of_forty_megabytes_only_the_first_is_read(server: FakeEndpoint) -> None:
    server.faults = [says(200, TEN_MEGABYTES * 4)]
    with pytest.raises(UnavailableError):
        ask(endpoint(server, retries=0), "x")
    time.sleep(0.2)
    assert server.sent < 30_000_000  # the rest is what the system keeps for a slow reader


@pytest.mark.parametrize(
    ("asked", "served", "option", "same"),
    [
        ("m", "m-2026-01-01", None, True),
        ("meta/llama", "llama", None, True),
        ("Llama", "meta/llama", None, True),
        ("m", "other", "other", True),
        ("m", "m", "other", False),
        ("llama", "qwen", None, False),
    ],
)
def test_a_models_other_names_are_told_from_other_models(
    server: FakeEndpoint, asked: str, served: str, option: str | None, same: bool
) -> None:
    server.model = served
    policy = Endpoint("hosted", asked, ChatClient(server.url, served_as=option))
    if same:
        assert ask(policy, "x") == ["hm"]
    else:
        with pytest.raises(UnavailableError, match=f"answered as the model '{served}'"):
            ask(policy, "x")


def test_no_content_is_an_empty_reply_and_a_long_one_is_cut(
    server: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_client, "LONGEST_REPLY", 5)
    server.faults = [says(200, answer(None)), says(200, answer("0123456789"))]
    assert ask(endpoint(server), "x") + ask(endpoint(server), "x") == ["", "01234"]


def test_a_key_is_in_no_error_no_reply_no_cache_and_no_log(
    server: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MADE_UP_KEY", TOKEN)
    server.rule = lambda body: f"you sent Bearer {TOKEN}"
    policy = endpoint(server, key_env="MADE_UP_KEY", cache=tmp_path / "cache.jsonl")
    assert ask(policy, "x") == ["you sent Bearer [key]"]
    server.key = "another"  # it answers with the wrong one
    with pytest.raises(UnavailableError) as refused:
        ask(policy, "y")
    assert "401" in str(refused.value) and "MADE_UP_KEY" in str(refused.value)
    seen = [repr(policy), repr(policy.client), (tmp_path / "cache.jsonl").read_text(), caplog.text]
    assert TOKEN not in "".join([*seen, str(refused.value), repr(refused.value.__cause__)])


@pytest.mark.parametrize(("value", "message"), [("", "is not set"), ("two words here", "no key has")])
def test_a_key_that_is_missing_or_is_none_is_a_reason(
    server: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("MADE_UP_KEY", value)
    with pytest.raises(UnavailableError, match=f"MADE_UP_KEY.*{message}") as error:
        ask(endpoint(server, key_env="MADE_UP_KEY"), "x")
    assert server.asked == [] and "words" not in str(error.value)
