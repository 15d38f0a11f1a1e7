"""Rows that begin alike are read once: numbers and gradients are those of every row by itself, without padding."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from loss_support import ADVERSARY, HERO, close, gradient, rows_of, sizes_of, trainer_of, written_out
from support import lora
from training_support import make_trainer, roll, train_tiny, vectors

from llm_sra.models.adapters import AdapterBank
from llm_sra.trainer import reading
from llm_sra.trainer.head import Head
from llm_sra.trainer.loss import by_length, cheapest_order
from llm_sra.trainer.prefix_plan import Costs
from llm_sra.trainer.reading import Reader
from llm_sra.trainer.rollout import Sample
from llm_sra.trainer.rows import Row, collate, joined

WORDS = 90
SHAPE: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
# By family: its configuration, what that needs, and whether beginnings are shared.
FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "Qwen2": ("Qwen2", {}, True),
    "Qwen2, eager": ("Qwen2", {"attn_implementation": "eager"}, True),
    "Qwen3": ("Qwen3", {"head_dim": 8}, True),
    "Qwen3-MoE": ("Qwen3Moe", {"head_dim": 8, "num_experts": 4, **EXPERTS}, True),
    "Llama": ("Llama", {}, True),
    "Gemma 2": ("Gemma2", {"head_dim": 8, "sliding_window": 64}, True),
    "Gemma 2, rows beyond its window": ("Gemma2", {"head_dim": 8, "sliding_window": 32}, False),
    "Gemma 3": ("Gemma3Text", {"head_dim": 8}, True),
    "Phi-3": ("Phi3", {}, True),
    "Mistral": ("Mistral", {}, True),
    "GPT-OSS": ("GptOss", {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}, True),
    "GPT-2, whose positions are no rotations": (
        "GPT2",
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        False,
    ),
    "Qwen3.5, whose attention is linear": (
        "Qwen3_5Text",
        {"head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
        False,
    ),
    "LFM2, which has convolutions": ("Lfm2", {"layer_types": ["conv", "full_attention"]}, False),
}


def make_model(family: str = "Qwen2", **more: Any) -> Any:
    """A random model in training, with an adapter."""
    name, needs, _ = FAMILIES[family]
    options = {**needs, **more}
    attention = {"attn_implementation": options.pop("attn_implementation", None)}
    config = getattr(transformers, f"{name}Config")(**SHAPE, **options)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, **attention)
    return AdapterBank.create(model, ["agent"], lora(), seed=0).base.train()


def reader_of(model: Any, share: bool = True) -> Reader:
    reader = Reader(model, nullcontext, share)
    reader.costs = Costs(hidden=4096)  # as if a pass were cheap
    return reader


def some_rows() -> list[Row]:
    """Two groups with a briefing in common, replies of several lengths and turns, and a row that is there twice."""
    torch.manual_seed(3)

    def words(count: int) -> list[int]:
        return torch.randint(2, WORDS, (count,)).tolist()

    briefing, left, right, turn = words(24), words(9), words(4), words(3)
    said = [words(3), words(1), [*words(2), *turn, *words(4)], words(5), words(2), [*words(1), *turn, *words(1)]]
    rows = [Row(i, "", (*briefing, *(left if i < 3 else right)), reply) for i, reply in enumerate(said)]
    return [*rows, Row(6, "", rows[1].prompt_ids, list(rows[1].completion_ids)), Row(7, "", tuple(words(6)), words(2))]


def batch_of(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor, int]:
    for row in rows:
        row.own = [1] * len(row.completion_ids)
        row.logprobs = [0.0] * len(row.completion_ids)
    return joined(collate(rows, 0, torch.device("cpu")))


def alone(model: Any, row: Row) -> torch.Tensor:
    """(T,) log-probabilities of a row's completion, read by itself."""
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(row.completion_ids)[:, None])[:, 0]


def logprobs_of(model: Any, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(B, T) by the model's own head."""
    layers = model.base_model.register_forward_hook(lambda m, a, out: setattr(out, "last_hidden_state", hidden))
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        layers.remove()
    logprobs: torch.Tensor = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return logprobs


def gradient_of(model: Any, total: torch.Tensor) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    total.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])


