"""Learned strangers: what is trained and kept, and that nothing that trains or tunes names one of a test roster."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from benchmarks import learned_strangers, study
from benchmarks.learned_strangers import (
    LARGEST,
    LEARNED,
    ROSTERS,
    UNTRAINED,
    Stranger,
    StrangersError,
    copy_adapter,
    level_steps,
    policy_of,
    read_sets,
    self_play,
    set_cells,
    size_of,
)
from benchmarks.study_tuning import trials, tuning
from llm_sra.errors import UnknownNameError
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import Results
from llm_sra.models.adapter_files import WEIGHTS, read_adapter_config, read_weights
from llm_sra.partners.contents import adapter_folders
from llm_sra.partners.rosters import SELF_PLAY, Entry, read_roster
from llm_sra.registry import shipped_recipes, shipped_rosters, task_class
from llm_sra.runs import Run
from llm_sra.trainer.parse import read_recipe
from recipes.comparing.cells import check_cells

SETS = list(read_sets()["sets"])
KEPT = [name for name in SETS if (ROSTERS / f"{name}_{LEARNED}.yaml").is_file()]
AGENT = ROSTERS / "agents" / "worksheet" / "ippo" / "first"
DEV = "_dev"


def digests(folders: Iterable[Path]) -> set[str]:
    """Hashes of adapters' weights as float16, so that a copy of lower precision is found, too; those that are there."""
    found = set()
    for folder in folders:
        if (folder / WEIGHTS).is_file():
            weights = load_file(folder / WEIGHTS)
            parts = [key.encode() + weights[key].to(torch.float16).numpy().tobytes() for key in sorted(weights)]
            found.add(hashlib.sha256(b"".join(parts)).hexdigest())
    return found


def adapters(entries: Iterable[Entry], seats: Iterable[str]) -> list[Path]:
    """The folders of the adapters among partners, perturbed ones included."""
    inner = [entry.innermost for entry in entries]
    return [folder for one in inner if one.kind == "adapter" for folder in adapter_folders(one, list(seats))]


def seats_of(name: str) -> tuple[str, ...]:
    """Seats of a recipe's or roster's task; of OpenSpiel's, those of its games for two."""
    return tuple(task_class(name.split("/")[0].split("_")[0]).seats)


def named_by_trainings(recipes: Iterable[str]) -> list[Path]:
    """The adapters that recipes begin from, play with in training, or are chosen by."""
    found: list[Path] = []
    for name in recipes:
        recipe = read_recipe(name)
        found += [Path(recipe["initial_adapter"])] if recipe.get("initial_adapter") else []
        for key in ("partners", "dev_roster"):
            if recipe.get(key):
                found += adapters(read_roster(recipe[key]), seats_of(name))
    return found


def test_no_training_dev_roster_or_tuning_run_names_an_adapter_of_a_test_roster() -> None:
    rosters = shipped_rosters()
    tested = [
        folder for name in rosters if not name.endswith(DEV) for folder in adapters(read_roster(name), seats_of(name))
    ]
    missing = [folder for folder in tested if not (folder / WEIGHTS).is_file()]
    assert tested and not missing
    trained = named_by_trainings({*shipped_recipes(), *(trial.cell.recipe for trial in trials())})
    for name in (name for name in rosters if name.endswith(DEV)):
        trained += adapters(read_roster(name), seats_of(name))
    pools = sorted(shipped_recipes()["worksheet/ippo"].parent.parent.glob("*/partners/*.yaml"))
    for pool in pools:
        trained += adapters(read_roster(pool), seats_of(pool.parts[-3]))
    assert pools and trained
    assert not digests(tested) & digests(trained)


def test_an_adapter_that_is_named_twice_would_be_found_in_another_precision_and_place(tmp_path: Path) -> None:
    copy_adapter(AGENT, tmp_path / "first", "worksheet/pupil")
    (tmp_path / "pool.yaml").write_text("partners: [{name: a, kind: adapter, policy: ./first}]")
    (tmp_path / "mine.yaml").write_text(f"arm: fcp\ntask: worksheet\npartners: {tmp_path}/pool.yaml\n")
    named = adapters(read_roster(tmp_path / "pool.yaml"), ("first", "second"))
    assert digests(named) == digests([AGENT]) != digests([AGENT.parent / "second"])


def test_seeds_of_learned_strangers_are_nobodys_else() -> None:
    theirs = {*read_sets()["seeds"], read_sets()["pool_seed"]}
    others = {int(read_recipe(name).get("seed", 1)) for name in shipped_recipes()}
    others |= {*study.SEEDS, *study.TASK_SEEDS, *study.POOL_SEEDS, tuning()["seed"]}
    assert len(theirs) == len(read_sets()["seeds"]) + 1 and not theirs & others


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_every_algorithm_at_every_level_and_its_pool_is_another_seeds(name: str, tmp_path: Path) -> None:
    alone, later = set_cells(name, tmp_path)
    seeds = read_sets()["seeds"]
    pool, *others = alone
    assert pool.name == f"pool-{read_sets()['pool_seed']}" and {cell.name for cell in others} >= {
        f"{algorithm}-{seed}" for seed in seeds for algorithm in ("ippo", "srpo", "entropy")
    }
    assert [cell.name for cell in later] == [f"fcp-{seed}" for seed in seeds]
    steps = level_steps(name)
    assert list(steps) == ["early", "middle", "last"] and sorted(set(steps.values())) == list(steps.values())
    for cell in (*alone, *later):
        assert cell.flags["max_steps"] == steps["last"] and cell.flags["save_steps"] == steps["early"]
        assert cell.flags["eval_strategy"] == "no" and cell.recipe in shipped_recipes()


