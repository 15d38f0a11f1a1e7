"""Adapters made elsewhere say what PEFT's own loading says, and change nothing of what others say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
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
    "a head trained whole": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": {"embed_tokens": [5, 60]}},
}
OWN_BASE: dict[str, dict[str, Any]] = {
    "LoRA's biases": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "a head, saved with its base": {"target_modules": ["q_proj", "lm_head"]},
}


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


@pytest.mark.parametrize("how", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "mica"])
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
