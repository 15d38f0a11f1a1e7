"""Models whose head is their embeddings: what trains, plays beside others and merges, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from support import Toy, qwen2_folder
from test_foreign_adapters import foreign, says
from training_support import train_tiny
from transformers import AutoModelForCausalLM

from llm_sra import export
from llm_sra.models.adapters import AdapterError
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry
from llm_sra.trainer.parse import ConfigError

IDS = torch.tensor([[5, 60, 7, 80]])
PARTNERS: dict[str, dict[str, Any]] = {
    "a head": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "both": {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},
    "both, tied": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "a head trained whole": {"modules_to_save": ["lm_head"]},
    "embeddings trained whole": {"modules_to_save": ["embed_tokens"]},
    "both trained whole": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "both trained whole, tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "single tokens": {"trainable_token_indices": [5, 60]},
    "the embeddings' parameter": {"target_parameters": ["embed_tokens.weight"]},
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize("case", PARTNERS)
def test_a_partner_says_what_peft_says_and_its_neighbour_what_it_said_alone(case: str, tmp_path: Path) -> None:
    plain, expected = foreign(tmp_path / "plain"), foreign(tmp_path / "case", **PARTNERS[case])
    assert (expected - plain).abs().max() > 0.1
    with PolicyLoader(Toy()) as loader:
        options = {"base": str(qwen2_folder())}
        seats = [loader.partner(Entry(n, "adapter", str(tmp_path / n), options))["left"] for n in ("plain", "case")]
        for seat, logits in zip(seats, (plain, expected), strict=True):
            bank = loader._banks[seat.engine]  # type: ignore[attr-defined]
            assert bank.base.config.tie_word_embeddings
            assert torch.allclose(says(bank, seat.adapter), logits, atol=1e-5)  # type: ignore[attr-defined]


@torch.no_grad()
def test_merged_it_is_still_tied_and_says_the_same(tmp_path: Path) -> None:
    with torch.enable_grad():
        run = train_tiny(tmp_path / "run", arm="ippo", max_steps=1, problems_per_step=2)
    merged = export(run, "left", tmp_path / "merged", merge=True)
    with safe_open(merged / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118
    base, model = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (qwen2_folder(), merged))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, base.get_input_embeddings().weight)
    adapted = PeftModel.from_pretrained(base, str(run.adapters / "left")).eval()
    torch.testing.assert_close(model(input_ids=IDS).logits, adapted(input_ids=IDS).logits, atol=1e-3, rtol=0)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a head": ({"lora_target_modules": ["q_proj", "lm_head"]}, "names lm_head, which cannot be trained"),
    "embeddings": (
        {"lora_target_modules": ["q_proj", "embed_tokens"]},
        "names embed_tokens.*where embeddings are tied",
    ),
    "embeddings by their path": ({"lora_target_modules": ["model.embed_tokens"]}, "names embed_tokens"),
    "embeddings by a pattern": ({"lora_target_modules": [r".*(q_proj|embed_tokens)"]}, "names embed_tokens"),
    "a pattern that only the model can tell": ({"lora_target_modules": [r"model\.e.*s|.*q_proj"]}, "embed_tokens"),
    "the parameter": ({"lora_target_parameters": ["embed_tokens.weight"]}, "lora_target_parameters names .*embed_tok"),
    "the head's parameter": ({"lora_target_parameters": ["lm_head.weight"]}, "lora_target_parameters names lm_head"),
    "whole": ({"lora_modules_to_save": ["embed_tokens"]}, "lora_modules_to_save must stay None"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_training_is_refused_by_name_before_the_model_is_loaded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, message = REFUSED[case]
    monkeypatch.setattr("llm_sra.training.load_model", lambda *args, **options: pytest.fail("it was loaded"))
    with pytest.raises((AdapterError, ConfigError), match=message):
        train_tiny(tmp_path / "run", arm="ippo", max_steps=1, **flags)
    assert not (tmp_path / "run" / "config.yaml").exists()
