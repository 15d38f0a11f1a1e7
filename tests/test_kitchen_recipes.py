"""Every kitchen recipe for a while: the embedded ones as they stand but short, the others with a small random model."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import ROOT, qwen2_tokenizer, save_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from llm_sra import train
from llm_sra.runs import Run, read_metrics
from llm_sra.trainer.parse import read_recipe
from tasks.kitchen import Kitchen
from tasks.kitchen.grid import MOVES

FOLDER = ROOT / "recipes" / "kitchen"
REAL = sorted(FOLDER.glob("*instruct/*.yaml"))
SHORT: dict[str, Any] = {
    "problems_per_step": 2,
    "num_generations": 2,
    "max_steps": 2,
    "eval_strategy": "no",
    "save_strategy": "no",
    "dev_roster": None,
    "disable_tqdm": True,
}
SMALL = {
    "learning_rate": 1e-3,
    "lora_r": 8,
    "per_device_train_batch_size": 8,
    "dtype": "float32",
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
}


def check(run: Run, policies: set[str]) -> None:
    lines = [line for line in read_metrics(run.path / "metrics.jsonl") if "task/deliveries" in line]
    assert len(lines) == 2
    for line in lines:
        assert all(line[f"task/illegal/{seat}"] == 0 for seat in Kitchen.seats)
        for policy in policies:
            assert 0 < line[f"policy/{policy}/entropy"] < 1.61  # ln 5
            assert line[f"policy/{policy}/value_loss"] >= 0
    saved = {path.name for path in (run.path / "adapters").iterdir() if path.is_dir()}
    assert policies <= saved


@pytest.mark.parametrize(
    ("arm", "policies"),
    [
        ("ippo", {"first", "second"}),
        ("srpo", {"first", "second", "adversary-of-first", "adversary-of-second"}),
    ],
)
def test_an_embedded_recipe_runs(arm: str, policies: set[str], tmp_path: Path) -> None:
    check(train(FOLDER / f"{arm}.yaml", task_args={"steps": 9}, output_dir=tmp_path / "run", **SHORT), policies)


def test_best_responses_are_learned_to_a_pool(tmp_path: Path) -> None:
    pool = tmp_path / "pool.yaml"
    pool.write_text(
        "partners:\n- {name: half, kind: scripted, policy: half_timer}\n- {name: random, kind: scripted, "
        "policy: random_walker}\n"
    )
    short = {**SHORT, "num_generations": 4, "partners": str(pool), "task_args": {"steps": 9}}
    check(train(FOLDER / "fcp.yaml", output_dir=tmp_path / "run", **short), {"first", "second"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of Qwen2.5's architecture, for which each move is one token."""
    tokenizer = qwen2_tokenizer([*MOVES, "user", "assistant", "system"])
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return save_model(Qwen2ForCausalLM(config), tokenizer, tmp_path_factory.mktemp("models") / "qwen2")


@pytest.mark.parametrize("recipe", REAL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_for_a_real_model_runs_on_transformers(recipe: Path, model: Path, tmp_path: Path) -> None:
    task_args = {**read_recipe(recipe)["task_args"], "steps": 9}
    short = {**SHORT, **SMALL, "engine": "transformers", "model_name_or_path": str(model)}
    run = train(recipe, task_args=task_args, output_dir=tmp_path / "run", **short)
    check(run, {"ippo": {"hero"}, "srpo": {"hero", "adversary"}}[recipe.stem])


def test_the_arms_of_a_model_differ_in_nothing_but_the_objective() -> None:
    for folder in [FOLDER, *{recipe.parent for recipe in REAL}]:
        ippo, srpo = (yaml.safe_load((folder / f"{arm}.yaml").read_text()) for arm in ("ippo", "srpo"))
        differ = {key for key in ippo.keys() | srpo.keys() if ippo.get(key) != srpo.get(key)}
        assert differ - {"tau"} == {"arm", "output_dir"}


def test_every_arm_of_the_embedded_model_plays_as_many_episodes() -> None:
    recipes = [yaml.safe_load((FOLDER / f"{arm}.yaml").read_text()) for arm in ("ippo", "srpo", "fcp")]
    assert {recipe["problems_per_step"] * recipe["num_generations"] * recipe["max_steps"] for recipe in recipes} == {
        recipes[0]["max_steps"] * 8
    }
