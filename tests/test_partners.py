"""Partners of every kind: endpoints that fail, recorded and perturbed replies, and partners that cannot be had."""

import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, answer, drip, hang, says
from support import Says, Toy, make_engine, make_run, qwen2_folder

from eval.crossplay import report
from eval.results import merge, read_results
from llm_sra import evaluate
from llm_sra.evaluation import DevEvaluation, Studio
from llm_sra.loading import load_partner
from llm_sra.play import Table, play
from llm_sra.policies import (
    ChatClient,
    Endpoint,
    EnginePolicy,
    Match,
    Perturbed,
    Policy,
    PolicyError,
    Recorded,
    Scripted,
    UnavailableError,
    chat_client,
    decoded,
)
from llm_sra.policies.limits import RateLimit, TokenBudget
from llm_sra.policies.perturbed import CHANGES, number
from llm_sra.policies.reply_cache import ReplyCache
from llm_sra.rosters import Entry, RosterError, read_roster
from llm_sra.runs import Run
from llm_sra.task import Message, Problem, Sampling, Task
from tasks.gsm8k import GSM8K
from tasks.gsm8k.answers import final_answer
from tasks.gsm8k.data import Source
from tasks.gsm8k.partners import PARTNERS, RightForWrongReasons

APPLE, PEAR = (Problem(word, {"word": word}) for word in ("apple", "pear"))
HELLO = (Message("user", "hello"),)
GREEDY, SAMPLED = Sampling(0.0), Sampling(1.0)
TOKEN = "-".join(("made", "up", "for", "this", "test"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, a second attempt is made after half a second."""
    monkeypatch.setattr(chat_client, "FIRST_PAUSE", 0.01)


@pytest.fixture
def server() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as fake:
        yield fake


def endpoint(server: FakeEndpoint, name: str = "hosted", **options: Any) -> Endpoint:
    return Endpoint(name, "m", ChatClient(server.url, **{"timeout": 5.0, "retries": 2, **options}), max_tokens=6)


def ask(policy: Endpoint, *texts: str, seed: int = 0) -> list[str]:
    return policy.replies([((Message("user", text),), random.Random(f"{seed} {text}")) for text in texts])


def play_toy(left: Policy, right: Policy, task: Task | None = None, seed: int = 0, **options: Any) -> list[list[str]]:
    """What is said with two words, by episode."""
    match = Match("m", {"left": left, "right": right})
    tables = [Table(problem, match) for problem in (APPLE, PEAR)]
    episodes = play(task or Toy(turns=4), tables, options.pop("engines", {}), seed=seed, **options)
    return [[turn.reply.text for turn in episode.turns] for episode in episodes]


# -- endpoints: what is asked for ------------------------------------------------------------------------------------


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
    policy = Endpoint("hosted", "m", ChatClient(server.url), warmth=0.7)
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
    client_ask = policy.client.ask
    policy.client.ask = lambda questions: (calls.append(len(questions)), client_ask(questions))[1]  # type: ignore
    said = play_toy(policy.decoded(SAMPLED), policy.decoded(SAMPLED), Toy(turns=4, together=True))
    assert calls == [4, 4] and 1 < server.most <= 4
    assert said[0] == ["re: word: apple", "re: word: apple", "re: re: word: apple", "re: go on"]


def test_an_endpoint_and_an_engine_play_together(server: FakeEndpoint) -> None:
    engine = make_engine(qwen2_folder())
    match = Match("m", {"left": EnginePolicy("agent", adapter="left"), "right": endpoint(server)})
    [episode] = play(Toy(turns=4), [Table(APPLE, match)], {"main": engine}, seed=0)
    assert [turn.policy for turn in episode.turns] == ["agent", "hosted"] * 2
    assert [turn.reply.text for turn in episode.turns][1::2] == ["hm", "hm"]
    assert [bool(turn.reply.token_ids) for turn in episode.turns] == [True, False] * 2
    assert server.asked[1]["messages"] == [message.as_dict() for message in episode.turns[3].view]
    assert "hm" in engine.renderer.decode(episode.turns[2].prompt_ids)


# -- endpoints: faults -----------------------------------------------------------------------------------------------

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


# -- endpoints: limits and cache -------------------------------------------------------------------------------------


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
    server.faults = [says(429), says(200, CUT_OFF)]  # of which the second may have been generated
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
    assert json.loads(path.read_text("latin-1").split("\n")[0]) == {
        "key": "a",
        "text": "one \ud800 \u2028",
        "tokens": 3,
    }


def test_replies_that_cannot_be_kept_are_a_reason(server: FakeEndpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot keep its replies"):
        ask(endpoint(server, cache=tmp_path / "file" / "cache.jsonl"), "x")


# -- recorded --------------------------------------------------------------------------------------------------------


def recording(folder: Path, *rows: object) -> Path:
    path = folder / "replies.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return path


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
        tables = [Table(problem, Match(model, dict.fromkeys(task.seats, policy))) for problem in problems]
        marked = {row["question"]: row[model]["is_correct"] for row in rows}
        episodes = play(task, tables, {}, seed=0)
        assert [e.outcome.solved for e in episodes] == [marked[problem.data["question"]] for problem in problems]
        assert len({turn.reply.text for turn in episodes[0].turns}) == 1


# -- perturbed -------------------------------------------------------------------------------------------------------

SOLUTION = "He has 3 boxes. Each holds 14.\n3 * 14 = 42\n#### 42"


def changed(how: str, text: str, view: Sequence[Message] = HELLO) -> set[str]:
    return {CHANGES[how](text, view, random.Random(seed)) for seed in range(200)}


def test_a_reply_is_dropped() -> None:
    assert changed("drop", SOLUTION) == {""}


def test_a_reply_is_cut_anywhere_but_at_its_end() -> None:
    assert changed("cut", "abc") == {"", "a", "ab"}
    assert changed("cut", "") == {""}


def test_the_final_number_becomes_another_of_its_form() -> None:
    twisted = changed("number", SOLUTION)
    assert {text[:-2] for text in twisted} == {SOLUTION[:-2]}
    assert {text[-2:] for text in twisted} == {f"{tens}2" for tens in "1235 6789".replace(" ", "")} | {
        f"4{ones}" for ones in "013456789"
    }
    assert changed("number", "none here") == {"none here"}
    assert changed("number", "0") == set("123456789")
    prices = changed("number", "$1,234.50.")
    assert all(float(text[1:-1].replace(",", "")) != 1234.5 and text[2] == "," for text in prices) and len(prices) > 30
    assert number("9" * 100_000, HELLO, random.Random(0)) != "9" * 100_000


def test_a_reply_is_the_one_before_where_there_is_one() -> None:
    view = (Message("user", "q"), Message("assistant", "one"), Message("user", "p"), Message("assistant", "two"))
    assert changed("repeat", "three", view) == {"two"}
    assert changed("repeat", "three") == {"three"}


def test_sentences_and_lines_come_in_another_order_and_nothing_is_lost() -> None:
    shuffled = changed("shuffle", SOLUTION)
    assert SOLUTION not in shuffled and len(shuffled) == 23  # 4! orders less its own
    for piece in ("He has 3 boxes.", "Each holds 14.", "3 * 14 = 42", "#### 42"):
        assert all(piece in text and len(text) == len(SOLUTION) for text in shuffled)
    assert changed("shuffle", "one. two") == {"two one."}
    assert changed("shuffle", "same\nsame") == {"same\nsame"}
    assert changed("shuffle", "a.\n") == {"a.\n"}


@pytest.mark.parametrize("how", CHANGES)
def test_a_change_of_any_text_is_quick_and_never_fails(how: str) -> None:
    start = time.monotonic()
    for text in ("", " ", "\n", "1", "." * 50_000, " " * 50_000, "1," * 25_000, "a.\n" * 10_000, ". " * 20_000):
        CHANGES[how](text, HELLO, random.Random(0))
    assert time.monotonic() - start < 5


def test_each_turn_has_a_coin_and_the_seed_decides() -> None:
    inner = Scripted("says", Says("word"))

    def dropped(probability: float, seed: int = 0) -> list[bool]:
        return [
            Perturbed("p", inner, "drop", probability, seed).perturb("x", HELLO, turn) == "" for turn in range(2000)
        ]

    assert 0.27 < sum(dropped(0.3)) / 2000 < 0.33
    assert dropped(0.3) == dropped(0.3) != dropped(0.3, seed=1)
    assert not any(dropped(0.0)) and all(dropped(1.0))


def test_a_perturbed_text_partner_plays_what_is_left_of_its_replies() -> None:
    says_it, quiet = Scripted("says", Says("it is 5")), Scripted("quiet", Says(""))
    assert play_toy(Perturbed("p", says_it, "drop"), quiet) == [["", "", "", ""]] * 2
    [said, _] = play_toy(Perturbed("p", says_it, "number"), quiet)
    assert said[0][:-1] == "it is " and said[0] != "it is 5" and said[2] != "it is 5"


def test_perturbations_are_laid_over_one_another() -> None:
    words = Scripted("says", Says("one. two 7"))
    both = Perturbed("both", Perturbed("inner", words, "shuffle"), "number")
    said = {text for texts in play_toy(both, Scripted("quiet", Says(""))) for text in texts[::2]}
    assert all(text.startswith("two ") and text.endswith(" one.") and "7" not in text for text in said)


def test_a_perturbed_engine_partner_is_no_sample_where_it_was_changed() -> None:
    engine = make_engine(qwen2_folder())
    agent = EnginePolicy("agent", adapter="left")
    task = Toy(turns=12)

    def episode(policy: Policy) -> Any:
        match = Match("m", {"left": policy, "right": Scripted("quiet", Says("hm"))})
        return play(task, [Table(APPLE, match)], {"main": engine}, seed=0)[0]

    plain, odd = episode(agent), episode(Perturbed("odd", agent, "drop", 0.5, seed=3))
    mine = odd.turns_of("left")
    assert {turn.policy for turn in mine} == {"odd"} and all(turn.prompt_ids for turn in mine)
    dropped = [turn.reply.text == "" for turn in mine]
    assert True in dropped and False in dropped
    assert [turn.reply.token_ids == turn.reply.logprobs == () for turn in mine] == dropped
    first = dropped.index(True)
    assert [t.reply for t in mine[:first]] == [t.reply for t in plain.turns_of("left")[:first]]  # a sample is kept
    assert all(len(turn.reply.token_ids) == len(turn.reply.logprobs) for turn in mine)


def test_a_repeated_reply_of_an_engine_partner_is_its_own() -> None:
    engine = make_engine(qwen2_folder())
    stuck = Perturbed("stuck", EnginePolicy("agent", adapter="left"), "repeat")
    said = play_toy(stuck, Scripted("quiet", Says("hm")), Toy(turns=6), engines={"main": engine})
    assert [len(set(texts[::2])) for texts in said] == [1, 1]
    assert said[0][0]


def test_the_temperature_is_raised_at_some_turns() -> None:
    class Engine:
        def __init__(self) -> None:
            self.inner = make_engine(qwen2_folder())
            self.renderer, self.context_length = self.inner.renderer, self.inner.context_length
            self.temperatures: list[float] = []

        def generate(self, requests: Any) -> Any:
            self.temperatures += [request.sampling.temperature for request in requests]
            return self.inner.generate(requests)

    engine = Engine()
    hot = Perturbed("hot", EnginePolicy("agent", adapter="left"), "temperature", 0.5, seed=1, temperature=1.5)
    play_toy(decoded(hot, GREEDY), Scripted("q", Says("hm")), Toy(turns=20), engines={"main": engine})
    assert set(engine.temperatures) == {0.0, 1.5} and len(engine.temperatures) == 20


def test_the_temperature_of_an_endpoint_is_raised_too_in_few_batches(server: FakeEndpoint) -> None:
    hot = Perturbed("hot", endpoint(server), "temperature", 0.5, temperature=1.5)
    play_toy(decoded(hot, SAMPLED), Scripted("q", Says("hm")), Toy(turns=20))
    assert {body["temperature"] for body in server.asked} == {1.0, 1.5}
    play_toy(decoded(Perturbed("dropped", hot, "drop"), GREEDY), Scripted("q", Says("hm")), seed=1)
    assert {body["temperature"] for body in server.asked} == {0.0, 1.0, 1.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "temperature", "temperature": 2.0}, r"'says' \(Scripted\) draws no tokens"),
        ({"how": "temperature"}, "`temperature` goes with how: temperature"),
        ({"how": "drop", "temperature": 2.0}, "`temperature` goes with how: temperature"),
        ({"how": "forget"}, "how must be one of drop, cut, number, repeat, shuffle, say, temperature"),
        ({"how": "drop", "probability": 1.5}, r"probability must lie in \[0, 1\]"),
    ],
)
def test_a_perturbation_that_there_is_not_is_refused(options: Any, message: str) -> None:
    inner = Scripted("says", Says("word"))
    for policy in (inner, Perturbed("inner", inner, "drop")):
        if "draws no" not in message or policy is inner:
            with pytest.raises(PolicyError, match=message):
                Perturbed("p", policy, **options)
    with pytest.raises(PolicyError, match="draws no tokens"):
        Perturbed("p", Perturbed("inner", inner, "drop"), "temperature", temperature=2.0)


# -- a lost partner --------------------------------------------------------------------------------------------------


def test_play_goes_on_without_a_partner_that_is_lost(server: FakeEndpoint) -> None:
    lasting, quiet = Scripted("lasting", Says("hm")), Scripted("quiet", Says(""))
    server.faults = [says(200, answer("fine"))] * 2 + [says(400)] * 9  # its second turns fail
    hosted = endpoint(server)
    lost: list[tuple[Policy, str]] = []
    matches = [
        Match("one", {"left": quiet, "right": lasting}),
        Match("two", {"left": quiet, "right": Perturbed("p", hosted, "cut")}),
        Match("three", {"left": lasting, "right": quiet}),
        Match("four", {"left": quiet, "right": hosted}),
    ]
    tables = [Table(problem, match) for match in matches for problem in (APPLE, PEAR)]
    episodes = play(Toy(turns=4), tables, {}, seed=0, on_lost=lambda policy, error: lost.append((policy, str(error))))
    assert [(e.match, e.problem.id) for e in episodes] == [
        (name, word) for name in ("one", "three") for word in ("apple", "pear")
    ]
    assert [policy for policy, _ in lost] == [matches[1].seats["right"], hosted]
    assert all("400 from" in reason for _, reason in lost)
    with pytest.raises(UnavailableError, match="400 from"):
        play(Toy(turns=4), tables, {}, seed=0)


# -- rosters ---------------------------------------------------------------------------------------------------------


def roster(folder: Path, *partners: str) -> Path:
    path = folder / "roster.yaml"
    path.write_text("partners: [" + ", ".join(f"{{{partner}}}" for partner in partners) + "]")
    return path


ENDPOINT = "name: a, kind: endpoint, policy: m"
URL = "base_url: 'http://127.0.0.1:1/v1'"


def test_the_new_kinds_are_read(tmp_path: Path) -> None:
    path = roster(
        tmp_path,
        f"{ENDPOINT}, {URL}, key_env: A_KEY, cache: c/x.jsonl, token_budget: 10, temperature: 0.5, timeout: 3",
        "name: b, kind: recorded, policy: r.jsonl, field: x.y, key: q, rewrite: {a: b}",
        "name: c, kind: perturbed, how: cut, probability: 0.5, seed: 3, of: {kind: adapter, policy: x, base: ./y}",
        f"name: d, kind: perturbed, how: temperature, temperature: 2, of: {{{ENDPOINT}, {URL}}}",
    )
    options = {"base_url": "http://127.0.0.1:1/v1"}
    more = {"key_env": "A_KEY", "cache": f"{tmp_path}/c/x.jsonl", "token_budget": 10, "temperature": 0.5, "timeout": 3}
    inner = Entry("c", "adapter", f"{tmp_path}/x", {"base": f"{tmp_path}/y"})
    assert read_roster(path) == [
        Entry("a", "endpoint", "m", options | more),
        Entry("b", "recorded", f"{tmp_path}/r.jsonl", {"field": "x.y", "key": "q", "rewrite": {"a": "b"}}),
        Entry("c", "perturbed", "", {"how": "cut", "probability": 0.5, "seed": 3, "of": inner}),
        Entry(
            "d", "perturbed", "", {"how": "temperature", "temperature": 2, "of": Entry("a", "endpoint", "m", options)}
        ),
    ]


@pytest.mark.parametrize(
    ("partner", "message"),
    [
        (ENDPOINT, "kind endpoint needs base_url"),
        (f"{ENDPOINT}, {URL}, retires: 3", "unknown key 'retires'; did you mean 'retries'"),
        (f"{ENDPOINT}, {URL}, retries: -1", "`retries` must be a whole number of 0 or more, got -1"),
        (f"{ENDPOINT}, {URL}, retries: true", "`retries` must be a whole number"),
        (f"{ENDPOINT}, {URL}, concurrency: 0", "`concurrency` must be a whole number of 1 or more"),
        (f"{ENDPOINT}, {URL}, timeout: .nan", "`timeout` must be a number above 0"),
        (f"{ENDPOINT}, {URL}, timeout: .inf", "`timeout` must be a number above 0"),
        (f"{ENDPOINT}, {URL}, requests_per_minute: '60'", "`requests_per_minute` must be a number above 0, got '60'"),
        (f"{ENDPOINT}, {URL}, token_budget: 1.5", "`token_budget` must be a whole number of 1 or more"),
        (f"{ENDPOINT}, base_url: 'file:///etc/passwd'", "`base_url` must be http"),
        (f"{ENDPOINT}, base_url: 3", "`base_url` must be http"),
        ("name: a, kind: recorded, policy: x", "kind recorded needs field"),
        ("name: a, kind: recorded, policy: x, field: y, rewrite: {'(': b}", "`rewrite` must be a mapping of regular"),
        ("name: a, kind: recorded, policy: x, field: y, rewrite: {a: '\\2'}", "`rewrite` must be a mapping of regular"),
        ("name: a, kind: model, policy: x, trust_remote_code: 'no'", "`trust_remote_code` must be true or false"),
        ("name: a, kind: perturbed, how: drop", "kind perturbed needs of"),
        ("name: a, kind: perturbed, of: {kind: scripted, policy: x}", "kind perturbed needs how"),
        ("name: a, kind: perturbed, policy: x, of: {kind: scripted, policy: x}, how: drop", "unknown key 'policy'"),
        ("name: a, kind: perturbed, of: {kind: scripted, policy: x}, how: dorp", "`how` must be one of drop, cut"),
        ("name: a, kind: perturbed, of: {kind: scripted, policy: x}, how: drop, probability: 2", "`probability` must"),
        ("name: a, kind: perturbed, of: {kind: scripted}, how: drop", "each partner needs name, kind and policy"),
        ("name: a, kind: perturbed, of: {kind: script, policy: x}, how: drop", "unknown kind 'script'"),
        ("name: a, kind: perturbed, of: {kind: model, policy: x}, how: temperature", "`temperature` goes with `how"),
        (
            "name: a, kind: perturbed, of: {kind: model, policy: x}, how: temperature, temperature: 1",
            "`temperature` must be a number above 1",
        ),
        (
            "name: a, kind: perturbed, how: temperature, temperature: 2, "
            "of: {kind: perturbed, how: drop, of: {kind: recorded, policy: x, field: y}}",
            "a recorded partner has no temperature to raise",
        ),
    ],
)
def test_a_roster_that_gets_a_kind_wrong_is_explained(tmp_path: Path, partner: str, message: str) -> None:
    with pytest.raises(RosterError, match=f"{message}"):
        read_roster(roster(tmp_path, partner))


@pytest.mark.parametrize(
    "key",
    [
        "base_url: 'https://user:SECRET@host/v1'",  # pragma: allowlist secret
        f"{URL}, key_env: SECRET-KEY",
    ],
)
def test_a_secret_in_a_roster_is_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    with pytest.raises(RosterError, match="must be") as error:
        read_roster(roster(tmp_path, f"{ENDPOINT}, {key}"))
    assert "SECRET" not in str(error.value)


# -- evaluation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents on the worksheet that write nonsense."""
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", max_completion_length=4)


def results(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Who was played, and why others were not."""
    written = json.loads((folder / "results.json").read_text())
    missing = {item["partner"]: item["reason"] for item in written["missing"]}
    return {record["partner"] for record in written["records"]}, missing


def said_by(folder: Path, partner: str, decoding: str = "greedy") -> list[str]:
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    chosen = [line for line in lines if (line["partner"], line["decoding"]) == (partner, decoding)]
    return [text for line in chosen for who, text in line["said"] if who != line["seat"]]


def test_every_kind_is_played_and_those_that_cannot_be_had_are_missing_with_their_reasons(
    run: Run, server: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = run_problems(3)
    recording(tmp_path, *({"question": f"Q: {text}", "reply": "1+1=2"} for text in problems))
    (tmp_path / "few.jsonl").write_text(json.dumps({"question": f"Q: {problems[0]}", "reply": "1+1=2"}))
    hosted = f"kind: endpoint, policy: m, base_url: '{server.url}'"
    path = roster(
        tmp_path,
        f"name: hosted, {hosted}, cache: cache.jsonl",
        "name: recorded, kind: recorded, policy: replies.jsonl, field: reply",
        "name: perturbed, kind: perturbed, how: drop, of: {kind: scripted, policy: diligent}",
        f"name: hot, kind: perturbed, how: temperature, temperature: 2, of: {{kind: model, policy: {qwen2_folder()}}}",
        f"name: hot-hosted, kind: perturbed, how: temperature, temperature: 2, of: {{{hosted}}}",
        "name: gone, kind: recorded, policy: gone.jsonl, field: reply",
        "name: few, kind: recorded, policy: few.jsonl, field: reply",
        "name: down, kind: endpoint, policy: m, base_url: 'http://127.0.0.1:9/v1', retries: 0",
        "name: deaf, kind: perturbed, how: drop, of: {kind: model, policy: ./nowhere}",
        f"name: poor, {hosted}, token_budget: 200, concurrency: 1",
    )
    records = evaluate([run], path, tmp_path / "out", problems=3)
    played, missing = results(tmp_path / "out")
    assert played == {"self-play", "hosted", "recorded", "perturbed", "hot", "hot-hosted"}
    assert len(records) == 6 * 2 * 2 and all(record.n == 3 for record in records)
    reasons = {
        "gone": "cannot read the recorded replies",
        "few": "none of the 1 questions",
        "down": "no connection to",
        "deaf": "no model folder",
        "poor": "the budget of 200 tokens is spent",
    }
    assert set(missing) == set(reasons) and all(reasons[name] in missing[name] for name in reasons)
    assert {body["temperature"] for body in server.asked} == {0, 1, 2}
    assert {body["max_tokens"] for body in server.asked} == {4}  # as long as in training
    assert set(said_by(tmp_path / "out", "hosted")) == {"hm"}
    assert set(said_by(tmp_path / "out", "recorded")) == {"1+1=2"}
    assert set(said_by(tmp_path / "out", "perturbed")) == {""}

    report([run], tmp_path / "out")
    shown = " ".join(capsys.readouterr().out.split())
    table = (tmp_path / "out" / "table.md").read_text()
    assert "Not played: down: partner 'down': no connection to" in shown and "- Not played: poor:" in table
    read = read_results(tmp_path / "out")
    assert read.missing == missing == merge([read]).missing

    server.asked.clear()  # what was cached is not asked for again, and gives the same
    again = evaluate([run], roster(tmp_path, f"name: hosted, {hosted}, cache: cache.jsonl"), problems=3)
    assert server.asked == []
    assert [record for record in records if record.partner in ("self-play", "hosted")] == again


def run_problems(count: int) -> list[str]:
    from tasks.worksheet import Worksheet

    return ["+".join(map(str, p.data["numbers"])) for p in Worksheet().problems("test", count)]


def test_without_any_partner_there_is_still_self_play(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, "name: gone, kind: recorded, policy: gone.jsonl, field: reply")
    records = evaluate([run], path, tmp_path / "out", problems=2, decodings=["greedy"])
    assert {record.partner for record in records} == {"self-play"} and len(records) == 2
    assert set(results(tmp_path / "out")[1]) == {"gone"}


def test_during_training_a_missing_partner_is_an_error(tmp_path: Path) -> None:
    from tasks.worksheet import Worksheet

    engine = make_engine(qwen2_folder(), ["first", "second"])
    path = roster(tmp_path, "name: gone, kind: recorded, policy: gone.jsonl, field: reply")
    with pytest.raises(UnavailableError, match="cannot read"):
        DevEvaluation(Worksheet(), {"first": "first", "second": "second"}, engine, path, problems=1, seed=0)
    path = roster(tmp_path, "name: down, kind: endpoint, policy: m, base_url: 'http://127.0.0.1:9/v1', retries: 0")
    dev = DevEvaluation(Worksheet(), {"first": "first", "second": "second"}, engine, path, problems=1, seed=0)
    with pytest.raises(UnavailableError, match="no connection"):
        dev()


def test_the_studio_gives_endpoints_the_tasks_stop_and_limit(server: FakeEndpoint) -> None:
    entry = Entry("hosted", "endpoint", "m", {"base_url": server.url, "temperature": 0.5})
    longer = Entry("hosted", "endpoint", "m", {"base_url": server.url, "max_tokens": 99})
    with Studio(Toy(stop=("\n",), reply_tokens=6)) as studio:
        policy = studio.partner(entry)["left"]
        assert isinstance(policy, Endpoint)
        assert (policy.stop, policy.max_tokens, policy.warmth) == (("\n",), 6, 0.5)
        assert studio.partner(entry)["left"] is not policy
        assert studio.partner(longer)["right"].max_tokens == 99  # type: ignore[union-attr]


# -- scripted partners of GSM8K --------------------------------------------------------------------------------------

QUESTION = "Ada has 3 boxes with 14 pens each. How many pens does she have?"
PENS = Problem("pens", {"question": QUESTION, "answer": "42"})


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, GSM8K]:
    """Debate and relay on a data set of one problem."""
    for name, question in (("train", "Bo has 1 pen. How many?"), ("test", QUESTION)):
        row = {"question": question, "answer": f"3 * 14 = 42\n#### {42 if name == 'test' else 1}"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return {name: GSM8K(data_path=str(tmp_path), protocol=name) for name in ("debate", "relay")}


def dialogue(task: GSM8K, name: str, peer: str) -> list[str]:
    """What a scripted partner says to a peer that always says the same; the peer moves first."""
    match = Match("m", {"first": Scripted("peer", Says(peer)), "second": Scripted(name, load_partner(name, task))})
    [episode] = play(task, [Table(PENS, match)], {}, seed=0)
    return [turn.reply.text for turn in episode.turns_of("second")]


@pytest.mark.parametrize("peer", ["I think that it is 5.", "First line\n\nLast line, so 6", "", "Another solver wrote"])
@pytest.mark.parametrize("protocol", ["debate", "relay"])
def test_partners_of_gsm8k_do_what_their_names_say(tables: dict[str, GSM8K], protocol: str, peer: str) -> None:
    task = tables[protocol]
    heard = [peer] * 2 if protocol == "relay" else ["", peer, peer]  # at each turn of theirs
    assert dialogue(task, "silent", peer) == [""] * len(heard)
    assert dialogue(task, "copycat", peer) == heard
    for word, text in zip(heard, dialogue(task, "agreeable", peer), strict=True):
        assert "agree" in text and text.endswith(word.splitlines()[-1] if word else "agree with it.")
    for text in dialogue(task, "off_topic", peer):
        assert text and final_answer(text) is None


@pytest.mark.parametrize("protocol", ["debate", "relay"])
def test_the_agreeable_partner_gives_its_peers_answer_in_whatever_form(tables: dict[str, GSM8K], protocol: str) -> None:
    for peer in ("so\nA: 42", "so\n\\boxed{42}", "The answer is 42."):
        assert final_answer(dialogue(tables[protocol], "agreeable", peer)[-1]) == 42


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
