"""The study's report, on made-up evaluations whose differences are known."""

import itertools
import json
import re
from math import prod
from pathlib import Path

import pytest
from support import ROOT

from benchmarks import study, study_arms, study_report, study_tuning
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary
from llm_sra.evaluation.results import read_results, write_results
from llm_sra.registry import shipped_recipes
from llm_sra.trainer.parse import read_recipe
from recipes.comparing.cells import check_cells

PARTNERS = ("self-play", "lazy", "late", "saboteur")
SEEDS = (1, 2)


def write(folder: Path, solved: dict[str, int], checkpoint: str = "") -> None:
    """An evaluation in which each run solves its first so many of 4 problems with everyone."""
    lines: list[dict[str, object]] = []
    records = []
    for name, right in solved.items():
        run, arm = f"study/{name}{checkpoint}", name.split("-")[0]
        keys = [(seat, partner, how) for seat in ("a", "b") for partner in PARTNERS for how in ("greedy", "sampled")]
        records += [
            Record(run, arm, seat, partner, how, 4, right / 4, (0.0, 1.0), right / 4, right / 4, 1.0, 1.0)
            for seat, partner, how in keys
        ]
        lines += [
            {"run": run, "seat": seat, "partner": partner, "decoding": how, "problem": str(i), "solved": i < right}
            | {"turns": []}
            for seat, partner, how in keys
            for i in range(4)
        ]
    write_results(folder, Summary(tuple(records), {"idle": "lazy"}), map(EvaluatedEpisode.read, lines))


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """SRPO solves one problem of four more than IPPO with seed 1, two more with seed 2."""
    solved = {f"{arm}-seed{seed}": 1 + (arm == "srpo") * seed for seed in SEEDS for arm in ("ippo", "srpo")}
    write(tmp_path / "eval" / "end", solved)
    write(tmp_path / "eval" / "best", solved, "@checkpoint-1")
    write(tmp_path / "eval" / "sweep", {"tau0-noeps": 0})
    write(tmp_path / "eval" / "shared", {"ippo-seed1": 1}, "@checkpoint-60")
    return tmp_path


def test_the_report_shows_the_paired_difference_and_every_seed(evaluated: Path) -> None:
    names = [f"{arm}-seed{seed}" for seed in SEEDS for arm in ("ippo", "srpo")]
    text = study_report.write_report(evaluated, names, sweep=True)
    # (2/4 - 1/4) and (3/4 - 1/4): +0.25 and +0.50, on average +0.375
    assert re.search(r"\| mean over seats and strangers \| sampled \| \+0\.3[78] .* \+0\.25, \+0\.50 \|", text)
    assert all(f"{arm}-seed{seed} " in text for arm in ("ippo", "srpo") for seed in SEEDS)
    sweep = text.split("## SRPO over")[1]
    assert "tau0-noeps " in sweep and "ippo-seed1@checkpoint-60 " in sweep and "srpo-seed2" not in sweep
    assert (evaluated / "study.md").read_text() == text
    assert (evaluated / "study.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_are_paired_by_number_also_for_chosen_checkpoints(evaluated: Path) -> None:
    assert study_report.by_seed(read_results(evaluated / "eval" / "best"), "srpo") == {
        1: "study/srpo-seed1@checkpoint-1",
        2: "study/srpo-seed2@checkpoint-1",
    }


OBJECTIVE = {"arm", "output_dir", "tau", "entropy_coef", "adversary_entropy_coef", "adversary_learning_rate"}
SAMPLED = {
    "partners", "partners_per_step", "risk", "risk_power", "risk_smoothing", "problems_per_step", "num_generations",
}  # fmt: skip


def recipe_of(arm: str) -> dict[str, object]:
    return read_recipe(f"worksheet/{arm}")


def differing(one: str, other: str) -> set[str]:
    first, second = recipe_of(one), recipe_of(other)
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}


