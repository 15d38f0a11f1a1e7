"""A stop string ends a reply that has said something, and no thought: the rule, and every engine by it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import stub_vllm
import torch
from fake_vllm import FakeVllm, hang_up, length_in_vllm, status
from partners_support import Fixed
from support import make_bank, make_engine, qwen2, qwen2_folder, qwen2_tokenizer, save_model, session_folder

from llm_sra.engines import Completion, Request
from llm_sra.engines.drawing import SeededDraw
from llm_sra.engines.server import ServerEngine
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.engines.vllm import VllmEngine
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.task import Message, Problem, Sampling, stop_at
from tasks.worksheet import Worksheet

TOKENS = ["\n\n", ".\n", "\n7", "<think>", "</think>"]  # that hold line breaks beside others, and a thought's tags
THINKS = "<think>\na\nb\n</think>\n\n7"
LIMIT = 24
LINE, MARK = ("\n",), ("###",)


@pytest.mark.parametrize(
    ("text", "stop", "at"),
    [
        ("7\nrest", LINE, 1),
        ("7", LINE, None),
        ("\nrest", LINE, None),
        (" \n\n 3+2=5\nrest", LINE, 9),
        ("\n\n\n", LINE, None),
        ("", LINE, None),
        ("###rest", MARK, 0),  # it is no white text itself
        (" \n###rest", MARK, 2),
        (" \n###rest\n", (*LINE, *MARK), 2),
        ("\n### 7\n", ("\n###",), 0),
        ("a\n###", ("###", "\n#"), 1),
        (f"{THINKS}\nrest", LINE, len(THINKS)),
        ("<think>\na\n", LINE, None),
        ("<think>a###b</think>7###", MARK, 21),
        ("7<think>\na\n</think>\n", LINE, None),  # what stands before a thought is left out
        ("7\n<think>\na\n</think>\n", LINE, 1),
        ("<think>a</think>###", MARK, 16),
        ("<think>a</think>\n", LINE, None),
        ("a\n</think>\n\n7\n", LINE, 1),  # nobody told that it was a thought
        ("<think>", ("<think>",), 0),
    ],
)
def test_the_rule(text: str, stop: tuple[str, ...], at: int | None) -> None:
    assert stop_at(text, stop) == at


def test_what_the_prompt_began_is_part_of_the_thought_and_holds_no_stop_string() -> None:
    assert stop_at("a\n</think>\n7\nrest", LINE, "<think>\n") == 12
    assert stop_at("a\n", LINE, "<think>\n") is None
    assert stop_at("7", LINE, "<think>\na</think>so\n") is None


@cache
def folder(opens: bool) -> Path:
    """A model whose tokenizer has `TOKENS`; its template begins a thought, or does not."""
    tokenizer = qwen2_tokenizer()
    tokenizer.add_tokens(TOKENS)
    if opens:
        tokenizer.chat_template += "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
    return save_model(qwen2(tokenizer), tokenizer, session_folder() / f"stops-{opens}")


class Talker:
    """A model that says the same to everybody, and ends its turn.

    Args:
        renderer: How it is asked.
        text: What it says.
    """

    context_length = 256

    def __init__(self, renderer: Renderer, text: str) -> None:
        self.renderer = renderer
        end = renderer.tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.ids = [*renderer.tokenizer(text, add_special_tokens=False)["input_ids"], end]
        self.prompt = renderer.render([Message("user", "word")])

    def after(self, prompt: Sequence[int]) -> list[int]:
        """What it says after a prompt that holds some of it."""
        said = len(prompt) - len(self.prompt)
        assert list(prompt) == [*self.prompt, *self.ids[:said]]
        return self.ids[said:]

    def logprobs(self, prompt: Sequence[int], count: int) -> list[float]:
        """One for each place of the reply."""
        first = len(prompt) - len(self.prompt)
        return [-0.5 * place for place in range(first, first + count)]

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """All that it has to say."""
        replies = [(one, self.after(one.prompt_ids)[: one.max_tokens]) for one in requests]
        return [
            Completion(tuple(ids), tuple(self.logprobs(one.prompt_ids, len(ids))), "", "stop") for one, ids in replies
        ]

    def request(self, **changes: Any) -> Request:
        """What it is asked for."""
        return replace(Request(self.prompt, None, Sampling(), LIMIT, LINE, 5), **changes)


class TalkingLlm(stub_vllm.StubLlm):
    """Says in each step all that a talker says up to a stop string, as vLLM does."""

    talker: Talker

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: dict[str, tuple[Any, Any]] = {}

    def add_request(self, number: str, prompt: Any, params: Any, lora_request: Any) -> None:
        super().add_request(number, prompt, params, lora_request)
        self.asked[number] = prompt["prompt_token_ids"], params

    def step(self) -> list[Any]:
        number = self.open.pop()
        prompt, params = self.asked[number]
        ids = self.talker.after(prompt)[: params["max_tokens"]]
        ids = ids[: length_in_vllm(self.talker.renderer, ids, params["stop"])]
        logprobs = self.talker.logprobs(prompt, len(ids))
        steps = [{i: SimpleNamespace(logprob=each)} for i, each in zip(ids, logprobs, strict=True)]
        output = SimpleNamespace(token_ids=ids, logprobs=steps)
        return [SimpleNamespace(request_id=number, finished=True, outputs=[output])]


class Asked:
    """An engine on a talker, and what it asked vLLM for, if it is on that."""

    def __init__(self, engine: Any, talker: Talker, server: FakeVllm | None = None) -> None:
        self.engine, self.talker, self.server = engine, talker, server

    def say(self, text: str, **changes: Any) -> Completion:
        self.talker.ids = Talker(self.talker.renderer, text).ids
        [done] = self.engine.generate([self.talker.request(**changes)])
        assert done.logprobs == tuple(-0.5 * place for place in range(len(done.token_ids)))
        assert list(done.token_ids) == self.talker.ids[: len(done.token_ids)]
        return done

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What it was asked for."""
        return self.server.completions() if self.server else list(self.engine._llm.params)