def scrambled(model: Any) -> Any:
    """Give the adapter weights that change what the base says."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_and_gradients_are_those_of_every_row_by_itself(family: str) -> None:
    model, rows = scrambled(make_model(family)), some_rows()
    ids, mask, width = batch_of(rows)
    if "GPT-2" in family:  # its positions count from the padding on
        rows = [row for row in rows if len(row.prompt_ids) == len(rows[0].prompt_ids)]
        ids, mask, width = batch_of(rows)
    states = reader_of(model).states(ids, mask, width)
    assert states.shared == FAMILIES[family][2]
    there = mask[:, -width:].bool()
    mine = logprobs_of(model, states.rows(), ids[:, -width:])[there]
    theirs = torch.cat([alone(model, row) for row in rows])
    torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)
    weights = torch.linspace(-1, 1, len(mine))
    one, other = gradient_of(model, (mine * weights).sum()), gradient_of(model, (theirs * weights).sum())
    assert (one - other).norm() <= 1e-5 * other.norm() and other.norm() > 1e-2


def test_the_briefing_and_what_a_group_shares_pass_through_the_layers_once() -> None:
    model = make_model()
    ids, mask, width = batch_of(some_rows())
    read: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: read.append(args[0].numel()))
    for share in (True, False):
        reader_of(model, share).states(ids, mask, width)
    shared, plain = sum(read[:-1]), read[-1]
    assert plain == ids.numel() == 8 * (33 + 9)
    # Briefing, groups and rests: 24 + 9 + 4 + (2 + 0 + 8 + 4 + 1 + 4) + 7 tokens, and what fills lines up.
    assert 62 <= shared <= 130


def test_where_little_is_in_common_every_row_is_read_by_itself() -> None:
    model = make_model()
    torch.manual_seed(1)
    rows = [Row(i, "", tuple(torch.randint(2, WORDS, (30,)).tolist()), [5, 6]) for i in range(4)]
    assert not reader_of(model).states(*batch_of(rows)).shared


def test_gradient_checkpointing_and_dropout_read_every_row_by_itself_in_training_alone() -> None:
    checkpointed, dropping, wrapped = make_model(), make_model(attention_dropout=0.1), make_model()
    checkpointed.gradient_checkpointing_enable()
    for model in (checkpointed, dropping):
        assert not reader_of(model).shares()
        model.eval()
        assert reader_of(model).shares()
    with_dropout = make_model()
    next(one for one in with_dropout.modules() if hasattr(one, "lora_dropout")).lora_dropout["agent"] = (
        torch.nn.Dropout(0.1)
    )
    assert not reader_of(with_dropout).shares()
    assert reader_of(wrapped).shares() and not reader_of(wrapped, share=False).shares()


def test_code_that_comes_with_a_model_is_not_trusted_to_share() -> None:
    model = make_model()
    model.__class__ = type("Own", (type(model),), {"__module__": "somewhere.modeling_own"})
    assert not reader_of(model).shares()


def test_positions_that_depend_on_the_longest_row_are_not_shared() -> None:
    rope = {"factor": 2.0, "rope_theta": 10000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 16
    for kind, shares in (("dynamic", False), ("llama3", True)):
        assert reader_of(make_model("Llama", rope_parameters={**rope, "rope_type": kind})).shares() is shares


# -- in the trainer --------------------------------------------------------------------------------------------------


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Passes cost little, so that the tests' short rows are shared; what became of each batch."""
    became: list[bool] = []
    reading._planned.cache_clear()  # plans of the same rows at the usual costs
    original = Reader.states

    def states(self: Reader, *args: Any) -> Any:
        result = original(self, *args)
        became.append(result.shared)
        return result

    for name, value in (("one_pass", 0.0), ("copy", 0.0), ("attention", 1e-4)):
        monkeypatch.setattr(Costs, name, value)
    monkeypatch.setattr(Reader, "states", states)
    yield became
    reading._planned.cache_clear()


@pytest.mark.parametrize("adapter", [HERO, ADVERSARY])
def test_the_gradient_of_an_adapter_is_the_written_out_one(adapter: str, cheap: list[bool]) -> None:
    exact = adapter == ADVERSARY
    trainer = trainer_of("dapo", kl_direction="partner_adversary") if exact else trainer_of("dapo")
    samples = rows_of(adapter)
    expected = written_out(trainer, adapter, samples, "dapo", exact_tether=exact)
    for size in sizes_of(samples)[1:]:
        cheap.clear()
        order = trainer.bases.first.reader.order(samples, size)
        assert close(gradient(trainer, adapter, order, size), expected)
        assert any(cheap)


