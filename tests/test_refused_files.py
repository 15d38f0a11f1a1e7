"""What does not load says so, and leaves nothing behind: adapters on a shared base, models, generation configs."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import make_bank, qwen2, qwen2_folder, qwen2_tokenizer, save_model

from llm_sra.engines.replies import end_of_turn_ids
from llm_sra.models.adapters import AdapterBank, AdapterError
from llm_sra.models.loading import ModelError, load_model
from llm_sra.models.renderer import Renderer
from llm_sra.policies import Scripted
from llm_sra.policies.base import PolicyError
from llm_sra.task import Message

SEEN = (Message("user", "go"),)


@pytest.fixture
def bank() -> AdapterBank:
    return make_bank(qwen2_folder())


@pytest.fixture
def folder(bank: AdapterBank, tmp_path: Path) -> Path:
    """An adapter on disk, to be spoilt."""
    bank.save(tmp_path, ["left"])
    return tmp_path / "left"


def says(bank: AdapterBank) -> torch.Tensor:
    ids = torch.arange(1, 9)[None]
    with torch.no_grad(), bank.using("left"):
        logits: torch.Tensor = bank.model(input_ids=ids).logits
    return logits


def rewrite(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def narrowed(folder: Path) -> None:
    """Weights of a base with other widths."""
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    save_file({key: value[:, :-1].contiguous() for key, value in state.items()}, path)


@pytest.mark.parametrize(
    "spoil",
    [
        narrowed,
        lambda folder: rewrite(folder, target_modules=["nowhere"]),
        lambda folder: rewrite(folder, lora_alpha=float("inf")),
        lambda folder: rewrite(folder, arrow_config={"top_k": 1}),
    ],
    ids=["widths", "modules", "alpha", "arrow"],
)
def test_an_adapter_that_does_not_load_leaves_the_shared_base_as_it_was(
    spoil: Any, bank: AdapterBank, folder: Path
) -> None:
    before, names = says(bank), [name for name, _ in bank.base.named_modules()]
    parameters = {name for name, _ in bank.base.named_parameters()}
    spoil(folder)
    with pytest.raises(AdapterError):
        bank.load(folder, "stranger")
    assert "stranger" not in bank.names
    assert [name for name, _ in bank.base.named_modules()] == names
    assert {name for name, _ in bank.base.named_parameters()} == parameters
    assert torch.equal(says(bank), before)


def test_alpha_must_be_a_number_that_scales(bank: AdapterBank, folder: Path) -> None:
    rewrite(folder, alpha_pattern={"q_proj": 1e9})
    with pytest.raises(AdapterError, match=r"names alpha 1000000000.0, expected a number below 1e\+06"):
        bank.load(folder, "stranger")


def test_an_adapters_folder_is_no_model(folder: Path) -> None:
    rewrite(folder, base_model_name_or_path=str(qwen2_folder()))
    with pytest.raises(ModelError):
        load_model(str(folder))


def test_a_padding_token_that_the_model_has_no_row_for_is_replaced(tmp_path: Path) -> None:
    tokenizer = qwen2_tokenizer()
    model = qwen2(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<|added|>"})
    assert tokenizer.pad_token_id >= model.get_input_embeddings().weight.shape[0]
    _, loaded = load_model(str(save_model(model, tokenizer, tmp_path / "model")))
    assert loaded.pad_token_id == loaded.eos_token_id


def test_an_end_of_turn_that_is_no_token_id_is_named(bank: AdapterBank) -> None:
    bank.base.generation_config.eos_token_id = ["<end>"]
    with pytest.raises(ValueError, match=r"must be a token id or a list of them, got \['<end>'\]"):
        end_of_turn_ids(bank.base, Renderer(qwen2_tokenizer()))


class Cancelled:
    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        raise asyncio.CancelledError


class Loud(str):
    def __str__(self) -> str:
        return "something else"


class Own:
    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return Loud("word")


def test_a_script_may_raise_anything_but_what_the_user_presses() -> None:
    with pytest.raises(PolicyError, match="CancelledError"):
        Scripted("odd", Cancelled()).reply(SEEN, random.Random(0))


def test_a_scripts_reply_is_the_text_alone() -> None:
    said = Scripted("odd", Own()).reply(SEEN, random.Random(0))
    assert type(said) is str
    assert said == "word"
