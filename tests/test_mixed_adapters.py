"""Adapters that share a batch: each row gets what its own adapter gives alone; what cannot share is played apart."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import make_engine, qwen2_folder, qwen2_tokenizer, scramble
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Qwen2MoeConfig, Qwen2MoeForCausalLM

from llm_sra.engines import Completion, Request
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.mixed_adapters import CannotShareError, GatheredAdapters, MixedAdapters
from llm_sra.models.renderer import Renderer
from llm_sra.task import Sampling

IDS = torch.tensor([[5, 60, 7, 80]])
PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
ATTENTION = ["q_proj", "v_proj"]


def configs(**options: Mapping[str, Any]) -> dict[str, LoraConfig]:
    """Adapters by name, each plain but for some options."""
    return {name: LoraConfig(**{**PLAIN, **changed}) for name, changed in options.items()}


def bank_of(adapters: Mapping[str, LoraConfig], base: PreTrainedModel | None = None) -> AdapterBank:
    """Random adapters of different kinds on a random model."""
    bank = AdapterBank(base or load_model(str(qwen2_folder()))[0])
    for number, (name, config) in enumerate(adapters.items()):
        bank.add(name, config)
        scramble(bank, name, seed=number)
    bank.model.eval()
    return bank


def engine_of(bank: AdapterBank) -> TransformersEngine:
    return TransformersEngine(bank, Renderer(qwen2_tokenizer()))


@torch.no_grad()
def alone(bank: AdapterBank, name: str | None, ids: torch.Tensor = IDS) -> torch.Tensor:
    with bank.using(name):
        return bank.base(input_ids=ids).logits[0]


@torch.no_grad()
def together(bank: AdapterBank, names: Sequence[str | None], ids: torch.Tensor = IDS) -> torch.Tensor:
    gathered = MixedAdapters(bank.model).gather([name for name in bank.names if name in names])
    with gathered.rows(names):
        return bank.base(input_ids=ids.expand(len(names), -1)).logits


def one_layer(dtype: torch.dtype = torch.float32) -> Any:
    """The identity on two numbers with adapters `twice` and `swap`, of ranks 1 and 2."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = torch.nn.Linear(2, 2, bias=False, dtype=dtype)
            self.only.weight.data.copy_(torch.eye(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.only(x)

    model = get_peft_model(Model(), LoraConfig(r=1, lora_alpha=2, target_modules=["only"]), adapter_name="twice")
    model.add_adapter("swap", LoraConfig(r=2, lora_alpha=2, target_modules=["only"]))
    layer = model.base_model.model.only
    layer.lora_A["twice"].weight.data = torch.tensor([[1.0, 0.0]])
    layer.lora_B["twice"].weight.data = torch.tensor([[1.0], [0.0]])
    layer.lora_A["swap"].weight.data = torch.eye(2)
    layer.lora_B["swap"].weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    return model.eval()


def test_each_row_is_given_its_adapters_product_times_its_scaling() -> None:
    model = one_layer()
    x = torch.tensor([[3.0, 5.0]]).expand(4, 1, 2)
    gathered = MixedAdapters(model).gather(["twice", "swap"])
    with torch.no_grad(), gathered.rows(["swap", None, "twice", "swap"]):
        result = model(x)
    # swap: (3, 5) + 2/2 (5, 3); twice: (3, 5) + 2/1 (3, 0)
    assert result[:, 0].tolist() == [[8, 8], [3, 5], [9, 5], [8, 8]]


@pytest.mark.parametrize("adapter_dtype", [torch.float32, torch.bfloat16])
def test_a_bfloat16_layer_gives_what_it_gives_with_one_adapter(adapter_dtype: torch.dtype) -> None:
    model = one_layer(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)).to(adapter_dtype)
    x, names = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(1)).bfloat16(), ["twice", "swap"]
    with torch.no_grad():
        with MixedAdapters(model).gather(names).rows(names):
            result = model(x)
        for row, name in enumerate(names):
            model.set_adapter(name)
            expected = model(x[row : row + 1])[0]
            assert result.dtype == expected.dtype == torch.bfloat16
            torch.testing.assert_close(result[row], expected, rtol=2**-7, atol=2**-7)  # a step of bfloat16 near 1
            assert (expected - x[row]).abs().max() > 0.1


