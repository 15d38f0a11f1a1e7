"""What was read once is not read again, and changes no reply."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support import llama_folder, make_engine, qwen2_folder
from transformers import MistralConfig, MistralForCausalLM

from llm_sra.engines import Completion, Request
from llm_sra.engines.prefixes import Layout, Prefixes, keeps_all, last_turn
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.task import Sampling

ONE, OTHER = ("one", 0), ("other", 0)
ADAPTERS = (None, "left", "right")


def states(*values: float) -> torch.Tensor:
    """(1, 2, 1, T, 1): keys and values of T tokens."""
    return torch.tensor(values)[None, None, None, :, None].expand(1, 2, 1, -1, 1)


def found(prefixes: Prefixes, owner: tuple[str, int], *ids: int) -> list[float] | None:
    known = prefixes.find(owner, ids)
    return None if known is None else known[0, 0, 0, :, 0].tolist()


def test_the_longest_known_beginning_is_found_whatever_follows_it() -> None:
    prefixes = Prefixes(1000)
    prefixes.keep(ONE, (5, 6, 7), states(0.5, 0.6, 0.7))
    prefixes.keep(ONE, (5, 9), states(0.5, 0.9))
    prefixes.keep(OTHER, (5, 6, 7, 8), states(5.0, 6.0, 7.0, 8.0))
    assert found(prefixes, ONE, 5, 6, 7, 8) == pytest.approx([0.5, 0.6, 0.7])
    assert found(prefixes, ONE, 5, 6, 1) == pytest.approx([0.5, 0.6])
    assert found(prefixes, ONE, 5, 9, 9) == pytest.approx([0.5, 0.9])
    assert found(prefixes, OTHER, 5, 6, 7) == [5.0, 6.0, 7.0]
    assert found(prefixes, ONE, 4) is None
    assert found(prefixes, ("one", 1), 5, 6, 7) is None  # its weights have changed since


def test_what_came_first_goes_first_when_there_is_no_more_room() -> None:
    prefixes = Prefixes(2 * 2 * 3 * 4)  # two rows of three tokens, keys and values of four bytes
    for first in (1, 2, 3):
        prefixes.keep(ONE, (first, 0, 0), states(float(first), 0.0, 0.0))
    assert len(prefixes) == 2
    assert found(prefixes, ONE, 1, 0, 0) is None
    assert found(prefixes, ONE, 2, 0, 0) == [2, 0, 0]
    assert found(prefixes, ONE, 3, 0, 0) == [3, 0, 0]


def test_known_tokens_and_those_to_read_each_have_their_columns() -> None:
    layout = Layout.of([(1, 2, 3, 4), (5, 6)], [2, 0])
    ids, mask = layout.tensors(0, torch.device("cpu"))
    # Two columns of known tokens, one to read, and the last token of each.
    assert ids.tolist() == [[1, 2, 3, 4], [0, 0, 5, 6]]
    assert mask.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    ids, mask = Layout.of([(1, 2, 3), (5, 6, 7, 8)], [2, 1]).tensors(0, torch.device("cpu"))
    assert ids.tolist() == [[1, 2, 0, 0, 3], [0, 5, 6, 7, 8]]
    assert mask.tolist() == [[1, 1, 0, 0, 1], [0, 1, 1, 1, 1]]


@contextmanager
def counted(engine: TransformersEngine) -> Iterator[list[int]]:
    """How many tokens each call of the model is given, padding included."""
    counts: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        counts.append(kwargs["input_ids"].numel())

    hook = engine.bank.base.base_model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counts
    finally:
        hook.remove()


def ask(seed: int, prompt: Sequence[int], adapter: str | None = "left", tokens: int = 6) -> Request:
    return Request(tuple(prompt), adapter, Sampling(), tokens, (), seed)


def agree(some: Sequence[Completion], others: Sequence[Completion]) -> None:
    for one, other in zip(some, others, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def alone(engine: TransformersEngine, requests: Sequence[Request]) -> list[Completion]:
    """Each reply by an engine that knows nothing."""
    replies = []
    for request in requests:
        engine.rest()
        replies += engine.generate([request])
    return replies


@pytest.mark.parametrize("folder", [qwen2_folder, llama_folder])
def test_a_growing_transcript_is_read_once_and_answered_as_if_it_were_read_anew(folder: Any) -> None:
    engine, fresh = make_engine(folder()), make_engine(folder())
    talks = [list(range(20, 32 + 3 * i)) for i in range(4)]
    for turn in range(3):
        requests = [ask(10 * turn + i, talk, ADAPTERS[i % 3], 4 + i) for i, talk in enumerate(talks)]
        with counted(engine) as counts:
            replies = engine.generate(requests)
        agree(replies, alone(fresh, requests))
        if turn:  # of every talk the reply's last token and what was added; a token a step from there on
            assert max(counts) <= 4 * (1 + 3)
        for i, (talk, reply) in enumerate(zip(talks, replies, strict=True)):
            talk += [*reply.token_ids, *range(40, 43 + i % 2)]


def test_the_episodes_of_a_group_read_their_prompt_once() -> None:
    engine, prompt = make_engine(qwen2_folder()), tuple(range(20, 40))
    requests = [ask(seed, prompt, adapter) for seed in range(5) for adapter in ADAPTERS]
    with counted(engine) as counts:
        replies = engine.generate(requests)
    assert counts[:2] == [3 * 19, 3]  # one row for each adapter: the first tokens of its replies are drawn from it
    assert counts[2] == 15
    agree(replies, alone(engine, requests))


@pytest.mark.parametrize("folder", [qwen2_folder, llama_folder])
def test_what_prompts_say_before_their_last_turn_is_read_once_for_each_adapter(folder: Any) -> None:
    engine = make_engine(folder())
    end = engine._prompts.end_of_turn
    assert end is not None
    earlier = (*range(20, 60), end)
    prompts = [(*earlier, *last, end, 14) for last in ((61,), (61, 62, 63), (64, 65))]
    requests = [ask(seed, prompt, adapter) for prompt in prompts for seed, adapter in enumerate(ADAPTERS)]
    with counted(engine) as counts:
        replies = engine.generate(requests)
    assert counts[:3] == [3 * 41, 9 * 4, 9]
    with counted(engine) as counts:
        agree(engine.generate(requests), replies)
    assert counts[0] == 9  # the last tokens: the rest is known now
    agree(replies, alone(engine, requests))


def test_a_prompt_of_mostly_one_turn_or_with_little_before_it_is_read_at_once() -> None:
    engine = make_engine(qwen2_folder())
    end = engine._prompts.end_of_turn
    assert end is not None
    for before, last in ((range(20, 60), range(20, 70)), (range(20, 30), range(20, 25))):
        prompt = (*before, end, *last, end, 14)
        with counted(engine) as counts:
            engine.generate([ask(1, prompt)])
        assert counts[:2] == [len(prompt) - 1, 1]
        engine.rest()


def test_the_last_turn_begins_behind_the_one_before() -> None:
    assert last_turn((7, 1, 2, 7, 3, 7, 4), 7) == 4
    assert last_turn((1, 7, 2), 7) == last_turn((1, 2), None) == 0


def test_replies_of_one_token_compute_nothing_but_their_prompts() -> None:
    engine, prompts = make_engine(qwen2_folder()), (tuple(range(20, 40)), tuple(range(30, 37)))
    requests = [ask(seed, prompt, "left", tokens=1) for seed in range(40) for prompt in prompts]
    with counted(engine) as counts:
        replies = engine.generate(requests)
    assert counts == [2 * 19, 2]
    assert len({reply.token_ids for reply in replies}) > 2
    agree(replies, alone(engine, requests))


def test_other_weights_do_not_begin_with_what_these_have_read() -> None:
    engine, fresh, prompt = make_engine(qwen2_folder()), make_engine(qwen2_folder()), tuple(range(20, 40))
    engine.generate([ask(1, prompt)])
    for one in (engine, fresh):
        one.bank.copy("right", "left")
    agree(engine.generate([ask(1, prompt)]), fresh.generate([ask(1, prompt)]))


def test_what_was_read_is_forgotten_at_rest() -> None:
    engine, prompt = make_engine(qwen2_folder()), tuple(range(20, 40))
    for _ in range(2):
        with counted(engine) as counts:
            engine.generate([ask(1, prompt)])
        assert counts[0] == 19
        engine.rest()


def test_a_row_that_knows_nothing_is_read_beside_rows_that_know_much() -> None:
    engine, fresh = make_engine(qwen2_folder()), make_engine(qwen2_folder())
    known, new = tuple(range(20, 60)), tuple(range(60, 100))
    engine.generate([ask(1, known)])
    requests = [ask(2, (*known, 5, 6)), ask(3, new), ask(4, new[:1]), ask(5, new[:9], None)]
    agree(engine.generate(requests), alone(fresh, requests))


def test_a_model_that_forgets_tokens_reads_all_of_them_anew() -> None:
    shape = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8, "vocab_size": 8, "head_dim": 4}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    assert keeps_all(MistralForCausalLM(MistralConfig(sliding_window=None, **shape)))
    assert not keeps_all(MistralForCausalLM(MistralConfig(sliding_window=8, **shape)))
