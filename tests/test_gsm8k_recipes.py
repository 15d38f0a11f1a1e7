"""Every GSM8K recipe for a real model, run with a small random model of the same architecture."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from real_templates import TEMPLATES
from support import ROOT, published_shape, qwen2_tokenizer, save_model
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from llm_sra import train
from llm_sra.runs import Run, read_metrics
from llm_sra.trainer.parse import read_recipe

RECIPES = sorted((ROOT / "recipes" / "gsm8k").glob("*/*.yaml"))
SMALL = {
    "problems_per_step": 2,
    "num_generations": 2,
    "max_steps": 1,
    "max_completion_length": 24,
    "mask_truncated_completions": False,  # a random model hardly ever ends
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "vllm_max_model_length": 1024,
    "lora_r": 8,
    "dtype": "float32",
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up problems in the data set's form."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"question": f"Bo has {n} marbles and finds {n} more. How many now?", "answer": f"{n}+{n}\n#### {2 * n}"}
        for n in range(40)
    ]
    for part in ("train", "test"):
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random models by the beginning of the names of those that they stand for."""
    tokenizer = qwen2_tokenizer([(data / "train.jsonl").read_text()], 600)
    shape = published_shape(tokenizer)
    thinks = qwen2_tokenizer([(data / "train.jsonl").read_text()], 600)
    thinks.chat_template = TEMPLATES["qwen3"]  # its recipes say whether it does
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    return {
        "qwen2.5": save_model(Qwen2ForCausalLM(Qwen2Config(**shape)), tokenizer, folder / "qwen2"),
        "qwen3": save_model(Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=32)), thinks, folder / "qwen3"),
    }


def run_recipe(recipe: Path, engine: str, models: dict[str, Path], data: Path, out: Path) -> Run:
    [model] = [folder for name, folder in models.items() if recipe.parent.name.startswith(name)]
    values = read_recipe(recipe)
    named: dict[str, Any] = {"model_name_or_path": str(model)}
    if "seat_models" in values:  # one of the family, and another one, for two sizes of it
        named = {"seat_models": {"first": str(model), "second": str(models["qwen2.5"])}}
    task_args = {**values["task_args"], "data_path": str(data), "validation": 5}
    return train(recipe, engine=engine, **named, task_args=task_args, output_dir=out, **SMALL)


def check(run: Run, arm: str) -> None:
    [line] = [line for line in read_metrics(run.path / "metrics.jsonl") if "solve_rate" in line]
    for r in range(3):
        for seat in ("first", "second"):
            assert 0 <= line[f"task/accuracy/{r}/{seat}"] <= 1
    assert line["replies_cut"] > 0
    policies = {"ippo": ["hero"], "srpo": ["hero", "adversary"]}[arm]
    if run.models:
        policies = [*run.heroes.values(), *(f"adversary-of-{seat}" for seat in run.heroes if arm == "srpo")]
    for policy in policies:
        assert line[f"policy/{policy}/entropy"] > 0
    assert sorted(path.name for path in (run.path / "adapters").iterdir() if path.is_dir()) == sorted(policies)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_runs_on_transformers(recipe: Path, models: dict[str, Path], data: Path, tmp_path: Path) -> None:
    check(run_recipe(recipe, "transformers", models, data, tmp_path / "run"), recipe.stem)


IN_CI = ("qwen3-0.6b/srpo",)  # vLLM starts anew for each; that it runs Qwen2 is seen in test_vllm.py


@pytest.mark.vllm
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, id=name, marks=() if name in IN_CI else pytest.mark.slow)
        for path in RECIPES
        for name in [f"{path.parent.name}/{path.stem}"]
    ],
)
def test_a_recipe_runs_on_vllm(recipe: Path, models: dict[str, Path], data: Path, tmp_path: Path) -> None:
    check(run_recipe(recipe, "vllm", models, data, tmp_path / "run"), recipe.stem)


def test_the_arms_of_a_model_differ_in_nothing_but_the_objective() -> None:
    for folder in {recipe.parent for recipe in RECIPES}:
        ippo, srpo = (yaml.safe_load((folder / f"{arm}.yaml").read_text()) for arm in ("ippo", "srpo"))
        assert {key for key in ippo.keys() | srpo.keys() if ippo.get(key) != srpo.get(key)} == {"arm", "output_dir"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_of_the_paper_is_strict_and_credits_rounds(recipe: Path) -> None:
    settings = yaml.safe_load(recipe.read_text())
    options = {"protocol": "debate", "rounds": 3, "gamma": 1.0, "strict": True, "explain": False}
    assert settings["task_args"] == options
    assert settings["advantage_level"] == "turn"
