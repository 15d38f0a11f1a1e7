"""`llm-sra paper`: its commands cover every model, arm and pair; its table, on a made-up evaluation."""

import itertools
from pathlib import Path

import pytest
from report_support import run_folder

from eval.models import models_grid
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary
from llm_sra.evaluation.results import write_results
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import find_roster
from llm_sra.runs import Run
from llm_sra.trainer.parse import read_recipe
from recipes.cli import main
from recipes.commands import compare, paper

# What agents of an arm reach, by model and partner's model; together with themselves first.
REACHED = {
    "ippo": {("small", "small"): 0.5, ("small", "large"): 0.25, ("large", "small"): 0.5, ("large", "large"): 1.0},
    "srpo": {("small", "small"): 0.5, ("small", "large"): 0.75, ("large", "small"): 0.5, ("large", "large"): 0.75},
}


def test_without_its_argument_the_command_says_which_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["paper"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("the following arguments are required: gsm8k")


def evaluated(out: Path) -> list[Run]:
    """Two models by two arms, whose agents met as `REACHED` says; agents of other arms reached nothing together."""
    runs = {
        (model, arm): run_folder(out / f"{model}-{arm}-seed1", arm, metrics=False, model_name_or_path=f"Hub/{model}")
        for model in ("small", "large")
        for arm in ("ippo", "srpo")
    }
    records: list[Record] = []
    crossed: list[Record] = []
    lines = []
    for (ours, us), (theirs, them) in itertools.product(runs.items(), runs.items()):
        share = REACHED[ours[1]][ours[0], theirs[0]] if ours[1] == theirs[1] else 0.0
        partner = "self-play" if us is them else them.name
        for seat in ("first", "second"):
            record = Record(us.name, ours[1], seat, partner, "greedy", 4, share, (0.0, 1.0), share, share, 1.0, 1.0)
            (records if us is them else crossed).append(record)
            key = {"run": us.name, "arm": ours[1], "seat": seat, "partner": partner, "decoding": "greedy"}
            lines += [{**key, "problem": f"p{i}", "solved": i < share * 4, "turns": []} for i in range(4)]
    summary = Summary(tuple(records), {}, cross_play=tuple(crossed))
    write_results(out / "eval", summary, map(EvaluatedEpisode.read, lines))
    return list(runs.values())


def test_each_arms_agents_are_compared_with_agents_of_the_same_arm(tmp_path: Path) -> None:
    from llm_sra.evaluation.results import read_results

    runs = evaluated(tmp_path / "q")
    grid = models_grid(runs, read_results(tmp_path / "q" / "eval"), "greedy")
    assert grid.header[1:] == ("ippo", "srpo", "srpo - ippo")
    assert grid.sections == (
        (("small with small", "0.500", "0.500", "0.000"), ("small with large", "0.250", "0.750", "0.500")),
        (("large with small", "0.500", "0.500", "0.000"), ("large with large", "1.000", "0.750", "-0.250")),
    )


def test_it_prints_a_training_for_each_model_and_arm_and_one_evaluation_of_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["paper", "gsm8k"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["train"] * 8 + ["eval", "report"]
    for model, arm in itertools.product(paper.MODELS, paper.ARMS):
        assert any(f"--config gsm8k/{model}/{arm} " in line for line in lines[:8])
        assert f"runs/paper/gsm8k/{model}-{arm}-seed1 " in lines[8]
    assert "--roster gsm8k_models --problems 1319 --split test --decoding greedy --cross_play --engine vllm" in lines[8]
    assert "--gpu_memory_utilization 0.17" in lines[8]  # 0.7 of the GPU for four models
    assert not list(tmp_path.iterdir())


def test_models_seeds_and_fields_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["paper", "gsm8k", "--models", "qwen3-0.6b", "qwen3-4b-instruct-2507", "--seeds", "1", "2"]
    assert main([*asked, "--task_args", '{"data_path": "FOLDER"}', "--print", "slurm"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=0-7\n" in script
    assert script.count("""--task_args '{"data_path": "FOLDER"}'""") == 8
    assert "--gpu_memory_utilization 0.3" in script  # the recipe's own share, with two models


def test_run_makes_the_comparison_and_shows_the_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(tmp_path)
    made: list[list[str]] = []
    monkeypatch.setattr(compare, "main", lambda asked: made.append(asked))
    monkeypatch.setattr(paper, "MODELS", ("small", "large"))
    assert main(["paper", "gsm8k", "--run", "--models", "small", "large", "--out", str(tmp_path)]) == 0
    assert made and "--print" not in made[0]
    assert "small with large" in capsys.readouterr().out
    assert "| small with large | 0.250 | 0.750 | 0.500 |" in (tmp_path / "paper.md").read_text()


def test_the_roster_has_the_models_that_the_recipes_train() -> None:
    named = {entry.policy for entry in read_roster(find_roster("gsm8k_models"))}
    recipes = [read_recipe(f"gsm8k/{model}/{arm}") for model in paper.MODELS for arm in paper.ARMS]
    assert named == {recipe["model_name_or_path"] for recipe in recipes}
    asked = {recipe["model_name_or_path"]: recipe.get("chat_template_kwargs") for recipe in recipes}
    for entry in read_roster(find_roster("gsm8k_models")):
        assert entry.options.get("chat_template_kwargs") == asked[entry.policy]
