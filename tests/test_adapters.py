"""Named adapters on one base: kept apart, saved and loaded exactly, and refused where they do not belong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from support import lora, make_bank, qwen2, qwen2_folder, qwen2_tokenizer, save_model, scramble

from llm_sra.models.adapters import CARD, WEIGHTS, AdapterBank, AdapterError, read_adapter_config
from llm_sra.models.loading import load_model

IDS = torch.tensor([[5, 60, 7, 80]])


def load_base(folder: Path | None = None) -> torch.nn.Module:
    return load_model(str(folder or qwen2_folder()))[0]


@torch.no_grad()
def says(bank: AdapterBank, name: str | None) -> torch.Tensor:
    with bank.using(name):
        return bank.model(input_ids=IDS).logits


def snapshot(bank: AdapterBank) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in bank.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def bank() -> AdapterBank:
    return make_bank(qwen2_folder())


def test_new_adapters_change_nothing_yet() -> None:
    base = load_base()
    with torch.no_grad():
        before = base(input_ids=IDS).logits
    fresh = AdapterBank.create(base, ["left", "right"], lora(), seed=0)
    assert torch.equal(says(fresh, "left"), before) and torch.equal(says(fresh, None), before)


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    def start(names: list[str], seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(len(names))
        return AdapterBank.create(load_base(), names, lora(), seed).state("left")

    assert same(start(["left"], 0), start(["right", "left"], 0))
    assert not same(start(["left"], 0), start(["left"], 1))
    both = AdapterBank.create(load_base(), ["left", "right"], lora(), seed=0)
    assert not same(both.state("left"), both.state("right"))


def test_making_adapters_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    AdapterBank.create(load_base(), ["left"], lora(), seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_each_adapter_says_something_else_and_none_is_the_base(bank: AdapterBank) -> None:
    with torch.no_grad():
        base = load_base()(input_ids=IDS).logits
    assert torch.equal(says(bank, None), base)
    assert (says(bank, "left") - base).abs().max() > 0.1
    assert (says(bank, "right") - says(bank, "left")).abs().max() > 0.1


def test_only_adapters_can_be_trained_and_all_of_them_whichever_is_active(bank: AdapterBank) -> None:
    def trainable() -> set[str]:
        return {key for key, parameter in bank.model.named_parameters() if parameter.requires_grad}

    everything = {key for key, _ in bank.model.named_parameters() if ".left." in key or ".right." in key}
    assert len(everything) == 2 * 2 * 7 * 2  # A and B, 7 linear layers, 2 blocks, 2 adapters
    for name in ("left", "right"):
        bank.activate(name)
        assert trainable() == everything
    with pytest.raises(ZeroDivisionError), bank.using(None):
        _ = 1 / 0
    assert trainable() == everything


def test_a_loss_under_one_adapter_moves_no_other_and_not_the_base(bank: AdapterBank) -> None:
    before = snapshot(bank)
    optimizer = torch.optim.AdamW([p for name in bank.names for p in bank.parameters(name)], lr=0.1, weight_decay=0)
    bank.activate("right")
    bank.model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
    moved = {key for key, value in snapshot(bank).items() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if ".right." in key}


def test_the_active_adapter_is_restored_also_after_an_error(bank: AdapterBank) -> None:
    bank.activate("right")
    with pytest.raises(ZeroDivisionError), bank.using("left"):
        assert bank.model.active_adapters == ["left"]
        _ = 1 / 0
    assert bank.model.active_adapters == ["right"]
    with bank.using(None):
        pass
    assert bank.model.active_adapters == ["right"]


def test_a_copy_is_equal_and_then_goes_its_own_way(bank: AdapterBank) -> None:
    bank.copy("left", "right")
    assert torch.equal(says(bank, "left"), says(bank, "right"))
    scramble(bank, "right", seed=9)
    assert not torch.equal(says(bank, "left"), says(bank, "right"))


def test_saved_adapters_come_back_bit_for_bit(bank: AdapterBank, tmp_path: Path) -> None:
    bank.save(tmp_path, card={"arm": "srpo"})
    other = AdapterBank.create(load_base(), ["right", "left"], lora(), seed=5)
    for name in ("left", "right"):
        other.load(tmp_path / name, name)
        assert same(other.state(name), bank.state(name))
        assert torch.equal(says(other, name), says(bank, name))
    card = json.loads((tmp_path / "left" / CARD).read_text())
    assert (card["policy"], card["arm"]) == ("left", "srpo")


def test_only_the_named_adapters_are_saved(bank: AdapterBank, tmp_path: Path) -> None:
    bank.save(tmp_path, ["right"])
    assert [folder.name for folder in tmp_path.iterdir() if folder.is_dir()] == ["right"]


def test_an_adapter_can_join_under_a_new_name(bank: AdapterBank, tmp_path: Path) -> None:
    bank.save(tmp_path)
    empty = AdapterBank(load_base())
    empty.load(tmp_path / "left", "stranger")
    assert empty.names == ("stranger",)
    assert torch.equal(says(empty, "stranger"), says(bank, "left"))


def test_names_that_begin_or_end_alike_are_kept_apart(tmp_path: Path) -> None:
    names = ("first", "adversary-of-first", "first-2")
    bank = make_bank(qwen2_folder(), names)
    bank.save(tmp_path)
    for name in names:
        assert {parameter.shape for parameter in bank.parameters(name)} == {
            value.shape for value in bank.state(name).values()
        }
        assert len(bank.parameters(name)) == len(bank.state(name)) == len(load_file(tmp_path / name / WEIGHTS)) == 28


@pytest.mark.parametrize(
    "name", ["left", "", "a b", "a.b", "ä", "default", "0", "layers", "q_proj", "weight", "lora_B"]
)
def test_a_name_that_is_taken_or_would_mix_with_the_models_own_is_refused(bank: AdapterBank, name: str) -> None:
    before = snapshot(bank)
    with pytest.raises(AdapterError, match="an adapter needs a name"):
        bank.add(name, lora())
    assert same(snapshot(bank), before) and bank.names == ("left", "right")


@pytest.mark.parametrize("name", ["0", "weight", "lora_A"])
def test_the_first_adapter_too_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(AdapterError, match="an adapter needs a name"):
        AdapterBank.create(load_base(), [name], lora(), seed=0)


@pytest.mark.parametrize("use", [AdapterBank.activate, AdapterBank.parameters, AdapterBank.state])
def test_an_unknown_adapter_is_an_error_that_names_those_that_are_there(
    bank: AdapterBank, use: Callable[[AdapterBank, str], object]
) -> None:
    with pytest.raises(AdapterError, match="no adapter 'lft'; there are: left, right"):
        use(bank, "lft")


def saved(folder: Path, bank: AdapterBank | None = None) -> Path:
    """A saved adapter."""
    (bank or make_bank(qwen2_folder(), ["left"])).save(folder, ["left"])
    return folder / "left"


def of_another_base(folder: Path) -> Path:
    tokenizer = qwen2_tokenizer()
    base = save_model(qwen2(tokenizer, seed=1), tokenizer, folder / "base")
    return saved(folder, make_bank(base, ["left"]))


def made_elsewhere_of_other_modules(folder: Path) -> Path:
    path = saved(folder)
    (path / CARD).unlink()
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["c_attn"]}))
    return path


def made_elsewhere_of_other_shapes(folder: Path) -> Path:
    path = saved(folder)
    (path / CARD).unlink()
    save_file({key: torch.zeros(4, 5) for key in load_file(path / WEIGHTS)}, path / WEIGHTS)
    return path


def of_another_rank(folder: Path) -> Path:
    return saved(folder, make_bank(qwen2_folder(), ["left"], lora(rank=2)))


def of_another_alpha(folder: Path) -> Path:
    return saved(folder, make_bank(qwen2_folder(), ["left"], lora(alpha=32)))


def of_fewer_layers(folder: Path) -> Path:
    few = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return saved(folder, make_bank(qwen2_folder(), ["left"], few))


def pickled(folder: Path) -> Path:
    path = saved(folder)
    torch.save(load_file(path / WEIGHTS), path / "adapter_model.bin")
    (path / WEIGHTS).unlink()
    return path


def nothing(folder: Path) -> Path:
    return folder


def no_lora(folder: Path) -> Path:
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    get_peft_model(load_base(), config).save_pretrained(folder)
    return folder


MISFITS = {
    of_another_base: r"was trained on .*/base', whose weights then differ from those of .*/qwen2' now",
    of_another_rank: "has r 2, but adapter 'left' has 4",
    of_another_alpha: "has lora_alpha 32, but adapter 'left' has 8",
    of_fewer_layers: "24 tensors differ.*other target modules",
    made_elsewhere_of_other_shapes: "28 tensors differ",
    pickled: "holds no adapter_model.safetensors: only safetensors are loaded",
    nothing: "holds no adapter: expected adapter_config.json",
    no_lora: "only LoRA adapters are supported",
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_an_adapter_that_does_not_belong_is_refused_and_the_bank_is_as_before(
    bank: AdapterBank, tmp_path: Path, misfit: Callable[[Path], Path]
) -> None:
    path, before = misfit(tmp_path), snapshot(bank)
    with pytest.raises(AdapterError, match=MISFITS[misfit]):
        bank.load(path, "left")
    assert same(snapshot(bank), before)


@pytest.mark.parametrize(
    "misfit", [of_another_base, made_elsewhere_of_other_modules, made_elsewhere_of_other_shapes, pickled]
)
def test_an_adapter_that_does_not_belong_cannot_join_either(
    bank: AdapterBank, tmp_path: Path, misfit: Callable[[Path], Path]
) -> None:
    path, before = misfit(tmp_path), snapshot(bank)
    with pytest.raises(AdapterError):
        bank.load(path, "stranger")
    assert bank.names == ("left", "right") and same(snapshot(bank), before)
    assert bank.model.active_adapters == ["left"]


@pytest.mark.parametrize("misfit", [made_elsewhere_of_other_modules, made_elsewhere_of_other_shapes])
def test_a_base_that_refused_its_first_adapter_still_plays_and_takes_another(
    tmp_path: Path, misfit: Callable[[Path], Path]
) -> None:
    good = saved(tmp_path / "good")
    bad = misfit(tmp_path / "bad")
    bank = AdapterBank(load_base())
    before = says(bank, None)
    with pytest.raises(AdapterError):
        bank.load(bad, "stranger")
    assert bank.names == () and torch.equal(says(bank, None), before)
    bank.load(good, "friend")
    assert bank.names == ("friend",) and torch.equal(says(bank, None), before)


def test_a_folder_without_safetensors_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    path = pickled(tmp_path)
    (path / "adapter_config.json").write_text("not even JSON")
    with pytest.raises(AdapterError, match="other formats can run code"):
        read_adapter_config(path)


def test_reading_an_adapters_weights_looks_nothing_up_about_its_base(
    bank: AdapterBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*args: object, **kwargs: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", look_up)
    bank.model.peft_config["left"].base_model_name_or_path = "somebody/else"
    bank.copy("left", "right")
    assert all("lora_" in key for key in bank.state("left"))
