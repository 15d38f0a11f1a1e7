"""Adapters made elsewhere say what PEFT's own loading says, and change nothing of what others say."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import BdLoraConfig, CordaConfig, KasaConfig, LoraGAConfig, MontecloraConfig, VeloraConfig
from support import Toy, qwen2_folder

from llm_sra.engines import Request
from llm_sra.models.adapters import AdapterBank, AdapterError
from llm_sra.models.loading import load_model
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry
from llm_sra.task import Sampling

IDS = torch.tensor([[5, 60, 7, 80]])
SHARED: dict[str, dict[str, Any]] = {
    "rank pattern": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 1}},
    "rslora": {"use_rslora": True},
    "some layers": {"layers_to_transform": [1]},
    "a pattern": {"target_modules": r".*\.(q|down)_proj"},
    "excluded": {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["k_proj"]},
    "DoRA": {"use_dora": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "EVA": {"init_lora_weights": "eva", "eva_config": EvaConfig(rho=1.5)},
    "what CorDA leaves": {"corda_config": CordaConfig()},
    "what LoRA-GA leaves": {"lora_ga_config": LoraGAConfig()},
    "dropout": {"lora_dropout": 0.5},
    "biases of its own": {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    "DoRA's scale by rank": {"use_dora": True, "use_rslora": True},
    "layers by name": {"layers_to_transform": [0], "layers_pattern": "layers"},
    "a head trained whole": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": {"embed_tokens": [5, 60]}},
}
OWN_BASE: dict[str, dict[str, Any]] = {
    "LoRA's biases": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "embeddings, tied to the head": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "a head, saved with its base": {"target_modules": ["q_proj", "lm_head"]},
}
REFUSED: dict[str, tuple[Any, str]] = {
    "alora_invocation_tokens": ([60, 7], "aLoRA acts only from certain tokens of a prompt on"),
    "arrow_config": ({"top_k": 1}, "Arrow chooses among several adapters"),
    "kasa_config": (KasaConfig(), "KaSA changes the base model"),
    "layer_replication": ([[0, 2], [0, 2]], "it repeats layers of the base"),
    "megatron_config": ({"a": 1}, "has PEFT import a module"),
    "monteclora_config": (MontecloraConfig(), "draws weights at random"),
    "use_bdlora": (BdLoraConfig(match_strict=False), "the matrices of BD-LoRA are in blocks"),
    "use_qalora": (True, "a base quantised by GPTQ"),
    "velora_config": (VeloraConfig(), "it is applied in another way than plain LoRA"),
}
# What says where an adapter is from, is only read in training, or is a part of another field's meaning.
ELSEWHERE = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_alpha", "megatron_core", "peft_type",
    "peft_version", "qalora_group_size", "r", "revision", "runtime_config", "task_type", "fan_in_fan_out",
    "loftq_config",
}  # fmt: skip
TESTED_BY_TRAINING = {"target_parameters"}  # test_adapter_kinds.py


def base() -> Any:
    return load_model(str(qwen2_folder()))[0]


@torch.no_grad()
def foreign(folder: Path, **shape: Any) -> torch.Tensor:
    """Save an adapter with random weights by PEFT alone; returns what it says when PEFT loads it."""
    options = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM", **shape}
    model = get_peft_model(base(), LoraConfig(**options))
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    loaded = PeftModel.from_pretrained(base(), str(folder))
    return loaded.eval()(input_ids=IDS).logits


@torch.no_grad()
def says(bank: AdapterBank, name: str | None) -> torch.Tensor:
    with bank.using(name):
        return bank.model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("case", SHARED)
def test_a_foreign_adapter_says_what_peft_says_and_others_stay_as_they_were(case: str, tmp_path: Path) -> None:
    bank = AdapterBank(base())
    plain = foreign(tmp_path / "plain")
    bank.load(tmp_path / "plain", "plain")
    nobody, before, known = says(bank, None), says(bank, "plain"), bank.fingerprint
    expected = foreign(tmp_path / "foreign", **SHARED[case])
    bank.load(tmp_path / "foreign", "foreign")
    assert torch.allclose(says(bank, "foreign"), expected, atol=1e-5)
    assert not torch.allclose(expected, nobody, atol=1e-2)
    assert torch.allclose(says(bank, "plain"), plain, atol=1e-5)
    assert torch.equal(says(bank, "plain"), before) and torch.equal(says(bank, None), nobody)
    assert bank.fingerprint == known


@pytest.mark.parametrize("case", OWN_BASE)
def test_an_adapter_that_replaces_weights_of_its_base_gets_a_base_of_its_own(case: str, tmp_path: Path) -> None:
    plain, expected = foreign(tmp_path / "plain"), foreign(tmp_path / "biased", **OWN_BASE[case])
    shared = AdapterBank(base())
    shared.load(tmp_path / "plain", "plain")
    with pytest.raises(AdapterError, match=r"replaces weights of its base .bias '.*load it on a base of its own"):
        shared.load(tmp_path / "biased", "biased")
    assert torch.allclose(says(shared, "plain"), plain, atol=1e-5)
    with PolicyLoader(Toy()) as loader:
        options = {"base": str(qwen2_folder())}
        seats = [
            loader.partner(Entry(name, "adapter", str(tmp_path / name), options))["left"]
            for name in ("biased", "plain")
        ]
        engines = [seat.engine for seat in seats]  # type: ignore[attr-defined]
        assert engines[0] != engines[1]
        for seat, logits in zip(seats, (expected, plain), strict=True):
            bank = loader._banks[seat.engine]  # type: ignore[attr-defined]
            assert torch.allclose(says(bank, seat.adapter), logits, atol=1e-5)  # type: ignore[attr-defined]


def test_every_field_of_peft_is_played_here_or_refused_by_name() -> None:
    played = {key for shape in (*SHARED.values(), *OWN_BASE.values()) for key in shape}
    known = played | REFUSED.keys() | ELSEWHERE | TESTED_BY_TRAINING
    assert {one.name for one in fields(LoraConfig)} == known  # a new version brought more: find out what they do
    variants = {one.name for one in fields(LoraConfig) if one.metadata.get("is_lora_variant")}
    assert variants - REFUSED.keys() == {"use_dora"}


@pytest.mark.parametrize("key", REFUSED)
def test_a_kind_that_is_not_plain_lora_is_refused_by_name_and_changes_nothing(key: str, tmp_path: Path) -> None:
    value, why = REFUSED[key]
    if key in ("arrow_config", "layer_replication", "megatron_config"):  # PEFT saves them with more than a config
        foreign(tmp_path)
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, key: value}))
    else:
        foreign(tmp_path, **{key: value})
    bank = AdapterBank(base())
    before = says(bank, None)
    with pytest.raises(
        AdapterError, match=f"has {key}, which is not supported: .*{why}.*Take one of plain LoRA"
    ) as said:
        bank.load(tmp_path, "foreign")
    assert "\n" not in str(said.value)
    assert torch.equal(says(bank, None), before) and bank.names == ()


def test_an_adapter_that_eva_started_from_data_says_what_it_said_in_its_training(tmp_path: Path) -> None:
    options = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(base(), LoraConfig(**options, init_lora_weights="eva", eva_config=EvaConfig(rho=2.0)))
    torch.manual_seed(0)
    data = [{"input_ids": torch.randint(4, 200, (4, 16)), "attention_mask": torch.ones(4, 16)} for _ in range(8)]
    initialize_lora_eva_weights(model, data, show_progress_bar=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        expected = model.eval()(input_ids=IDS).logits
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]  # EVA gave ranks by layer
    bank = AdapterBank(base())
    bank.load(tmp_path, "eva")
    torch.testing.assert_close(says(bank, "eva"), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "mica", "lora_ga"])
def test_an_adapter_whose_start_changed_the_base_is_refused(how: str, tmp_path: Path) -> None:
    foreign(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": how}))
    bank = AdapterBank(base())
    before = says(bank, None)
    with pytest.raises(AdapterError, match=f"has init_lora_weights '{how}', which changes the base.*path_initial_mode"):
        bank.load(tmp_path, "foreign")
    assert torch.equal(says(bank, None), before)


def test_keys_of_other_versions_of_peft_are_no_hindrance(tmp_path: Path) -> None:
    expected = foreign(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for new in ("lora_bias", "eva_config", "corda_config", "arrow_config"):
        config.pop(new, None)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "enable_lora": None, "a_future_key": 3}))
    bank = AdapterBank(base())
    bank.load(tmp_path, "old")
    assert torch.allclose(says(bank, "old"), expected, atol=1e-5)


def test_adapters_of_all_kinds_reply_beside_each_other_as_they_do_alone(tmp_path: Path) -> None:
    with PolicyLoader(Toy()) as loader:
        names = {}
        for case, shape in {"plain": {}, **SHARED}.items():
            foreign(tmp_path / case, **shape)
            entry = Entry(case, "adapter", str(tmp_path / case), {"base": str(qwen2_folder())})
            names[case] = loader.partner(entry)["left"].adapter  # type: ignore[attr-defined]
        banks = loader._banks
        engines = {name: engine for engine, bank in banks.items() for name in names.values() if name in bank.names}
        sampling = Sampling(1.0)
        requests = {name: Request(tuple(IDS[0].tolist()), name, sampling, 5, (), seed=1) for name in names.values()}
        shared = [name for name in requests if engines[name] == engines[names["plain"]]]
        assert len(shared) == len(SHARED) - 1  # but for the head trained whole, and the tokens
        together = loader.engines[engines[names["plain"]]].generate([requests[name] for name in shared])
        alone = [loader.engines[engines[name]].generate([requests[name]])[0] for name in shared]
        others = [loader.engines[engines[n]].generate([requests[n]])[0] for n in requests if n not in shared]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len(others) == 2 and all(one.token_ids for one in others)
