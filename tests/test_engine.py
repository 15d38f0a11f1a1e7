"""The transformers engine: the right adapter, honest log-probabilities, replies that depend on their seed alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from support import llama_folder, make_bank, make_engine, qwen2_folder
from transformers import StopStringCriteria

from llm_sra.engines import Completion, Request
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.adapters import AdapterError
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.task import Message, Sampling

ADAPTERS = (None, "left", "right")
GREEDY = Sampling(temperature=0.0)


@cache
def engine_of(folder: Path) -> TransformersEngine:
    return make_engine(folder)


@pytest.fixture
def engine() -> TransformersEngine:
    return engine_of(qwen2_folder())


def prompts(engine: TransformersEngine) -> list[tuple[int, ...]]:
    """Prompts of three lengths."""
    return [engine.renderer.render([Message("user", text)]) for text in ("hm", "word: apple", "1+2=3 " * 5)]


def ask(
    engine: TransformersEngine,
    seed: int = 0,
    *,
    prompt: tuple[int, ...] | None = None,
    adapter: str | None = "left",
    sampling: Sampling = Sampling(),
    max_tokens: int = 8,
    stop: tuple[str, ...] = (),
) -> Request:
    return Request(prompt or prompts(engine)[1], adapter, sampling, max_tokens, stop, seed)


@torch.no_grad()
def logits(engine: TransformersEngine, request: Request, ids: Sequence[int]) -> torch.Tensor:
    """(T, V) logits of a reply, by one forward pass over prompt and reply."""
    with engine.bank.using(request.adapter):
        out = engine.bank.model(input_ids=torch.tensor([[*request.prompt_ids, *ids]])).logits
    return out[0, len(request.prompt_ids) - 1 : -1].float()


def logprobs(engine: TransformersEngine, request: Request, ids: Sequence[int], temperature: float = 1) -> torch.Tensor:
    """(T,) log-probabilities of a reply, by one forward pass."""
    scaled = (logits(engine, request, ids) / temperature).log_softmax(dim=-1)
    return scaled.gather(1, torch.tensor(ids)[:, None]).squeeze(1)


@contextmanager
def ends(engine: TransformersEngine, ids: Sequence[int]) -> Iterator[TransformersEngine]:
    """An engine on the same model, whose replies end with any of these tokens."""
    config = engine.bank.base.generation_config
    before, config.eos_token_id = config.eos_token_id, list(ids)
    try:
        yield TransformersEngine(engine.bank, engine.renderer)
    finally:
        config.eos_token_id = before


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_reply_is_by_the_adapter_that_was_asked_for_and_by_no_other(
    engine: TransformersEngine, adapter: str | None
) -> None:
    [reply] = engine.generate([ask(engine, adapter=adapter)])
    given = torch.tensor(reply.logprobs)
    for other in ADAPTERS:
        distance = (logprobs(engine, ask(engine, adapter=other), reply.token_ids) - given).abs().max()
        assert distance < 1e-4 if other == adapter else distance > 0.1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("folder", [qwen2_folder, llama_folder])
def test_log_probabilities_are_those_of_a_full_forward_pass(folder: type, temperature: float) -> None:
    engine = engine_of(folder())
    requests = [
        ask(engine, seed, prompt=prompt, adapter=adapter, sampling=Sampling(temperature))
        for seed, prompt in enumerate(prompts(engine))
        for adapter in ADAPTERS
    ]
    for request, reply in zip(requests, engine.generate(requests), strict=True):
        expected = logprobs(engine, request, reply.token_ids, temperature)
        assert len(reply.token_ids) == len(reply.logprobs) > 0
        torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=1e-4, rtol=0)


def test_the_models_own_penalties_and_suppressed_tokens_do_not_bend_the_distribution() -> None:
    engine = make_engine(qwen2_folder())
    plain = engine.generate([ask(engine, seed) for seed in range(4)])
    config = engine.bank.base.generation_config
    config.repetition_penalty, config.no_repeat_ngram_size = 3.0, 1
    config.suppress_tokens = list(range(0, 289, 2))
    assert engine.generate([ask(engine, seed) for seed in range(4)]) == plain
    assert engine.bank.base.generation_config is config


class TestBatches:
    """A reply is a function of its prompt, its adapter and its seed."""

    @staticmethod
    def requests(engine: TransformersEngine) -> list[Request]:
        return [
            ask(engine, seed, prompt=prompt, adapter=adapter, max_tokens=max_tokens)
            for prompt in prompts(engine)
            for adapter in ADAPTERS
            for seed, max_tokens in ((0, 8), (1, 8), (1, 5))
        ]

    @staticmethod
    def ids(completions: list[Completion]) -> list[tuple[int, ...]]:
        return [completion.token_ids for completion in completions]

    def test_order_and_company_do_not_matter(self, engine: TransformersEngine) -> None:
        requests = self.requests(engine)
        together = self.ids(engine.generate(requests))
        assert self.ids(engine.generate(requests[::-1])) == together[::-1]
        assert [self.ids(engine.generate([request]))[0] for request in requests[::4]] == together[::4]

    def test_the_batch_size_does_not_matter(self, engine: TransformersEngine) -> None:
        requests = self.requests(engine)
        small = TransformersEngine(engine.bank, engine.renderer, batch_size=2)
        assert self.ids(small.generate(requests)) == self.ids(engine.generate(requests))

    def test_other_seeds_give_other_replies(self, engine: TransformersEngine) -> None:
        assert len(set(self.ids(engine.generate([ask(engine, seed) for seed in range(20)])))) == 20

    def test_a_lower_limit_cuts_the_same_reply(self, engine: TransformersEngine) -> None:
        long, short = self.ids(engine.generate([ask(engine, max_tokens=8), ask(engine, max_tokens=5)]))
        assert short == long[:5]

    def test_the_global_generator_is_neither_asked_nor_moved(self, engine: TransformersEngine) -> None:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = engine.generate([ask(engine)])
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert engine.generate([ask(engine)]) == first

    def test_no_requests_are_no_replies(self, engine: TransformersEngine) -> None:
        assert engine.generate([]) == []


def first_tokens(engine: TransformersEngine, count: int, sampling: Sampling) -> torch.Tensor:
    replies = engine.generate([ask(engine, seed, sampling=sampling, max_tokens=1) for seed in range(count)])
    return torch.tensor([reply.token_ids[0] for reply in replies])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_as_often_as_they_are_likely(engine: TransformersEngine, temperature: float) -> None:
    count = 3000
    expected = (logits(engine, ask(engine), [0])[0] / temperature).softmax(dim=-1)
    seen = first_tokens(engine, count, Sampling(temperature)).bincount(minlength=len(expected)) / count
    deviations = (seen - expected).abs() / (expected * (1 - expected) / count).sqrt()
    likely = expected > 20 / count
    assert likely.sum() > 5 and deviations[likely].max() < 4.5
    assert (seen[likely].sum() - expected[likely].sum()).abs() < 0.03


def test_greedy_takes_the_most_likely_token_whatever_the_seed(engine: TransformersEngine) -> None:
    requests = [ask(engine, seed, sampling=GREEDY) for seed in (0, 1)]
    first, second = engine.generate(requests)
    assert first == second
    assert list(first.token_ids) == logits(engine, requests[0], first.token_ids).argmax(dim=-1).tolist()
    expected = logprobs(engine, requests[0], first.token_ids)
    torch.testing.assert_close(torch.tensor(first.logprobs), expected, atol=1e-4, rtol=0)


def test_top_k_keeps_the_most_likely_and_shares_out_what_is_left(engine: TransformersEngine) -> None:
    best = logits(engine, ask(engine), [0])[0].topk(3)
    assert set(first_tokens(engine, 200, Sampling(top_k=3)).tolist()) == set(best.indices.tolist())
    [reply] = engine.generate([ask(engine, sampling=Sampling(top_k=3), max_tokens=1)])
    among_three = dict(zip(best.indices.tolist(), best.values.log_softmax(0).tolist(), strict=True))
    assert reply.logprobs[0] == pytest.approx(among_three[reply.token_ids[0]], abs=1e-4)


def test_top_p_keeps_the_smallest_set_with_that_probability(engine: TransformersEngine) -> None:
    sorted_, order = logits(engine, ask(engine), [0])[0].softmax(dim=-1).sort(descending=True)
    kept = next(n for n, total in enumerate(accumulate(sorted_.tolist()), start=1) if total >= 0.2)
    assert 1 < kept < 20
    assert set(first_tokens(engine, 400, Sampling(top_p=0.2)).tolist()) == set(order[:kept].tolist())


def cut_at(engine: TransformersEngine, ids: Sequence[int], stop: Sequence[str]) -> tuple[str, int]:
    """Where an unstopped reply has to end: its text before the first stop string, and its number of tokens."""
    for length in range(1, len(ids) + 1):
        text = engine.renderer.decode(ids[:length])
        found = [text.index(string) for string in stop if string in text]
        if found and text[: min(found) + 1].strip():  # white text alone does not end a reply
            return text[: min(found)], length
    return engine.renderer.decode(ids), len(ids)


@pytest.mark.parametrize("stop", [("a",), ("e", "s"), ("ss", "ple", "er"), ("\n", "1", "2")])
@pytest.mark.parametrize("folder", [qwen2_folder, llama_folder])  # the Llama pads with its end-of-turn token
def test_stop_strings_end_a_reply_with_the_token_that_completes_them(folder: type, stop: tuple[str, ...]) -> None:
    engine = engine_of(folder())
    free = engine.generate([ask(engine, seed) for seed in range(60)])
    stopped = engine.generate([ask(engine, seed, stop=stop) for seed in range(60)])
    ended = 0
    for without, reply in zip(free, stopped, strict=True):
        text, length = cut_at(engine, without.token_ids, stop)
        assert reply.token_ids == without.token_ids[:length]
        assert reply.text == text and len(reply.logprobs) == length
        if text != without.text:
            assert reply.finish == "stop"
            ended += 1
    assert 0 < ended < 60


def test_stop_strings_are_compared_with_the_vocabulary_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, ...]] = []
    inner = StopStringCriteria.__init__

    def counted(self: StopStringCriteria, tokenizer: object, stop: list[str]) -> None:
        compared.append(tuple(stop))
        inner(self, tokenizer, stop)

    monkeypatch.setattr(StopStringCriteria, "__init__", counted)
    engine = make_engine(qwen2_folder())
    short, long = prompts(engine)[0], prompts(engine)[2]
    for prompt in (short, long, short):  # what counts as the reply moves with the prompt's length
        free = engine.generate([ask(engine, seed, prompt=prompt) for seed in range(40)])
        stopped = engine.generate([ask(engine, seed, prompt=prompt, stop=("e", "s")) for seed in range(40)])
        for without, reply in zip(free, stopped, strict=True):
            assert reply.token_ids == without.token_ids[: cut_at(engine, without.token_ids, ("e", "s"))[1]]
    engine.generate([ask(engine, max_tokens=1, stop=("a",))])  # one token: there is nothing to stop
    assert compared == [("e", "s")]


def test_what_the_prompt_ends_with_is_no_part_of_a_stop_string(engine: TransformersEngine) -> None:
    assert engine.renderer.decode(prompts(engine)[1]).endswith("assistant\n")
    newline = engine.renderer.encode_text("\n")
    free = engine.generate([ask(engine, seed, max_tokens=4) for seed in range(2000)])
    seeds = [seed for seed, reply in enumerate(free) if reply.token_ids[:1] == newline]
    assert seeds
    stopped = engine.generate([ask(engine, seed, max_tokens=4, stop=("\n\n",)) for seed in seeds])
    assert [reply.token_ids for reply in stopped] == [free[seed].token_ids for seed in seeds]


def test_the_name_of_a_special_token_is_no_stop_string(engine: TransformersEngine) -> None:
    start = engine.renderer.tokenizer.convert_tokens_to_ids("<|im_start|>")
    free = engine.generate([ask(engine, seed) for seed in range(300)])
    assert any(start in reply.token_ids for reply in free)
    assert engine.generate([ask(engine, seed, stop=("im_start",)) for seed in range(300)]) == free


@pytest.mark.parametrize("folder", [qwen2_folder, llama_folder])
def test_a_reply_ends_with_its_end_of_turn_token_and_no_padding(folder: type) -> None:
    engine = engine_of(folder())
    free = engine.generate([ask(engine, seed) for seed in range(40)])
    several = range(100, 140)
    with ends(engine, several) as short:
        replies = short.generate([ask(engine, seed) for seed in range(40)])
    finishes = set()
    for without, reply in zip(free, replies, strict=True):
        end = next((i for i, index in enumerate(without.token_ids) if index in {*several, *other_turn(engine)}), None)
        length = 8 if end is None else end + 1
        assert reply.token_ids == without.token_ids[:length] and len(reply.logprobs) == length
        assert reply.text == engine.renderer.decode(without.token_ids[:end])
        assert reply.finish == ("length" if end is None else "stop")
        finishes.add(reply.finish)
    assert finishes == {"stop", "length"}


def test_the_tokenizers_end_of_turn_counts_beside_the_models(engine: TransformersEngine) -> None:
    end = engine.renderer.tokenizer.eos_token_id
    with ends(engine, [200, 201]) as other:
        replies = [reply.token_ids for reply in other.generate([ask(engine, seed) for seed in range(300)])]
    expected = {end, 200, 201, *other_turn(engine)}
    assert {ids[-1] for ids in replies if len(ids) < 8} == expected
    assert not any(expected & set(ids[:-1]) for ids in replies)


def other_turn(engine: TransformersEngine) -> set[int]:
    """What begins somebody else's turn, and so ends a reply as well."""
    added = engine.renderer.tokenizer.added_tokens_decoder
    return {index for index, token in added.items() if token.content in ("<|im_start|>", "<|start_header_id|>")}


