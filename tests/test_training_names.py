"""What a training is given by name is found from any folder, and its run names a shipped model by its name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from llm_sra import training
from llm_sra.models.loading import read_config
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import find_model
from llm_sra.runs import Run, write_config
from llm_sra.trainer.parse import ConfigError, parse

PUPIL = ROOT / "tasks" / "worksheet" / "models" / "pupil"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without anything of the repository, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(monkeypatch: pytest.MonkeyPatch, recipe: str | None, **overrides: Any) -> tuple[Any, Any]:
    """The configurations that `train` would train with."""
    monkeypatch.setattr(training, "run_training", lambda model, args, callbacks=(): (model, args))
    found: Any = training.train(recipe, **overrides)
    return found


def test_a_recipe_and_a_dev_roster_are_found_by_name_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    model, args = given(monkeypatch, "worksheet/srpo", dev_roster="worksheet_dev", output_dir="runs/mine")
    assert (args.arm, args.task, args.tau, args.output_dir) == ("srpo", "worksheet", 10.0, "runs/mine")
    assert model.model_name_or_path == "worksheet/pupil"
    by_name = read_roster(args.dev_roster)
    assert by_name == read_roster(ROOT / "eval" / "rosters" / "worksheet_dev.yaml") and len(by_name) > 1
    _, own = given(monkeypatch, "worksheet/srpo")  # the recipe names the roster relative to itself
    assert read_roster(own.dev_roster) == by_name


def test_a_recipe_that_does_not_exist_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no recipe worksheet/srpoo .*did you mean 'worksheet/srpo'"):
        given(monkeypatch, "worksheet/srpoo")


@pytest.mark.parametrize("name", ["worksheet/pupil", str(PUPIL), f"{PUPIL}/"])
def test_the_configuration_of_a_run_names_a_shipped_model_by_its_name(name: str, elsewhere: Path) -> None:
    model, args = parse(None, overrides={"model_name_or_path": name, "use_cpu": True, "bf16": False})
    write_config(elsewhere, {**vars(model), **args.to_dict()}, {"first": "first"})
    written = yaml.safe_load((elsewhere / "config.yaml").read_text())
    assert written["arguments"]["model_name_or_path"] == "worksheet/pupil"
    assert Path(find_model(Run.open(elsewhere).config["model_name_or_path"])) == PUPIL


def test_a_run_that_names_a_shipped_model_by_the_path_of_another_clone_opens(elsewhere: Path) -> None:
    path = "/elsewhere/another-clone/tasks/worksheet/models/pupil"
    write_config(elsewhere, {"model_name_or_path": path, "seed": 1}, {"first": "first"})
    run = Run.open(elsewhere)
    assert Path(find_model(run.config["model_name_or_path"])) == PUPIL
    assert read_config(run.config["model_name_or_path"]).hidden_size == read_config("worksheet/pupil").hidden_size


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "/gone/models/pupil", "/gone/tasks/worksheet/models/teacher"])
def test_a_model_that_does_not_ship_keeps_its_name(name: str) -> None:
    assert find_model(name) == name


def test_a_folder_that_exists_is_the_model_whatever_its_name(elsewhere: Path) -> None:
    folder = elsewhere / "tasks" / "worksheet" / "models" / "pupil"
    folder.mkdir(parents=True)
    assert find_model(str(folder)) == str(folder)
