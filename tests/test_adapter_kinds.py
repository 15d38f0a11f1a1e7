"""Kinds of adapters and of models that a training takes: trained, merged to the same logits, exported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support import published_shape, qwen2_folder, qwen2_tokenizer, save_model
from training_support import trained
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from llm_sra import export
from llm_sra.models.adapters import AdapterError
from llm_sra.models.loading import read_config
from llm_sra.models.targets import check_targets
from llm_sra.trainer.parse import parse

IDS = torch.tensor([[5, 60, 7, 80]])


def moe_folder(folder: Path) -> Path:
    """A random Qwen3-MoE: the experts' weights are stacked."""
    tokenizer = qwen2_tokenizer()
    torch.manual_seed(0)
    experts = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 32}
    config = Qwen3MoeConfig(**published_shape(tokenizer), **experts, initializer_range=0.2)
    return save_model(Qwen3MoeForCausalLM(config), tokenizer, folder / "moe")


@pytest.mark.parametrize(
    ("kind", "flags"),
    [("DoRA", {"use_dora": True}), ("rsLoRA", {"use_rslora": True}), ("experts", {})],
)
@torch.no_grad()
def test_it_trains_and_merges_to_the_same_logits(kind: str, flags: dict[str, Any], tmp_path: Path) -> None:
    folder = moe_folder(tmp_path) if kind == "experts" else qwen2_folder()
    with torch.enable_grad():
        run, _, moved = trained(tmp_path / "run", model_name_or_path=folder, arm="ippo", max_steps=1, **flags)
    assert all(change.abs().max() > 0 for change in moved.values())
    base = AutoModelForCausalLM.from_pretrained(folder)
    nobody = base.eval()(input_ids=IDS).logits.clone()
    adapted = PeftModel.from_pretrained(base, str(run.adapters / "left")).eval()(input_ids=IDS).logits
    merged = AutoModelForCausalLM.from_pretrained(export(run, "left", tmp_path / "merged", merge=True))
    assert (adapted - nobody).abs().max() > 1e-2
    torch.testing.assert_close(merged.eval()(input_ids=IDS).logits, adapted, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("targets", "served", "message"),
    [
        (["nothing_here"], False, "lora_target_modules nothing_here do not fit a qwen3_moe model.*all-linear"),
        (["all-linear"], True, "stacked, which vLLM cannot serve.*q_proj k_proj v_proj o_proj"),
    ],
)
def test_targets_that_do_not_fit_are_refused_on_the_skeleton(
    targets: list[str], served: bool, message: str, tmp_path: Path
) -> None:
    from trl import get_peft_config

    flags = {"model_name_or_path": moe_folder(tmp_path), "bf16": False, "lora_target_modules": targets}
    shape = get_peft_config(parse(None, overrides=flags)[0])
    with pytest.raises(AdapterError, match=message):
        check_targets(read_config(str(tmp_path / "moe")), shape, served)