def test_arms_differ_in_nothing_but_the_objective() -> None:
    assert differing("ippo", "srpo") == OBJECTIVE - {"entropy_coef"}
    assert differing("ippo", "entropy") == {"entropy_coef", "output_dir"}
    assert differing("srpo", "adversary") == {"arm", "output_dir"}  # the tether alone
    assert differing("ippo", "dr_mamr") == {"influence_coef", "output_dir"}
    assert differing("ippo", "adalign") == {"algorithm", "alignment_coef", "output_dir"}
    assert differing("fcp", "mep") == {"partners", "risk", "risk_power", "risk_smoothing", "output_dir"}
    assert differing("ippo", "mep_pool") == {
        "arm", "output_dir", "problems_per_step", "population", "population_entropy_coef", "entropy_coef",
    }  # fmt: skip
    for arm in ("srpo_sampled", "best_response", "fcp", "mep"):
        assert differing("srpo", arm) <= OBJECTIVE - {"entropy_coef"} | SAMPLED


@pytest.mark.parametrize("recipe", [name for name in shipped_recipes() if name.endswith("/adversary")])
def test_a_pure_adversary_has_no_tether_and_nothing_else_that_srpo_has_not(recipe: str) -> None:
    tethered = recipe.replace("adversary", "srpo")
    other = tethered if tethered in shipped_recipes() else f"{tethered}_tau3"
    found = study_arms.differences(recipe, other)
    assert {key: value for key, value in found.items() if key != "tau"} == {"arm": "adversary"}


def test_the_page_says_what_differs_between_arms_as_the_recipes_have_it() -> None:
    page = study_arms.PAGE.read_text(encoding="utf-8")
    assert page.split(study_arms.BEGIN)[1].split(study_arms.END)[0].strip() == study_arms.table().strip()
    assert "| `worksheet/adversary` |" in page and "| `arm` adversary |" in page


@pytest.mark.parametrize("arm", [*study.ARMS, *study.BASELINES])
def test_all_arms_have_the_same_budget_of_episodes(arm: str) -> None:
    recipe = recipe_of(arm)
    assert int(recipe["problems_per_step"]) * int(recipe["num_generations"]) * int(recipe["max_steps"]) == 128 * 80


def test_every_arm_has_as_many_tuning_trials_and_its_recipe_is_one_of_them() -> None:
    by_arm: dict[str, list[study_tuning.Trial]] = {}
    for trial in study_tuning.trials():
        by_arm.setdefault(trial.arm, []).append(trial)
    assert set(by_arm) == {*study.ARMS, *study.BASELINES}
    assert {len(mine) for mine in by_arm.values()} == {6}
    for arm, mine in by_arm.items():
        recipe = recipe_of(arm)
        assert [trial.values for trial in mine if all(recipe[k] == v for k, v in trial.values.items())], arm


def test_tuning_reads_no_test_roster_and_no_seed_that_is_compared() -> None:
    for trial in study_tuning.trials():
        assert read_recipe(trial.cell.recipe)["dev_roster"] == "worksheet_dev"
        assert trial.cell.flags["seed"] not in study.SEEDS
    assert "_test" not in study_tuning.DATA.read_text()


def write_finished(folder: Path, lines: list[dict[str, float]]) -> None:
    """A finished training that logged some lines."""
    (folder / "adapters").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_trials_table_counts_what_is_finished_and_shows_the_best(tmp_path: Path) -> None:
    mine = [trial for trial in study_tuning.trials() if trial.arm == "adalign"]
    for trial, score in zip(mine, (0.5, 0.75, 0.25), strict=False):
        folder = tmp_path / study_tuning.FOLDER / trial.cell.name
        write_finished(folder, [{"step": 1, study_tuning.SCORE: 0.9}, {"step": 2, study_tuning.SCORE: score}])
    rows = [line for line in study_tuning.tuning_table(tmp_path).splitlines() if line.startswith("| adalign |")]
    assert rows == [
        "| adalign | 3 of 6 | `learning_rate` 0.002 / 0.004, `alignment_coef` 0.3 / 1 / 3 | none "
        "| `learning_rate` 0.002, `alignment_coef` 1: 0.75 | `learning_rate` 0.004, `alignment_coef` 1 |"
    ]


@pytest.mark.parametrize("task", study.TASKS)
def test_all_arms_of_a_task_have_the_same_budget_of_episodes(task: str) -> None:
    recipes = [read_recipe(f"{task}/{arm}") for arm in study.TASK_ARMS]
    keys = "problems_per_step", "num_generations", "max_steps"
    assert len({prod(int(recipe[key]) for key in keys) for recipe in recipes}) == 1


