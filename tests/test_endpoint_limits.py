"""Limits of a client, its budget of tokens, and the cache of replies."""

import json
import zlib
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, answer, says
from partners_support import GREEDY, ask, endpoint

from llm_sra.policies import ChatClient, Endpoint, UnavailableError
from llm_sra.policies.limits import RateLimit, TokenBudget
from llm_sra.policies.reply_cache import ReplyCache
from llm_sra.task import Sampling

pytestmark = pytest.mark.usefixtures("quick")


def test_requests_are_spaced_evenly_retries_included(server: FakeEndpoint) -> None:
    server.faults = [says(500)]
    ask(endpoint(server, requests_per_minute=300, concurrency=4), "a", "b", "c")  # one in 0.2 s
    times = sorted(server.times)
    assert len(times) == 4 and times[-1] - times[0] > 0.5


def test_what_a_server_asks_to_wait_holds_all_requests(server: FakeEndpoint) -> None:
    server.faults = [says(429, Retry_After="0.4")]
    ask(endpoint(server, concurrency=1), "a", "b")
    assert server.times[1] - server.times[0] > 0.38


def test_a_rate_limit_waits_for_its_turn_and_no_longer() -> None:
    waits: list[float] = []
    limit = RateLimit(60, waits.append)
    for _ in range(3):
        limit.take()
    assert waits == pytest.approx([1.0, 2.0], abs=0.5)
    RateLimit(None, waits.append).take()
    assert len(waits) == 2


def test_a_budget_is_kept_to_and_the_reason_says_what_to_do(server: FakeEndpoint) -> None:
    policy = endpoint(server, token_budget=100, concurrency=1)  # a request may take some 40 tokens, and takes 10
    with pytest.raises(UnavailableError, match=r"budget of 100 tokens is spent: \d+ were used.*Raise token_budget"):
        ask(policy, *"abcdefghijklmnop")
    assert policy.client.spent == 10 * len(server.asked) and 3 <= len(server.asked) <= 9


def test_what_the_server_does_not_count_is_estimated_and_what_was_lost_counts(server: FakeEndpoint) -> None:
    server.usage = None
    policy = endpoint(server, concurrency=1)
    ask(policy, "x")
    counted = policy.client.spent
    assert 10 < counted < 100
    cut_off = b'{"model": "m", "choices": [{"message": {"content": "h'
    server.faults = [says(429), says(200, cut_off)]  # of which the second may have been generated
    ask(policy, "y")
    assert 2 * counted < policy.client.spent < 4 * counted


def test_a_budget_waits_for_requests_on_their_way_before_it_says_no() -> None:
    budget = TokenBudget(10)
    assert budget.reserve(6) and budget.reserve(4)
    budget.settle(6, 1)
    assert budget.reserve(5)
    budget.settle(4, 4)
    budget.settle(5, 5)
    assert budget.spent == 10 and not budget.reserve(1)
    assert TokenBudget(None).reserve(10**9)


def test_an_interrupted_evaluation_goes_on_without_asking_again(server: FakeEndpoint, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.jsonl"
    server.rule = lambda body: f"{body['messages'][0]['content']}!"
    server.faults = [lambda handler: handler.say(200, answer("a!")), says(400)]
    with pytest.raises(UnavailableError):
        ask(endpoint(server, cache=path, concurrency=1), "a", "b", "c")
    asked = len(server.asked)
    assert ask(endpoint(server, cache=path), "a", "b", "c") == ["a!", "b!", "c!"]
    assert [body["messages"][0]["content"] for body in server.asked[asked:]].count("a") == 0
    server.asked.clear()
    assert ask(endpoint(server, cache=path), "a", "b", "c") == ["a!", "b!", "c!"]
    assert server.asked == [] and len(path.read_text().splitlines()) == 3


def test_a_cached_reply_is_of_the_same_server_model_messages_sampling_seed_and_limit(
    server: FakeEndpoint, tmp_path: Path
) -> None:
    client = ChatClient(server.url, cache=tmp_path / "c.jsonl")
    first = Endpoint("one", "m", client, max_tokens=6, sampling=GREEDY)
    others = [
        Endpoint("one", "m2", client, max_tokens=6, sampling=GREEDY),
        Endpoint("one", "m", client, max_tokens=7, sampling=GREEDY),
        Endpoint("one", "m", client, max_tokens=6, stop=("x",), sampling=GREEDY),
        Endpoint("one", "m", client, max_tokens=6, sampling=Sampling(0.5)),
        Endpoint("one", "m", ChatClient(f"{server.url}/../v1", cache=tmp_path / "c.jsonl"), 6, sampling=GREEDY),
    ]
    ask(first, "x")
    for number_asked, policy in enumerate(others, 2):
        ask(policy, "x")
        assert len(server.asked) == number_asked
    ask(Endpoint("two", "m", client, max_tokens=6, sampling=GREEDY), "x")  # another name for the same partner
    assert len(server.asked) == 6


@pytest.mark.parametrize("torn", [b'{"key": "b", "te', b'{"key": "b", "text": "\xc3', b"\x00\x00", b"[" * 100_000])
def test_a_half_written_line_is_skipped_and_never_joined_to_the_next(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "cache.jsonl"
    ReplyCache(path).put("a", "one \ud800 \u2028", tokens=3)
    with path.open("ab") as file:
        file.write(torn)
    cache = ReplyCache(path)
    assert len(cache) == 1 and cache["a"] == "one \ud800 \u2028" and "b" not in cache
    cache.put("c", "three")
    again = ReplyCache(path)
    assert len(again) == 2 and again["c"] == "three"
    assert json.loads(path.read_bytes().split(b"\n")[0].decode("utf-8")) == {
        "key": "a",
        "text": "one \ud800 \u2028",
        "tokens": 3,
        "crc32": format(zlib.crc32(b'{"key": "a", "text": "one \\ud800 \xe2\x80\xa8", "tokens": 3'), "08x"),
    }


def test_replies_that_cannot_be_kept_are_a_reason(server: FakeEndpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot keep its replies"):
        ask(endpoint(server, cache=tmp_path / "file" / "cache.jsonl"), "x")