def test_what_a_seat_reads_between_its_replies_passes_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, samples = trainer_of("dapo"), rows_of(HERO)
    trainer.bases.first.reader._share = False  # then each token is projected once
    inputs = collate([sample.row for sample in samples], 0, torch.device("cpu"))
    said = torch.zeros_like(inputs["completion_mask"])
    for row, sample in zip(said, samples, strict=True):
        row[: len(sample.row.turns)] = torch.tensor(sample.row.turns) >= 0
    projected, original = [], Head._of

    def counted(self: Head, hidden: torch.Tensor, *args: Any) -> Any:
        projected.append(len(hidden))
        return original(self, hidden, *args)

    monkeypatch.setattr(Head, "_of", counted)
    whole = trainer.bases.first.forward.statistics(trainer.bases.first.bank.model, *joined(inputs))[0]
    with trainer.bases.first.forward.reading(samples):
        replies = trainer.bases.first.forward.statistics(trainer.bases.first.bank.model, *joined(inputs))[0]
    torch.testing.assert_close(replies, whole * said)
    assert projected == [inputs["completion_mask"].sum(), said.sum()] and projected[1] < projected[0]


def test_critics_see_the_same_values_and_get_the_same_gradient(tmp_path: Path, cheap: list[bool]) -> None:
    trainer = make_trainer(tmp_path, algorithm="ppo")
    samples = [sample for sample in roll(trainer).samples if sample.adapter == HERO]
    assert any(cheap) and trainer.critics is not None
    inputs = collate([sample.row for sample in samples], 0, torch.device("cpu"))
    torch.nn.init.normal_(trainer.critics.heads[HERO].weight)
    found = []
    for share in (True, False):
        trainer.bases.first.reader._share = share
        for parameter in trainer.critics.parameters(HERO):
            parameter.grad = None
        values = trainer.critics.values(HERO, inputs)
        (values * inputs["completion_mask"]).square().sum().backward()
        parameters = trainer.critics.parameters(HERO)
        found.append((values * inputs["completion_mask"], torch.cat([p.grad.flatten() for p in parameters])))
    (one, one_gradient), (other, other_gradient) = found
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert close(one_gradient, other_gradient) and not torch.equal(one, other)


def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(tmp_path: Path, cheap: list[bool]) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "problems_per_step": 2}
    whole = vectors(train_tiny(tmp_path / "whole", **saving).adapters)
    assert any(cheap)
    train_tiny(tmp_path / "part", **{**saving, "max_steps": 1})
    rest = vectors(train_tiny(tmp_path / "part", **saving, resume_from_checkpoint=True).adapters)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


# -- the order of rows -----------------------------------------------------------------------------------------------


def sample(prompt: str, said: int) -> Sample:
    return Sample(Row(0, "", tuple(map(ord, prompt)), [1] * said), "agent", None)


def test_neighbours_share_most_where_that_is_cheaper_and_are_of_one_length_where_not() -> None:
    model = make_model()
    long, other = "x" * 300, "y" * 310
    games = [sample(prompt, said) for said in (1, 2, 3) for prompt in (long, other)]
    assert [s.row.prompt_ids[0] for s in by_length(games)] == list(map(ord, "xxxyyy"))  # as it happens
    mixed = [sample(prompt, said) for said in (1, 20, 40) for prompt in (long, other)]
    assert [s.row.prompt_ids[0] for s in by_length(mixed)] == list(map(ord, "xyxyxy"))
    assert [s.row.prompt_ids[0] for s in reader_of(model).order(mixed, 3)] == list(map(ord, "xxxyyy"))
    essays = [sample("xy"[i % 2] * 4, said) for i, said in enumerate((5, 200, 10, 190, 6, 210))]
    lengths = [len(s.row.completion_ids) for s in reader_of(model).order(essays, 3)]
    assert lengths == [5, 6, 10, 190, 200, 210]
    assert cheapest_order(essays, 3, lambda rows: 1.0) == by_length(essays)  # of equals
    assert reader_of(model, share=False).order(mixed, 3) == by_length(mixed)
