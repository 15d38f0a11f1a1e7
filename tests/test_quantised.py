"""QLoRA: a base of few bits is trained on, played, exported; with a stand-in, and with bitsandbytes if it is there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support import Toy, published_shape, qwen2_folder, qwen2_tokenizer, save_model
from training_support import trained
from transformers import BitsAndBytesConfig, Qwen2Config, Qwen2ForCausalLM

from llm_sra import export
from llm_sra.engines import Request
from llm_sra.models import loading
from llm_sra.models.adapters import AdapterError, read_card
from llm_sra.models.loading import ModelError, load_model, quantization_of
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry
from llm_sra.runs import Run, RunError
from llm_sra.task import Message, Sampling
from llm_sra.trainer.parse import ConfigError, parse

IDS = torch.tensor([[5, 60, 7, 80]])
ONE = {"arm": "ippo", "max_steps": 1, "problems_per_step": 2, "num_generations": 2}


@torch.no_grad()
def rounded(model: torch.nn.Module) -> torch.nn.Module:
    """Linear layers but the head with 16 values for each row's weights, as NormalFloat's places would have them."""
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            step = layer.weight.abs().amax(-1, keepdim=True) / 7
            layer.weight.copy_((layer.weight / step).round() * step)
    return model


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[BitsAndBytesConfig]:
    """In the place of bitsandbytes: quantises by rounding. Gives what it was asked for."""
    asked: list[BitsAndBytesConfig] = []
    theirs = loading.AutoModelForCausalLM.from_pretrained

    def from_pretrained(name: str, *, quantization_config: Any = None, device_map: Any = None, **options: Any) -> Any:
        model, found = theirs(name, **options)
        if quantization_config is None:
            return model, found
        assert device_map == {"": torch.device("cpu")} or device_map == {"": "cpu"}
        asked.append(quantization_config)
        return rounded(model), found

    def there(name: str) -> object:
        return name

    monkeypatch.setattr(loading, "find_spec", there)
    monkeypatch.setattr("llm_sra.trainer.fields.find_spec", there)
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return asked


def logits_of(loader: PolicyLoader, engine: str, adapter: str | None) -> torch.Tensor:
    bank = loader._banks[engine]
    with torch.no_grad(), bank.using(adapter):
        return bank.model.eval()(input_ids=IDS).logits


def check_run(run: Run, base: Path, moved: dict[str, torch.Tensor], flag: str, tmp_path: Path) -> None:
    """A run's agents play on the base of few bits, as partners too, and are exported for it; never on another one."""
    assert run.config[flag] is True
    assert all(change.abs().max() > 0 for change in moved.values())
    plain = PeftModel.from_pretrained(load_model(str(base))[0], str(run.adapters / "left")).eval()(input_ids=IDS).logits
    with PolicyLoader(Toy()) as loader:
        team = loader.team(run)
        left = logits_of(loader, team.engines["left"], team.heroes["left"])
        assert (left - plain).abs().max() > 1e-3
        assert loader._banks[team.engines["left"]].fingerprint == read_card(run.adapters / "left")["base_fingerprint"]
        prompt = loader.engines[team.engines["left"]].renderer.render([Message("user", "word: fig")])
        asked = [Request(prompt, name, Sampling(1.0), 4, (), seed=1) for name in (*team.heroes.values(), None)]
        engine = loader.engines[team.engines["left"]]
        together = [one.token_ids for one in engine.generate(asked)]
        assert together == [engine.generate([one])[0].token_ids for one in asked]
    options = {"base": str(base)}
    with PolicyLoader(Toy()) as loader:
        entry = Entry("x", "adapter", str(run.adapters / "{seat}"), {**options, flag: True})
        seat = loader.partner(entry)["left"]
        partner = logits_of(loader, seat.engine, seat.adapter)  # type: ignore[attr-defined]
        torch.testing.assert_close(partner, left, atol=1e-4, rtol=0)
    with PolicyLoader(Toy()) as loader, pytest.raises(AdapterError, match="whose weights then differ"):
        loader.partner(Entry("x", "adapter", str(run.adapters / "{seat}"), options))
    assert (export(run, "left", tmp_path / "out") / "adapter_model.safetensors").is_file()
    with pytest.raises(RunError, match=r"left was trained on a quantised base.*Export the adapter, without merge"):
        export(run, "left", tmp_path / "merged", merge=True)


@pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
def test_agents_are_trained_played_and_exported_on_the_quantised_base(
    flag: str, stand_in: list[BitsAndBytesConfig], tmp_path: Path
) -> None:
    run, _, moved = trained(tmp_path / "run", **ONE, **{flag: True})
    check_run(run, qwen2_folder(), moved, flag, tmp_path)
    assert stand_in and all(getattr(config, flag) for config in stand_in)


@pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
@torch.no_grad()
def test_an_adapter_made_elsewhere_on_a_quantised_base_is_played_on_it(
    flag: str, stand_in: list[BitsAndBytesConfig], tmp_path: Path
) -> None:
    def base() -> torch.nn.Module:
        return load_model(str(qwen2_folder()), quantization=quantization_of({flag: True}))[0]

    options = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(base(), LoraConfig(**options))
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    expected = PeftModel.from_pretrained(base(), str(tmp_path)).eval()(input_ids=IDS).logits
    with PolicyLoader(Toy()) as loader:
        where = {"base": str(qwen2_folder())}
        seats = [
            loader.partner(Entry(n, "adapter", str(tmp_path), w))["left"]
            for n, w in (
                ("few bits", {**where, flag: True}),
                ("all bits", where),
            )
        ]
        few, whole = (logits_of(loader, seat.engine, seat.adapter) for seat in seats)  # type: ignore[attr-defined]
    torch.testing.assert_close(few, expected, atol=1e-4, rtol=0)
    assert (whole - expected).abs().max() > 1e-3


@pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
def test_the_same_with_bitsandbytes_itself(flag: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    tokenizer = qwen2_tokenizer()
    torch.manual_seed(0)
    shape = {**published_shape(tokenizer), "initializer_range": 0.2}
    base = save_model(Qwen2ForCausalLM(Qwen2Config(**shape)), tokenizer, tmp_path / "base")
    run, _, moved = trained(tmp_path / "run", model_name_or_path=base, **ONE, **{flag: True})
    check_run(run, base, moved, flag, tmp_path)


def test_no_module_keeps_a_path_without_gradients() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.support_avx512bf16_for_cpu = True  # as bitsandbytes' own have it on such a CPU
    loading._keep_differentiable(torch.nn.Sequential(layer, torch.nn.ReLU()))
    assert layer.support_avx512bf16_for_cpu is False


def test_what_a_run_says_of_quantising_reaches_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: name)
    assert quantization_of({"load_in_4bit": False, "dtype": "bfloat16"}) is None
    four = quantization_of(
        {"load_in_4bit": True, "dtype": "bfloat16", "bnb_4bit_quant_type": "fp4", "use_bnb_nested_quant": True}
    )
    assert four is not None and four.load_in_4bit and not four.load_in_8bit
    assert (four.bnb_4bit_compute_dtype, four.bnb_4bit_quant_type) == (torch.bfloat16, "fp4")
    assert four.bnb_4bit_use_double_quant
    for dtype in (None, "auto"):  # as the weights are: bitsandbytes finds out
        made = quantization_of({"load_in_4bit": True, "dtype": dtype})
        assert made is not None and made.bnb_4bit_compute_dtype == BitsAndBytesConfig().bnb_4bit_compute_dtype
    eight = quantization_of({"load_in_8bit": True})
    assert eight is not None and eight.load_in_8bit and not eight.load_in_4bit


def test_without_bitsandbytes_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"^load_in_4bit needs bitsandbytes, which is not installed: pip install"):
        PolicyLoader(Toy()).partner(Entry("x", "model", str(qwen2_folder()), {"load_in_4bit": True}))


def test_four_and_eight_bits_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_sra.trainer.fields.find_spec", lambda name: name)
    flags = {"model_name_or_path": "some/model", "bf16": False, "load_in_4bit": True, "load_in_8bit": True}
    with pytest.raises(ConfigError, match=r"8.bit and 4.bit"):
        parse(None, overrides=flags)
