"""Every recipe of the kitchen and of tag for a while, in which a reply is one of five moves.

The embedded ones as they stand but short, the others with a small random model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import ROOT, SEATS, published_shape, qwen2_tokenizer, save_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from llm_sra import train
from llm_sra.runs import Run, read_metrics
from llm_sra.trainer.parse import read_recipe
from tasks.kitchen import Kitchen
from tasks.tag import Tag


@dataclass(frozen=True)
class World:
    """A task with its recipes.

    Attributes:
        name: Of the task.
        counts: What its metrics count.
        short: Options for episodes of a few steps.
        moves: Its choices.
        episodes: That each arm of the embedded model plays.
    """

    name: str
    counts: str
    short: Mapping[str, Any]
    moves: tuple[str, ...]
    episodes: int

    @property
    def folder(self) -> Path:
        return ROOT / "recipes" / self.name

    @property
    def real(self) -> list[Path]:
        """The recipes for real models."""
        return sorted(self.folder.glob("*instruct/*.yaml"))


KITCHEN = World("kitchen", "deliveries", {"steps": 9}, Kitchen.choices, 8 * 40)
TAG = World("tag", "tags", {"runner": "random", "move_cost": 0.7, "steps": 9}, Tag.choices, 32 * 40)
WORLDS = (KITCHEN, TAG)
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
each_world = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)


def check(run: Run, world: World, policies: set[str]) -> None:
    lines = [line for line in read_metrics(run.path / "metrics.jsonl") if f"task/{world.counts}" in line]
    assert len(lines) == 2
    for line in lines:
        assert all(line[f"task/illegal/{seat}"] == 0 for seat in SEATS)
        for policy in policies:
            assert 0 < line[f"policy/{policy}/entropy"] < 1.61  # ln 5
            assert line[f"policy/{policy}/value_loss"] >= 0
    saved = {path.name for path in (run.path / "adapters").iterdir() if path.is_dir()}
    assert policies <= saved


def test_both_tasks_have_these_seats() -> None:
    assert Kitchen.seats == Tag.seats == SEATS


@each_world
@pytest.mark.parametrize(
    ("arm", "policies"),
    [
        ("ippo", {"first", "second"}),
        ("srpo", {"first", "second", "adversary-of-first", "adversary-of-second"}),
    ],
)
def test_an_embedded_recipe_runs(world: World, arm: str, policies: set[str], tmp_path: Path) -> None:
    run = train(world.folder / f"{arm}.yaml", task_args=dict(world.short), output_dir=tmp_path / "run", **SHORT)
    check(run, world, policies)


@each_world
def test_best_responses_are_learned_to_a_pool(world: World, tmp_path: Path) -> None:
    pool = tmp_path / "pool.yaml"
    pool.write_text(
        "partners:\n- {name: half, kind: scripted, policy: half_timer}\n- {name: random, kind: scripted, "
        "policy: random_walker}\n"
    )
    short = {**SHORT, "num_generations": 4, "partners": str(pool), "task_args": dict(world.short)}
    check(train(world.folder / "fcp.yaml", output_dir=tmp_path / "run", **short), world, {"first", "second"})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By task, a small random model of Qwen2.5's architecture, for which each move is one token."""
    made = {}
    for world in WORLDS:
        tokenizer = qwen2_tokenizer([*world.moves, "user", "assistant", "system"])
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config(**published_shape(tokenizer)))
        made[world.name] = save_model(model, tokenizer, tmp_path_factory.mktemp("models") / "qwen2")
    return made


# One of each task, arm and size; the others differ from these in numbers alone.
QUICK = ("kitchen-qwen2.5-0.5b-instruct/srpo", "tag-qwen2.5-3b-instruct/ippo")


@pytest.mark.parametrize(
    ("world", "recipe"),
    [
        pytest.param(world, recipe, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for world in WORLDS
        for recipe in world.real
        for name in [f"{world.name}-{recipe.parent.name}/{recipe.stem}"]
    ],
)
def test_a_recipe_for_a_real_model_runs_on_transformers(
    world: World, recipe: Path, models: Mapping[str, Path], tmp_path: Path
) -> None:
    task_args = {**read_recipe(recipe)["task_args"], "steps": 9}
    short = {**SHORT, **SMALL, "engine": "transformers", "model_name_or_path": str(models[world.name])}
    run = train(recipe, task_args=task_args, output_dir=tmp_path / "run", **short)
    check(run, world, {"ippo": {"hero"}, "srpo": {"hero", "adversary"}}[recipe.stem])


@each_world
def test_the_arms_of_a_model_differ_in_nothing_but_the_objective(world: World) -> None:
    for folder in [world.folder, *{recipe.parent for recipe in world.real}]:
        ippo, srpo = (yaml.safe_load((folder / f"{arm}.yaml").read_text()) for arm in ("ippo", "srpo"))
        differ = {key for key in ippo.keys() | srpo.keys() if ippo.get(key) != srpo.get(key)}
        assert differ - {"tau"} == {"arm", "output_dir"}


@each_world
def test_every_arm_of_the_embedded_model_plays_as_many_episodes_of_one_world(world: World) -> None:
    recipes = [yaml.safe_load((world.folder / f"{arm}.yaml").read_text()) for arm in ("ippo", "srpo", "fcp")]
    episodes = [recipe["problems_per_step"] * recipe["num_generations"] * recipe["max_steps"] for recipe in recipes]
    assert episodes == [world.episodes] * 3
    assert recipes[0].get("task_args") == recipes[1].get("task_args") == recipes[2].get("task_args")


@each_world
def test_real_models_are_told_the_rules_and_play_the_world_of_the_embedded_one(world: World) -> None:
    options = yaml.safe_load((world.folder / "ippo.yaml").read_text()).get("task_args", {})
    told = [yaml.safe_load(recipe.read_text())["task_args"] for recipe in world.real]
    assert told == [{**options, "explain": True}] * 4