KINDS: dict[str, dict[str, LoraConfig]] = {
    "alike": configs(left={}, right={}),
    "of other ranks and scales": configs(left={"r": 1, "lora_alpha": 3}, right={"r": 6}, third={"r": 3}),
    "with patterns": configs(
        left={"rank_pattern": {"q_proj": 2, "down_proj": 7}, "alpha_pattern": {"v_proj": 1}}, right={}
    ),
    "with rsLoRA": configs(left={"use_rslora": True}, right={}, third={"use_rslora": True, "r": 9}),
    "on other layers": configs(left={"target_modules": ATTENTION}, right={"target_modules": ["k_proj", "v_proj"]}),
    "on layers of other blocks": configs(
        left={"target_modules": ATTENTION, "layers_to_transform": [0]},
        right={"target_modules": ATTENTION, "layers_to_transform": [1]},
    ),
    "with dropout": configs(left={"lora_dropout": 0.9}, right={}),
    "on the head": configs(left={"target_modules": [*ATTENTION, "lm_head"]}, right={}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_share_a_batch_and_each_row_is_its_own_adapters(kind: str) -> None:
    bank = bank_of(KINDS[kind])
    assert not MixedAdapters(bank.model).apart
    rows = [*bank.names, None, *reversed(bank.names)]
    results = together(bank, rows)
    for name, result in zip(rows, results, strict=True):
        torch.testing.assert_close(result, alone(bank, name), atol=1e-4, rtol=0)
    for one, other in pairwise(rows):
        assert one == other or (alone(bank, one) - alone(bank, other)).abs().max() > 0.1


def test_a_batch_of_one_adapter_is_that_adapters() -> None:
    bank = bank_of(KINDS["with rsLoRA"])
    for name in bank.names:
        torch.testing.assert_close(together(bank, [name, name])[1], alone(bank, name), atol=1e-4, rtol=0)


def test_layers_with_transposed_weights_share_too() -> None:
    config = GPT2Config(vocab_size=90, n_positions=16, n_embd=16, n_layer=2, n_head=2, initializer_range=0.2)
    torch.manual_seed(0)
    bank = bank_of(configs(left={"target_modules": ["c_attn"]}, right={}), GPT2LMHeadModel(config))
    for name, result in zip(("right", "left", None), together(bank, ["right", "left", None]), strict=True):
        torch.testing.assert_close(result, alone(bank, name), atol=1e-4, rtol=0)


def test_the_layers_are_as_they_were_after_the_block_also_after_an_error() -> None:
    bank = bank_of(KINDS["alike"])
    with pytest.raises(ZeroDivisionError), MixedAdapters(bank.model).gather(bank.names).rows(["left"]):
        _ = 1 / 0
    assert not any("forward" in vars(module) for module in bank.model.modules())


# What cannot share: DoRA, biases, embeddings, modules and tokens that are trained whole.
APART: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "biases of B": {"lora_bias": True},
    "biases of the base": {"bias": "lora_only"},
    "embeddings": {"target_modules": [*ATTENTION, "embed_tokens"]},
    "a module trained whole": {"target_modules": ATTENTION, "modules_to_save": ["lm_head"]},
    "tokens trained whole": {"target_modules": ATTENTION, "trainable_token_indices": [5, 6]},
}


def ask(seed: int, adapter: str | None, tokens: int = 5) -> Request:
    return Request(tuple(range(20 + seed % 2, 30)), adapter, Sampling(), tokens, (), seed)


def agree(engine: TransformersEngine, requests: Sequence[Request]) -> list[Completion]:
    """Replies of one call, which must be those of a call for each request."""
    replies = engine.generate(requests)
    for request, reply in zip(requests, replies, strict=True):
        engine.rest()
        [expected] = engine.generate([request])
        assert reply.token_ids == expected.token_ids
        assert reply.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    return replies


@pytest.mark.parametrize("kind", APART)
def test_what_cannot_share_has_a_batch_of_its_own_and_changes_no_other_row(kind: str) -> None:
    others = configs(left={"target_modules": ATTENTION}, right={"target_modules": ATTENTION})
    bank = bank_of(configs(other=APART[kind]) | others)
    wrapped = {"a module trained whole": "modules_to_save.other", "tokens trained whole": "trainable_tokens_delta"}
    for name, parameter in bank.model.named_parameters():
        if kind in wrapped and wrapped[kind] in name:
            parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    assert MixedAdapters(bank.model).apart == {"other"}
    bank.activate("other")
    engine = engine_of(bank)
    requests = [ask(seed, adapter) for seed in range(3) for adapter in ("left", "other", None, "right")]
    with batches(engine) as sizes:
        agree(engine, requests)
    assert sizes[:2] == [9, 3]
    plain = engine_of(bank_of(others))
    scramble(plain.bank, "left", seed=1)
    scramble(plain.bank, "right", seed=2)
    shared = [request for request in requests if request.adapter != "other"]
    assert [one.token_ids for one in engine.generate(shared)] == [one.token_ids for one in plain.generate(shared)]


@contextmanager
def batches(engine: TransformersEngine) -> Iterator[list[int]]:
    """How many replies each batch gave."""
    sizes: list[int] = []
    inner = engine._generate_batch

    def counted(requests: Sequence[Request]) -> list[Completion]:
        replies = inner(requests)
        sizes.append(len(replies))
        return replies

    engine._generate_batch = counted  # type: ignore[method-assign]
    try:
        yield sizes
    finally:
        del engine._generate_batch  # type: ignore[method-assign]


def experts() -> PreTrainedModel:
    tokenizer = qwen2_tokenizer()
    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2}
    shape |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "initializer_range": 0.2}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return Qwen2MoeForCausalLM(Qwen2MoeConfig(**shape, **ids)).eval()