KINDS = ("transformers", "vllm", "server")


def make(kind: str, opens: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Asked:
    bank = make_bank(folder(opens), ("left",))
    renderer = Renderer(load_model(str(folder(opens)))[1])
    talker = Talker(renderer, "")
    if kind == "transformers":
        monkeypatch.setattr(SeededDraw, "draw", drawn_by(talker))
        return Asked(TransformersEngine(bank, renderer), talker)
    if kind == "vllm":
        stub_vllm.put_in_place(monkeypatch, type("Llm", (TalkingLlm,), {"talker": talker}))
        return Asked(VllmEngine(bank, renderer), talker)
    fake = FakeVllm(folder(opens))
    request.addfinalizer(fake.stop)
    fake.engine = talker  # type: ignore[assignment]
    monkeypatch.setattr(ServerEngine, "_check_base", lambda *args: None)
    return Asked(ServerEngine(bank, renderer, [fake.url], timeout=20.0), talker, fake)


def drawn_by(talker: Talker) -> Any:
    """`SeededDraw.draw` of a model that is a talker."""

    def draw(self: Any, input_ids: torch.Tensor, scores: torch.Tensor, rows: Any = None) -> torch.Tensor:
        ids = input_ids if rows is None else input_ids[list(rows)]
        said = ids.size(1) - len(talker.prompt)
        token = talker.ids[min(said, len(talker.ids) - 1)]
        self.logprobs.append(torch.full((len(ids),), -0.5 * said))
        return torch.full((len(ids), 1), token)

    return draw


@pytest.fixture(params=KINDS)
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return make(request.param, False, monkeypatch, request)


@pytest.fixture(params=KINDS)
def opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return make(request.param, True, monkeypatch, request)


CASES: dict[
    str, tuple[str, tuple[str, ...], str, int]
] = {  # what is said; stop strings; the reply; parts of it in vLLM
    "a usual reply": ("3+2=5\nrest", LINE, "3+2=5", 1),
    "no stop string": ("3+2=5", LINE, "3+2=5", 1),
    "a line break first": ("\n3\n", LINE, "\n3", 2),
    "a line break first, and the turn's end": ("\n3", LINE, "\n3", 2),
    "white lines first": (" \n\n 3+2=5\nrest", LINE, " \n\n 3+2=5", 2),
    "two white lines first": ("\n \n3\nrest", LINE, "\n \n3", 3),
    "a token of two line breaks": ("3\n\nrest", LINE, "3", 1),
    "a token of text and a line break": ("so.\nrest", LINE, "so.", 1),
    "a token of a line break and text": ("\n7\nrest", LINE, "\n7", 2),
    "a token of a line break and text that is left out": ("x\n7rest", LINE, "x", 1),
    "characters of several tokens": ("\n\u00e9\u65e5\nrest", LINE, "\n\u00e9\u65e5", 2),
    "a thought": (f"{THINKS}\nrest", LINE, THINKS, 4),
    "a mark": ("3###rest", MARK, "3", 1),
    "a mark first": ("###rest", MARK, "", 1),
    "a mark in a thought": ("<think>a###b</think>7###rest", MARK, "<think>a###b</think>7", 3),
    "nothing": ("", LINE, "", 1),
    "white lines alone": ("\n\n \n", LINE, "\n\n \n", 3),
    "a thought alone": ("<think>\na\nb", LINE, "<think>\na\nb", 2),
}


@pytest.mark.parametrize("case", CASES)
def test_every_engine_ends_replies_by_the_rule(asked: Asked, case: str) -> None:
    said, stop, text, parts = CASES[case]
    done = asked.say(said, stop=stop)
    whole = asked.talker.renderer.decode(done.token_ids)
    assert (done.text, done.finish) == (text, "stop")
    ended = done.token_ids[-1] == asked.talker.ids[-1]
    shorter = asked.talker.renderer.decode(done.token_ids[:-1])  # the last token is the one that ends it
    assert whole == text if ended else whole.startswith(text) and stop_at(whole, stop) == len(text)
    assert ended or stop_at(shorter, stop) is None
    if not isinstance(asked.engine, TransformersEngine):
        assert len(asked.parts) == parts


def test_white_lines_up_to_the_limit_are_a_reply_that_was_cut(asked: Asked) -> None:
    done = asked.say("\n " * LIMIT, max_tokens=6)
    assert (done.text, done.finish, len(done.token_ids)) == ("\n \n \n ", "length", 6)


def test_a_thought_up_to_the_limit_is_a_reply_that_was_cut(asked: Asked) -> None:
    done = asked.say("<think>\n1\n2\n3\n4\n5\n6", max_tokens=6)
    assert (done.text, done.finish, len(done.token_ids)) == ("<think>\n1\n2\n", "length", 6)


def test_a_thought_that_the_prompt_began_is_not_cut(opening: Asked) -> None:
    done = opening.say("a\nb\n</think>\n\n7\nrest")
    assert (done.text, done.finish) == (f"{THINKS}", "stop")
    cut = opening.say("a\nb\nc", max_tokens=3)
    assert (cut.text, cut.finish) == ("<think>\na\nb", "length")


@pytest.fixture(params=KINDS[1:])
def in_parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """An engine on vLLM."""
    return make(request.param, False, monkeypatch, request)


LINES = "".join(f"{number}\n" for number in range(20))


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize(("opens", "parts"), [(False, 4), (True, 3)])
def test_lines_of_a_thought_are_no_parts_of_their_own(
    kind: str, opens: bool, parts: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    asked = make(kind, opens, monkeypatch, request)
    begun = "" if opens else "<think>\n"
    done = asked.say(f"{begun}{LINES}</think>\n\n7\nrest", max_tokens=99)
    assert done.text == f"<think>\n{LINES}</think>\n\n7"
    # Up to the first line break, if it began the thought; to the thought's end; the white lines; the answer.
    assert [part["stop"] for part in asked.parts] == [["\n"], ["</think>"], ["\n"], ["\n"]][-parts:]


def test_parts_share_a_limit_and_each_has_a_seed_of_its_own(in_parts: Asked) -> None:
    in_parts.say("\n \n3\nrest", max_tokens=7)
    assert [part["max_tokens"] for part in in_parts.parts] == [7, 6, 4]
    seeds = [part["seed"] for part in in_parts.parts]
    assert seeds[0] == 5 and len(set(seeds)) == 3 and all(0 <= seed < 2**63 for seed in seeds)
    in_parts.say("\n \n3\nrest", max_tokens=7)
    assert [part["seed"] for part in in_parts.parts[3:]] == seeds
    in_parts.engine._seeded = False
    in_parts.say("\n3\nrest")
    assert not any("seed" in part for part in in_parts.parts[6:])


def test_white_lines_take_a_request_each(in_parts: Asked) -> None:
    in_parts.say("\n" + " \n" * 9 + "7\nrest", max_tokens=99)
    assert len(in_parts.parts) == 11


@pytest.mark.parametrize("fault", [status(503), hang_up])
def test_a_part_that_fails_is_asked_again_and_what_was_said_stays(
    fault: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    asked = make("server", False, monkeypatch, request)
    assert asked.server is not None
    asked.server.faults = [lambda handler: handler.say(*handler._do(asked.server.completions()[-1])), fault, fault]
    assert asked.say("\n3\nrest").text == "\n3"
    assert [len(part["prompt"]) - len(asked.talker.prompt) for part in asked.parts] == [0, 1, 1, 1]


def test_a_part_that_vllm_refuses_is_the_fault_of_its_reply_alone(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    asked = make("vllm", False, monkeypatch, request)
    asked.talker.ids = Talker(asked.talker.renderer, "\n3\nrest").ids
    first, second = asked.engine.submit([asked.talker.request(), asked.talker.request(stop=())])
    add = asked.engine._llm.llm_engine.add_request
    monkeypatch.setattr(asked.engine._llm.llm_engine, "add_request", lambda *args, **options: 1 / 0)
    asked.engine.step()
    assert second.result(0).text == "\n3\nrest"
    asked.engine.step()
    assert isinstance(first.exception(0), ZeroDivisionError) and not asked.engine.step()
    monkeypatch.setattr(asked.engine._llm.llm_engine, "add_request", add)
    assert asked.say("\n3\nrest").text == "\n3"


def test_a_reply_that_nobody_wants_any_more_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    asked = make("vllm", False, monkeypatch, request)
    asked.talker.ids = Talker(asked.talker.renderer, "\n3\nrest").ids
    [future] = asked.engine.submit([asked.talker.request()])
    assert asked.engine.step() and not future.done()
    future.cancel()
    assert not asked.engine.step() and asked.engine._llm.calls[-1] == ("abort", "2") and len(asked.parts) == 2


def test_a_server_is_asked_for_what_transformers_generates() -> None:
    fake = FakeVllm(qwen2_folder())
    try:
        bank = make_bank(qwen2_folder())
        there = ServerEngine(bank, Renderer(load_model(str(qwen2_folder()))[1]), [fake.url], timeout=20.0)
        here = TransformersEngine(bank, there.renderer)
        stop = tuple("abcdefghijklmnopqrstuvwxyz\n ")  # most tokens of a random model are none of these
        prompts = [there.renderer.render([Message("user", f"word {number}")]) for number in range(60)]
        requests = [Request(prompt, "left", Sampling(0.0), 8, stop, 0) for prompt in prompts]
        fake.asked.clear()
        expected = here.generate(requests)
        for one, other in zip(there.generate(requests), expected, strict=True):
            assert (one.token_ids, one.text, one.finish) == (other.token_ids, other.text, other.finish)
    finally:
        fake.stop()


def test_in_a_batch_whose_rows_leave_each_row_has_the_opening_of_its_own_prompt() -> None:
    tokenizer = qwen2_tokenizer()
    tokenizer.add_tokens(TOKENS)
    asks = "{% if add_generation_prompt and 'quiet' not in messages[-1].content %}{{ '<think>\n' }}{% endif %}"
    tokenizer.chat_template += asks
    engine = make_engine(save_model(qwen2(tokenizer), tokenizer, session_folder() / "stops-mixed"))
    stop = tuple("aeiou123")
    prompts = [engine.renderer.render([Message("user", text)]) for text in ("word", "quiet", "apple pear " * 9)]
    requests = [Request(prompts[seed % 3], "left", Sampling(), 12, (), seed) for seed in range(120)]
    free = engine.generate(requests)
    stopped = engine.generate([replace(request, stop=stop) for request in requests])
    counts = {True: 0, False: 0}
    for request, whole, reply in zip(requests, free, stopped, strict=True):
        opening = engine.renderer.opening(request.prompt_ids)
        assert bool(opening) == (request.prompt_ids != prompts[1])
        said = engine.renderer.decode(whole.token_ids)
        at = stop_at(said, stop, opening)
        counts[bool(opening)] += at is not None
        assert reply.text == opening + said[:at]
        assert reply.token_ids == whole.token_ids[: len(reply.token_ids)]
        if at is None:
            assert reply == whole
    assert counts[False] > 20 > counts[True]


@pytest.mark.parametrize("said", ["\n \n3+2=5\nrest", "<think>\n3+2 is 5\n</think>\n\n3+2=5\nrest", "3+2=5\nrest"])
def test_a_task_gets_the_line_and_training_every_token_up_to_the_stop_string(said: str) -> None:
    renderer = Renderer(load_model(str(folder(False)))[1])
    task = Worksheet(strict=False, explain=True)
    policies = {seat: EnginePolicy(seat) for seat in task.seats}
    problem = Problem("3-2-4", {"numbers": [3, 2, 4]})
    engine = Fixed(renderer, said)
    [episode] = play(task, [EpisodeSpec(problem, Match("m", policies))], {"main": engine}, seed=0)  # type: ignore[dict-item]
    first, second = episode.turns[:2]
    assert (first.reply.text, first.reply.finish) == (said.removesuffix("\nrest"), "stop")
    assert renderer.decode(first.reply.token_ids) == said.removesuffix("rest")
    assert len(first.reply.logprobs) == len(first.reply.token_ids)
    assert "3+2=5" in second.view[-1].content and "think" not in second.view[-1].content
    assert episode.outcome.metrics["right_lines/first"] >= 1
