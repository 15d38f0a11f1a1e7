"""Names of what ships, resolved from any folder: recipes, rosters, tasks, models, configurations of accelerate."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import PUPIL, ROOT

from llm_sra import registry
from llm_sra.errors import NoFileError, UnknownNameError
from llm_sra.models.loading import ModelError, load_model, read_config
from recipes import cli

FILES = {
    registry.find_recipe: ("worksheet/srpo", ROOT / "recipes" / "worksheet" / "srpo.yaml"),
    registry.find_roster: ("worksheet_test", ROOT / "eval" / "rosters" / "worksheet_test.yaml"),
}
files = pytest.mark.parametrize(("find", "name", "path"), [(find, *known) for find, known in FILES.items()])
Find = Callable[[str | Path], Path]


@files
def test_a_name_of_a_file_is_found_from_another_folder(
    find: Find, name: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(name) == path


@files
def test_a_path_goes_before_a_name(
    find: Find, name: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path(name)
    own.parent.mkdir(exist_ok=True)
    own.write_text("{}")
    assert find(name) == own
    assert find(path) == find(str(path)) == path


@pytest.mark.parametrize(
    ("find", "name", "said"),
    [
        (registry.find_recipe, "worksheet/spro", r"no recipe worksheet/spro .*did you mean 'worksheet/srpo'\?"),
        (registry.find_recipe, "worksheet/srpo.yaml", r"did you mean 'worksheet/srpo'\? `llm-sra list recipes` shows"),
        (registry.find_recipe, "zzz", r"no recipe zzz \(looked for /.*zzz\)\. `llm-sra list recipes` shows those"),
        (registry.find_roster, "worksheet_tset", r"no roster worksheet_tset .*did you mean 'worksheet_test'\?"),
        (registry.find_roster, "zzz", r"no roster zzz \(looked for /.*zzz\)\. `llm-sra list rosters` shows those"),
    ],
)
def test_a_wrong_name_of_a_file_is_answered_with_the_nearest(find: Find, name: str, said: str) -> None:
    with pytest.raises(NoFileError, match=said):
        find(name)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(NoFileError, match="no recipe"):
        registry.find_recipe(tmp_path)


def test_a_wrong_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown task 'worksheeet'; did you mean 'worksheet'\?"):
        registry.load_task("worksheeet")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("worksheet/pupil", str(PUPIL)),
        (str(PUPIL), str(PUPIL)),
        ("/elsewhere/tasks/worksheet/models/pupil", str(PUPIL)),  # a run of another clone, which is gone
        ("/elsewhere/tasks/worksheet/models/pupil/", str(PUPIL)),
        ("tasks/worksheet/models/pupil", str(PUPIL)),
        ("/elsewhere/tasks/worksheet/models/nobody", "/elsewhere/tasks/worksheet/models/nobody"),
        ("/elsewhere/mytasks/worksheet/models/pupil", "/elsewhere/mytasks/worksheet/models/pupil"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
    ],
)
def test_a_model_is_a_shipped_name_a_folder_or_a_name_of_the_hub(
    name: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert registry.find_model(name) == found


def test_an_own_folder_goes_before_a_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worksheet" / "pupil").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert registry.find_model("worksheet/pupil") == "worksheet/pupil"
    assert registry.model_name("worksheet/pupil") == str(tmp_path / "worksheet" / "pupil")


def test_runs_keep_the_name_of_a_shipped_model_and_the_whole_path_of_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert registry.model_name(str(PUPIL)) == "worksheet/pupil"
    assert registry.model_name("mine") == str(tmp_path / "mine")
    assert registry.model_name("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize("load", [load_model, read_config])
def test_a_wrong_name_of_a_shipped_model_is_answered_with_the_nearest(load: Callable[[str], object]) -> None:
    said = r"'worksheet/pupl'; did you mean 'worksheet/pupil'\? `llm-sra list models` shows those that ship: "
    with pytest.raises(ModelError, match=said):
        load("worksheet/pupl")


def test_a_name_of_the_hub_is_not_taken_for_a_shipped_model() -> None:
    assert registry.model_hint("worksheets/pupil") == registry.model_hint("Qwen/Qwen3-0.6B") == ""
    with pytest.raises(ModelError) as caught:
        read_config("worksheets/pupil")
    assert "did you mean" not in str(caught.value)


def test_everything_that_ships_is_there() -> None:
    assert set(registry.shipped_tasks()) == {
        "effort",
        "gsm8k",
        "hanabi",
        "kitchen",
        "openspiel",
        "pettingzoo",
        "tag",
        "textarena",
        "wordlist",
        "worksheet",
    }
    assert {"worksheet/pupil", "worksheet/stranger", "tag/chaser"} <= set(registry.shipped_models())
    assert {"cpu", "multi_gpu"} <= set(registry.shipped_accelerate_configs())
    recipes = registry.shipped_recipes()
    assert {"worksheet/srpo", "gsm8k/qwen3-0.6b/ippo"} <= set(recipes)
    assert not [name for name in recipes if "partners" in name.split("/")]  # those are rosters of a recipe
    for names in (recipes, registry.shipped_rosters(), registry.shipped_models()):
        assert all(path.exists() for path in names.values())


def test_list_prints_every_name_and_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for part in (
        "recipes  (llm-sra train --config NAME)\n",
        "\n  gsm8k/qwen3-0.6b/ippo\n",
        "models  (llm-sra train --model_name_or_path NAME)\n",
        "\n  worksheet/pupil\n",
        "rosters  (llm-sra eval --roster NAME)\n",
        "\n  worksheet_test\n",
    ):
        assert part in out
    assert cli.main(["list", "rosters"]) == 0
    assert "srpo" not in capsys.readouterr().out


def test_list_prints_the_file_of_one_name_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "accelerate_configs", "--path", "cpu"]) == 0
    assert capsys.readouterr().out == f"{ROOT / 'accelerate_configs' / 'cpu.yaml'}\n"
    assert cli.main(["list", "recipes", "--path", "worksheet/spro"]) == 2
    assert "unknown recipe 'worksheet/spro'; did you mean 'worksheet/srpo'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["lst"]])
def test_the_cheap_commands_import_no_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; from recipes.cli import main; main({arguments}); print('torch' in sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.endswith("False\n")