def test_choices_are_drawn_from_alone_with_the_probabilities_that_they_have_among_themselves(
    engine: TransformersEngine,
) -> None:
    choices = engine.renderer.single_tokens(("a", "1", "="))
    asked = [replace(ask(engine, seed, max_tokens=1), choices=choices) for seed in range(400)]
    among = logits(engine, asked[0], [0])[0, list(choices)].log_softmax(dim=-1)
    counts = dict.fromkeys(choices, 0)
    for done in engine.generate(asked):
        (token,) = done.token_ids
        counts[token] += 1
        assert done.logprobs[0] == pytest.approx(among[choices.index(token)].item(), abs=1e-5)
    for token, likely in zip(choices, among.exp().tolist(), strict=True):
        assert counts[token] / 400 == pytest.approx(likely, abs=0.08)  # three standard errors


def test_adapters_that_share_a_batch_say_what_each_says_alone(engine: TransformersEngine) -> None:
    asked = [ask(engine, seed, prompt=p, adapter=a) for seed in range(3) for p in prompts(engine) for a in ADAPTERS]
    together = engine.generate(asked)
    for adapter in ADAPTERS:
        alone = engine.generate([request for request in asked if request.adapter == adapter])
        mine = [done for request, done in zip(asked, together, strict=True) if request.adapter == adapter]
        for one, other in zip(mine, alone, strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_generating_leaves_the_model_as_it_was(engine: TransformersEngine) -> None:
    engine.bank.activate("right")
    engine.bank.model.train()
    engine.generate([ask(engine, adapter=adapter) for adapter in ADAPTERS])
    assert engine.bank.model.training
    assert engine.bank.model.active_adapters == ["right"]
    assert all(parameter.requires_grad for name in ("left", "right") for parameter in engine.bank.parameters(name))


def test_dropout_is_off_while_generating() -> None:
    bank = make_bank(qwen2_folder())
    for module in bank.model.modules():
        if isinstance(module, torch.nn.ModuleDict) and isinstance(dict(module.items()).get("left"), torch.nn.Identity):
            module["left"] = torch.nn.Dropout(0.5)
    assert any(isinstance(module, torch.nn.Dropout) for module in bank.model.modules())
    engine = TransformersEngine(bank, Renderer(load_model(str(qwen2_folder()))[1]))
    bank.model.train()
    plain = make_engine(qwen2_folder())
    assert engine.generate([ask(engine)]) == plain.generate([ask(plain)])


def test_an_unknown_adapter_is_an_error_that_names_those_that_are_there(engine: TransformersEngine) -> None:
    with pytest.raises(AdapterError, match="no adapter 'lft'; there are: left, right"):
        engine.generate([ask(engine, adapter="lft")])


def test_a_batch_size_below_one_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(ValueError, match="1 or more, got 0"):
        TransformersEngine(engine.bank, engine.renderer, batch_size=0)


def test_a_model_without_an_end_of_turn_token_is_refused() -> None:
    engine = make_engine(qwen2_folder())
    tokenizer = engine.renderer.tokenizer
    tokenizer.eos_token = None
    engine.bank.base.generation_config.eos_token_id = None
    TransformersEngine(engine.bank, engine.renderer)  # its template has one
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="replies would never end"):
        TransformersEngine(engine.bank, Renderer(tokenizer))


def test_the_context_is_the_models(engine: TransformersEngine) -> None:
    assert engine.context_length == 256


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_impossible_sampling_is_refused(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint} must"):
        Sampling(**options)  # type: ignore[arg-type]
