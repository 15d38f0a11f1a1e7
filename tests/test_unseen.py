"""Language models that nobody trained here: every task that explains its rules has a roster of them."""

import inspect

import pytest

from llm_sra.partners.costs import cost_lines
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import shipped_recipes, shipped_rosters, shipped_tasks, task_class
from llm_sra.trainer.parse import read_recipe

UNSEEN = "_unseen"
EXPLAINING = [task for task in shipped_tasks() if "explain" in inspect.signature(task_class(task)).parameters]


def trained_bases() -> set[str]:
    """Names of the models that a recipe trains."""
    return {str(read_recipe(name).get("model_name_or_path")) for name in shipped_recipes()}


def family(model: str) -> str:
    """What a model's name begins with: `smollm2` of HuggingFaceTB/SmolLM2-1.7B-Instruct."""
    return model.rpartition("/")[2].lower().split("-")[0]


def test_every_task_that_explains_its_rules_has_a_roster_of_unseen_models_and_no_other_task_has() -> None:
    assert {"worksheet", "kitchen", "hanabi", "tag", "effort", "wordlist", "gsm8k"} <= set(EXPLAINING)
    named = {name.removesuffix(UNSEEN) for name in shipped_rosters() if name.endswith(UNSEEN)}
    assert named == set(EXPLAINING)


@pytest.mark.parametrize("task", EXPLAINING)
def test_no_unseen_model_is_a_base_that_a_recipe_trains(task: str) -> None:
    entries = read_roster(f"{task}{UNSEEN}")
    assert {entry.kind for entry in entries} == {"model"} and len(entries) >= 3
    assert not {entry.policy for entry in entries} & trained_bases()


@pytest.mark.parametrize("task", EXPLAINING)
def test_no_unseen_model_is_of_a_family_that_the_tasks_recipes_train(task: str) -> None:
    mine = [name for name in shipped_recipes() if name.startswith(f"{task}/")]
    trained = {family(str(read_recipe(name).get("model_name_or_path"))) for name in mine}
    assert not {family(entry.policy) for entry in read_roster(f"{task}{UNSEEN}")} & trained


@pytest.mark.parametrize("task", EXPLAINING)
def test_what_each_unseen_model_takes_is_said_before_it_is_loaded(task: str) -> None:
    entries = read_roster(f"{task}{UNSEEN}")
    lines = cost_lines(entries, task_class(task).seats)
    assert [line.split(":")[0] for line in lines] == [entry.name for entry in entries]
    assert all(entry.policy in line and "weights" in line for entry, line in zip(entries, lines, strict=True))


def test_a_family_is_told_by_the_models_name() -> None:
    assert family("HuggingFaceTB/SmolLM2-1.7B-Instruct") == family("HuggingFaceTB/SmolLM2-135M-Instruct") == "smollm2"