@pytest.mark.parametrize("name", SETS)
def test_the_trainings_of_a_set_can_be_made_of_their_recipes(name: str, tmp_path: Path) -> None:
    alone, later = set_cells(name, tmp_path)
    (tmp_path / "pool.yaml").write_text("partners: [{name: a, kind: scripted, policy: b}]")
    assert set(check_cells([*alone, *later], tmp_path).values()) == {level_steps(name)["last"]}


def test_levels_that_are_no_whole_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"levels": {"early": 0.25, "last": 1}, "sets": {"effort": {"all": {"max_steps": 30}}}}
    monkeypatch.setattr(learned_strangers, "read_sets", lambda: data)
    with pytest.raises(StrangersError, match="max_steps of effort is 30: expected one that the levels divide"):
        level_steps("effort")


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'worksheet'"):
        learned_strangers.main(["workshet"])


def test_a_copy_has_the_weights_as_float16_and_names_its_base_in_the_repository(tmp_path: Path) -> None:
    copy_adapter(AGENT, tmp_path / "first", "worksheet/pupil")
    config = read_adapter_config(tmp_path / "first")
    copied, before = read_weights(tmp_path / "first", config), read_weights(AGENT, read_adapter_config(AGENT))
    assert config.base_model_name_or_path == "tasks/worksheet/models/pupil"
    assert all(torch.equal(copied[key], before[key].half()) for key in before) and set(copied) == set(before)
    assert size_of(tmp_path / "first") < 0.55 * size_of(AGENT)


def test_a_weight_that_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.mkdir()
    weights = load_file(AGENT / WEIGHTS)
    save_file({key: value + 1e6 for key, value in weights.items()}, source / WEIGHTS, metadata={"format": "pt"})
    (source / "adapter_config.json").write_bytes((AGENT / "adapter_config.json").read_bytes())
    with pytest.raises(StrangersError, match="float16 cannot hold"):
        copy_adapter(source, tmp_path / "copy", "worksheet/pupil")


def test_what_a_stranger_does_alone_is_its_headline_where_the_task_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "r", {}, {})
    played = tuple(
        Record(run.name, "ippo", seat, SELF_PLAY, "sampled", 1, share, (0.0, 1.0), 1, 1, 0, 0)
        for seat, share in (("first", 0.25), ("second", 0.75))
    )
    monkeypatch.setattr(learned_strangers, "evaluate", lambda *what, **how: None)
    monkeypatch.setattr(learned_strangers, "read_results", lambda folder: Results(played, {}, {}, {}))
    stranger = Stranger("r-last", run, "kitchen/ippo", 43, 20)
    assert self_play([stranger], tmp_path) == {"r-last": 0.5}


def test_one_agent_for_all_seats_has_one_folder_in_the_roster(tmp_path: Path) -> None:
    each = Run(tmp_path, {}, {"first": "first", "second": "second"})
    shared = Run(tmp_path, {}, {"first": "hero", "second": "hero"})
    assert policy_of(each, "./a") == "./a/{seat}" and policy_of(shared, "./a") == "./a/hero"


@pytest.mark.parametrize("folder", sorted(path for path in (ROSTERS / "agents").iterdir()), ids=lambda path: path.name)
def test_the_adapters_of_a_task_stay_small(folder: Path) -> None:
    assert 0 < size_of(folder) <= LARGEST


@pytest.mark.parametrize("name", KEPT)
def test_a_roster_of_learned_strangers_has_its_bases_and_every_agent_at_every_level(name: str) -> None:
    entries = read_roster(f"{name}_{LEARNED}")
    bases = [entry for entry in entries if entry.kind == "model"]
    agents = [entry for entry in entries if entry.counted_as == LEARNED]
    alone, later = set_cells(name, Path())
    wanted = [f"{cell.name}-{level}" for cell in [*alone[1:], *later] for level in read_sets()["levels"]]
    assert all(base.name.startswith(UNTRAINED) for base in bases) and entries == [*bases, *agents]
    assert [entry.name for entry in agents] == wanted
    assert {entry.options["base"] for entry in agents} == {base.policy for base in bases}
    folders = adapters(agents, seats_of(name))
    assert all((folder / WEIGHTS).is_file() for folder in folders)
    assert len(digests(folders)) == len(folders)
    page = (ROSTERS / "agents" / name / LEARNED / "README.md").read_text(encoding="utf-8")
    assert all(f"| {entry} |" in page for entry in wanted) and f"benchmarks.learned_strangers {name}\n" in page


def test_a_kept_roster_can_be_read_from_its_file_alone() -> None:
    for name in KEPT:
        items = yaml.safe_load((ROSTERS / f"{name}_{LEARNED}.yaml").read_text(encoding="utf-8"))["partners"]
        assert all(not Path(item["policy"]).is_absolute() for item in items)