@pytest.mark.parametrize("task", study.TASKS)
def test_the_pool_of_a_task_is_what_its_study_trains_and_no_seed_that_is_compared(task: str) -> None:
    pool = (ROOT / "recipes" / task / "partners" / "pool.yaml").read_text()
    trained = {f"runs/study/{task}/{cell.name}" for cell in study.pool_cells(task)}
    named = set(re.findall(r"(runs/study/\w+/ippo-seed\d+)/", pool))
    assert named == {f"runs/study/{task}/ippo-seed{seed}" for seed in study.POOL_SEEDS} == trained
    assert not set(study.POOL_SEEDS) & set(study.TASK_SEEDS)
    saved = int(read_recipe(f"{task}/ippo")["save_steps"])
    assert {int(step) % saved for step in re.findall(r"checkpoint-(\d+)/", pool)} == {0}


def test_a_tasks_report_has_differences_cross_play_deeds_and_costs(tmp_path: Path) -> None:
    records, crossed, lines = [], [], []
    for arm, solved in (("ippo", 1), ("srpo", 3)):
        for seed in SEEDS:
            run, other = f"kitchen/{arm}-seed{seed}", f"kitchen/{arm}-seed{3 - seed}"
            for seat, partner in itertools.product(("a", "b"), ("self-play", "waiter", other)):
                record = Record(
                    run, arm, seat, partner, "sampled", 4, solved / 4, (0.0, 1.0), 1.0,
                    8.0 if (arm, seed) == ("srpo", 2) else 7.0, 40.0, 1.0,
                    metrics={"deliveries": 2.5},
                )  # fmt: skip
                (crossed if partner == other else records).append(record)
                lines += [
                    {"run": run, "seat": seat, "partner": partner, "decoding": "sampled", "problem": str(i),
                     "solved": i < solved, "turns": []} for i in range(4)
                ]  # fmt: skip
            folder = tmp_path / f"{arm}-seed{seed}"
            folder.mkdir()
            step = {"time/generate": 1.0, "time/score": 1.0, "time/train": 2.0, "time/sync": 0.0}
            (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": n, **step}) + "\n" for n in (1, 2)))
    summary = Summary(tuple(records), {}, cross_play=tuple(crossed))
    write_results(tmp_path / "eval", summary, map(EvaluatedEpisode.read, lines))
    text = study_report.write_task(tmp_path, "kitchen")
    assert (tmp_path / "study.md").read_text() == text
    assert text.count("sampled | +0.50 | +0.50 [") == 2  # 3/4 - 1/4, with strangers and in self-play
    assert re.search(r"\| ippo \| +2 \| 0\.25.* \| 0\.25", text)  # self-play, and across its two seeds
    assert "| deliveries | 2.50, 2.50 | 2.50, 2.50 |" in text
    assert "| waiter: share of problems solved | 0.25, 0.25 | 0.75, 0.75 |" in text
    assert "| all: own return | 7.00, 7.00 | 7.00, 8.00 |" in text
    # 0 and 1 more: mean 0.5, standard error 0.5, 12.71 of them to either side.
    assert "| all: own return - ippo's | - | +0.50 [-5.85, +6.85] |" in text
    assert "| srpo | 2 | 4.0 | 25% | 25% | 50% | 0% |" in text


def test_every_cells_recipe_and_flags_can_be_used(tmp_path: Path) -> None:
    others = [cell for task in study.TASKS for cell in (*study.pool_cells(task), *study.task_cells(task))]
    cells = [*study.arm_cells(), *study.baseline_cells(), *study.sweep_cells(), *study.game_cells()]
    tuning = [trial.cell for trial in study_tuning.trials()]
    for part in (cells, others, study.population_cells(), tuning):
        steps = check_cells(part, tmp_path)
        assert all(steps.values())
    assert len({cell.name for cell in cells}) == len(cells) == 10 + 41 + 9 + 24


def test_the_worksheets_options_do_not_go_with_another_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        study.main(["--out", str(tmp_path), "--task", "kitchen", "--seeds", "2"])
    assert "over seeds 1, 2, 3" in capsys.readouterr().err
