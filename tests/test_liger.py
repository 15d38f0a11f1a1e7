"""`use_liger_kernel`: a stand-in for liger-kernel, whose own kernels need a GPU, takes the place of a model's norms."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from training_support import train_tiny, vectors
from transformers import PreTrainedModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

FLAGS = {"arm": "ippo", "max_steps": 2, "problems_per_step": 2, "num_generations": 2}


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What liger-kernel is asked to patch, and how often its norm then runs with and without gradients."""
    asked: list[dict[str, Any]] = []

    def patch(model: PreTrainedModel, **options: Any) -> None:
        seen = {"model": model, "options": options, "training": 0, "generating": 0}
        asked.append(seen)

        def forward(norm: Qwen2RMSNorm, hidden: torch.Tensor) -> torch.Tensor:
            seen["training" if torch.is_grad_enabled() else "generating"] += 1
            return Qwen2RMSNorm.forward(norm, hidden)

        for module in model.modules():
            if isinstance(module, Qwen2RMSNorm):
                module.forward = forward.__get__(module)

    package, transformers = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers")
    transformers._apply_liger_kernel_to_instance = patch  # type: ignore[attr-defined]
    for module in (package, transformers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)
    monkeypatch.setattr("llm_sra.trainer.fields.find_spec", lambda name: name)
    monkeypatch.setattr("llm_sra.trainer.config.needs_gpu", lambda *field: None)
    return asked


def test_its_kernels_take_part_in_generation_and_training_and_leave_the_head_to_trl(
    patched: list[dict[str, Any]], tmp_path: Path
) -> None:
    plain = train_tiny(tmp_path / "plain", **FLAGS)
    run = train_tiny(tmp_path / "run", use_liger_kernel=True, liger_kernel_config={"rope": False}, **FLAGS)
    [seen] = patched
    assert isinstance(seen["model"], PreTrainedModel)  # the base under the adapters
    assert seen["options"] == {"rope": False, "fused_linear_cross_entropy": False}
    assert seen["training"] > 0 and seen["generating"] > 0
    assert run.config["use_liger_kernel"] is True
    ours, theirs = vectors(run.adapters), vectors(plain.adapters)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)  # as its norm is the model's own
