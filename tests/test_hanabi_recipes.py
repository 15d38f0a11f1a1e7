"""Hanabi's recipes: those for the embedded model in small, those for real models with a random one of their kind."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import ROOT, published_shape, qwen2_tokenizer, save_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from llm_sra import evaluate, train
from llm_sra.evaluation.results import read_episodes, read_results
from llm_sra.runs import Run, read_metrics
from tasks.hanabi import Hanabi

FOLDER = ROOT / "recipes" / "hanabi"
REAL = sorted(FOLDER.glob("qwen*/*.yaml"))
SEATS = ("first", "second", "third", "fourth")
SMALL: dict[str, Any] = {
    "problems_per_step": 4,
    "num_generations": 2,
    "max_steps": 1,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-3,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "eval_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def real_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Qwen2 that reads what the task shows."""
    task = Hanabi()
    views = [task.view(task.start(problem, None), "first")[0].content for problem in task.problems("train", 5)]
    tokenizer = qwen2_tokenizer(views, 600)
    torch.manual_seed(0)
    config = Qwen2Config(**published_shape(tokenizer))
    return save_model(Qwen2ForCausalLM(config), tokenizer, tmp_path_factory.mktemp("models") / "qwen2")


def training_line(run: Run) -> dict[str, float]:
    [line] = [line for line in read_metrics(run.path / "metrics.jsonl") if "solve_rate" in line]
    return line


def folders(run: Run) -> list[str]:
    return sorted(path.name for path in (run.path / "adapters").iterdir() if path.is_dir())


def test_the_adversary_fills_every_seat_but_the_heros(tmp_path: Path) -> None:
    line = training_line(train(FOLDER / "srpo.yaml", output_dir=tmp_path / "run", **SMALL))
    played = {name.split("/")[1:3][0]: set() for name in line if name.startswith("play/")}
    for name in line:
        if name.startswith("play/"):
            played[name.split("/")[1]].add(name.split("/")[2])
    assert played == {seat: {"hero", "adversary"} for seat in SEATS}
    assert line["policy/hero/episodes"] == 8  # one seat of each of the 4 x 2 episodes
    assert line["policy/adversary/episodes"] == 24  # three of each
    assert folders(Run.open(tmp_path / "run")) == ["adversary", "hero"]
    assert abs(line["policy/adversary/kl_to_partner"]) < 1e-4  # a copy of the hero at first


def test_ippo_has_one_policy_in_all_four_seats(tmp_path: Path) -> None:
    run = train(FOLDER / "ippo.yaml", output_dir=tmp_path / "run", **SMALL)
    line = training_line(run)
    assert line["policy/hero/episodes"] == 32
    assert {name.split("/")[2] for name in line if name.startswith("play/")} == {"hero"}
    assert run.heroes == dict.fromkeys(SEATS, "hero")
    assert line["task/score"] == pytest.approx(line["play/first/hero/team_reward"])


def test_strangers_fill_all_seats_but_one_and_agents_are_compared_by_score(tmp_path: Path) -> None:
    run = train(FOLDER / "ippo.yaml", output_dir=tmp_path / "run", arm="untrained", **SMALL)
    roster = ROOT / "eval" / "rosters" / "hanabi_test.yaml"
    records = evaluate([run], roster, tmp_path / "eval", problems=2, decodings=["sampled"])
    assert {(r.seat, r.partner) for r in records} == {
        (seat, partner) for seat in SEATS for partner in ("self-play", "careful", "discarder", "gambler")
    }
    gambled = [line for line in read_episodes(tmp_path / "eval") if line.partner == "gambler"]
    assert {line.seat for line in gambled} == set(SEATS)
    for line in gambled:
        assert all(turn.text.startswith("play ") for turn in line.episode.turns if turn.seat != line.seat)
    found = read_results(tmp_path / "eval")
    assert found.measure == "share of the full score"
    for record in records:
        shown = found.record(record.run, record.seat, record.partner, "sampled").solve_rate
        assert shown == pytest.approx(record.metrics["score"] / 9)


def test_best_responses_are_learned_to_partners_that_fill_the_other_seats(tmp_path: Path) -> None:
    pool = train(FOLDER / "ippo.yaml", output_dir=tmp_path / "pool", **SMALL)
    roster = tmp_path / "pool.yaml"
    entries = [{"name": name, "kind": "adapter", "policy": str(pool.adapters / "hero")} for name in ("one", "two")]
    roster.write_text(yaml.safe_dump({"partners": entries}))
    flags = {**SMALL, "num_generations": 4, "partners": str(roster), "partners_per_step": 2}
    line = training_line(train(FOLDER / "fcp.yaml", output_dir=tmp_path / "run", **flags))
    assert line["policy/hero/episodes"] == 16  # 4 problems x 4 episodes, one seat of each
    for seat in SEATS:
        assert {name.split("/")[2] for name in line if name.startswith(f"play/{seat}/")} == {"hero", "one", "two"}


def test_the_pool_of_the_recipe_names_runs_of_ippo_with_one_policy() -> None:
    entries = yaml.safe_load((FOLDER / "partners" / "pool.yaml").read_text())["partners"]
    assert {entry["kind"] for entry in entries} == {"adapter"}
    assert all(entry["policy"].startswith("../../../runs/study/hanabi/ippo-seed") for entry in entries)
    assert all(entry["policy"].endswith("/hero") for entry in entries)  # shared: not one for each seat


# One of each arm and size; the others differ from these in numbers alone.
QUICK = ("qwen2.5-0.5b-instruct/srpo", "qwen2.5-3b-instruct/ippo")


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for path in REAL
        for name in [f"{path.parent.name}/{path.stem}"]
    ],
)
def test_a_recipe_for_a_real_model_runs_on_transformers(recipe: Path, real_model: Path, tmp_path: Path) -> None:
    flags = {
        **SMALL,
        "engine": "transformers",
        "max_completion_length": 16,
        "mask_truncated_completions": False,  # a random model hardly ever ends
        "dtype": "float32",
        "lora_r": 4,
    }
    run = train(recipe, model_name_or_path=str(real_model), output_dir=tmp_path / "run", **flags)
    line = training_line(run)
    assert all(line[f"task/illegal/{seat}"] > 0 for seat in SEATS)  # and still the games came to their end
    assert folders(run) == {"ippo": ["hero"], "srpo": ["adversary", "hero"]}[recipe.stem]


@pytest.mark.parametrize("folder", [FOLDER, *sorted({recipe.parent for recipe in REAL})], ids=lambda path: path.name)
def test_the_arms_differ_in_nothing_but_the_objective(folder: Path) -> None:
    ippo, srpo = (yaml.safe_load((folder / f"{arm}.yaml").read_text()) for arm in ("ippo", "srpo"))
    differ = {key for key in ippo.keys() | srpo.keys() if ippo.get(key) != srpo.get(key)}
    assert "arm" in differ
    adversary = {"adversary_entropy_coef", "adversary_learning_rate", "adversary_reset_steps"}
    assert differ <= {"arm", "tau", "kl_direction", "output_dir", *adversary}


@pytest.mark.parametrize("recipe", [*FOLDER.glob("*.yaml"), *REAL], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_has_one_policy_for_all_seats_of_the_papers_game(recipe: Path) -> None:
    written = yaml.safe_load(recipe.read_text())
    assert written["sharing"] == "shared"
    assert {key: written["task_args"][key] for key in ("players", "colours", "ranks")} == {
        "players": 4,
        "colours": 3,
        "ranks": 3,
    }
    assert written["task_args"].get("explain", True) == (recipe in REAL)