def test_a_layer_that_sees_tokens_without_their_rows_makes_each_adapter_run_alone() -> None:
    bank = bank_of(configs(left={}, right={}), experts())  # the shared expert is given (rows x tokens, inputs)
    with pytest.raises(CannotShareError, match=r"a layer was given \(8, 32\), expected \(2, tokens, 32\)"):
        together(bank, ["left", "right"])
    engine = engine_of(bank)
    requests = [ask(seed, adapter) for seed in range(2) for adapter in ("left", None, "right")]
    with batches(engine) as sizes:
        replies = agree(engine, requests)
    assert sizes[:3] == [2, 2, 2]
    assert len({reply.token_ids for reply in replies}) == 6


def test_stacks_of_experts_do_not_share() -> None:
    stacked = {"target_modules": ATTENTION, "target_parameters": ["mlp.experts.down_proj"]}
    bank = bank_of(configs(left=stacked, right={"target_modules": ATTENTION}), experts())
    assert MixedAdapters(bank.model).apart == {"left"}
    agree(engine_of(bank), [ask(seed, adapter) for seed in range(2) for adapter in ("left", None, "right")])


def test_an_adapter_with_weights_that_are_not_finite_spoils_no_other_row() -> None:
    engine = make_engine(qwen2_folder())
    asked = [ask(seed, "right") for seed in range(3)]
    expected = engine.generate(asked)
    for part in ("lora_A", "lora_B"):
        broken = make_engine(qwen2_folder())
        for name, parameter in broken.bank.model.named_parameters():
            if f"{part}.left" in name:
                parameter.data.fill_(torch.nan)
        replies = broken.generate([*asked, ask(0, "left")])[:3]
        for reply, right in zip(replies, expected, strict=True):
            assert reply.token_ids == right.token_ids
            assert reply.logprobs == pytest.approx(right.logprobs, abs=1e-4)


def test_matrices_are_gathered_once_a_batch_and_follow_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Sequence[str]] = []
    inner = MixedAdapters.gather

    def counted(self: MixedAdapters, names: Sequence[str]) -> GatheredAdapters:
        made.append(names)
        return inner(self, names)

    monkeypatch.setattr(MixedAdapters, "gather", counted)
    engine = make_engine(qwen2_folder())
    requests = [ask(seed, adapter, 8) for seed in range(2) for adapter in ("right", "left", None)]
    before = engine.generate(requests)
    assert made == [["left", "right"]]
    engine.bank.copy("left", "right")
    after = engine.generate([ask(1, "left", 8), ask(1, "right", 8)])
    assert after[0].token_ids == after[1].token_ids == before[4].token_ids != before[3].token_ids


class Operations(TorchDispatchMode):
    """Counts tensor operations, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_a_token_step_of_four_adapters_takes_two_operations_a_layer_more_than_of_one() -> None:
    names = ("north", "south", "east", "west")
    engine = make_engine(qwen2_folder(), names)
    engine._ends = ()  # so that all replies have their full length

    def step(count: int) -> int:
        totals = []
        for tokens in (2, 3):
            with Operations() as seen:
                engine.generate([ask(seed, names[seed % count], tokens) for seed in range(8)])
            engine.rest()
            totals.append(seen.counts.total())
        return totals[1] - totals[0]

    step(4)  # the model is looked through once
    one = step(1)
    assert step(4) - one == 2 * 14  # a view and zeros in 7 layers of 2 blocks
    assert step(2) == step(4)


def test_adapters_that_come_later_are_seen() -> None:
    engine = make_engine(qwen2_folder())
    engine.generate([ask(0, "left")])
    for name, config in configs(plain={}, dora={"use_dora": True}).items():
        engine.bank.add(name, config)
        scramble(engine.bank, name, seed=7)
    replies = agree(engine, [ask(1, name) for name in engine.bank.names])
    assert len({reply.token_ids for reply in replies}) == 4


def test_a_merged_adapter_is_not_mixed_with_others() -> None:
    bank = bank_of(KINDS["alike"])
    gathered = MixedAdapters(bank.model).gather(["right"])
    bank.model.merge_adapter(["left"])
    with pytest.raises(CannotShareError, match="an adapter is merged into the base model"), gathered.rows(["right"]):
        pass
