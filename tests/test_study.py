"""The study's report, on made-up evaluations whose differences are known."""

import re
from pathlib import Path

import pytest

from benchmarks import study, study_report
from benchmarks.study import Cell
from eval.results import merge, read_results
from llm_sra.evaluation import Record, write_results

PARTNERS = ("self-play", "lazy", "late", "saboteur")
SEEDS = (1, 2)


def write(out: Path, arm: str, seed: int, which: str, solved: int) -> None:
    """An evaluation in which the first `solved` of 4 problems are solved with everyone."""
    run = f"study/{arm}-seed{seed}" + ("@checkpoint-1" if which == "best" else "")
    keys = [(seat, partner, how) for seat in ("a", "b") for partner in PARTNERS for how in ("greedy", "sampled")]
    records = [
        Record(run, arm, seat, partner, how, 4, solved / 4, (0.0, 1.0), solved / 4, solved / 4, 1.0, 1.0)
        for seat, partner, how in keys
    ]
    episodes = [
        {"run": run, "seat": seat, "partner": partner, "decoding": how, "problem": str(i), "solved": i < solved}
        for seat, partner, how in keys
        for i in range(4)
    ]
    write_results(out / "eval" / f"{arm}-seed{seed}@{which}", records, episodes, {})


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """SRPO solves one problem of four more than IPPO with seed 1, two more with seed 2."""
    for which in study.WHICH:
        for seed in SEEDS:
            write(tmp_path, "ippo", seed, which, solved=1)
            write(tmp_path, "srpo", seed, which, solved=1 + seed)
    return tmp_path


def test_the_report_shows_the_paired_difference_and_every_seed(evaluated: Path) -> None:
    names = [f"{arm}-seed{seed}" for seed in SEEDS for arm in ("ippo", "srpo")]
    text = study_report.write_report(evaluated, names, ["srpo-seed1@end", "ippo-seed2@best"])
    # (2/4 - 1/4) and (3/4 - 1/4): +0.25 and +0.50, on average +0.375
    assert re.search(r"\| mean over seats and strangers \| sampled \| \+0\.3[78] .* \+0\.25, \+0\.50 \|", text)
    assert all(f"{arm}-seed{seed} " in text for arm in ("ippo", "srpo") for seed in SEEDS)
    sweep = text.split("## SRPO over")[1]
    assert "srpo-seed1 " in sweep and "ippo-seed2@checkpoint-1 " in sweep and "srpo-seed2" not in sweep
    assert (evaluated / "study.md").read_text() == text
    assert (evaluated / "study.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_are_paired_by_number_also_for_chosen_checkpoints(evaluated: Path) -> None:
    parts = [read_results(folder) for folder in sorted((evaluated / "eval").glob("*@best"))]
    assert study_report._by_seed(merge(parts), "srpo") == {
        1: "study/srpo-seed1@checkpoint-1",
        2: "study/srpo-seed2@checkpoint-1",
    }


def test_arms_differ_in_nothing_but_arm_and_the_adversary() -> None:
    from llm_sra.trainer.parse import read_recipe

    ippo, srpo = (read_recipe(study.RECIPES / f"{arm}.yaml") for arm in ("ippo", "srpo"))
    differ = {key for key in ippo.keys() | srpo.keys() if ippo.get(key) != srpo.get(key)}
    assert differ == {"arm", "output_dir", "tau", "adversary_entropy_coef", "adversary_learning_rate"}


def test_a_finished_cell_is_neither_trained_nor_evaluated_again(evaluated: Path, monkeypatch) -> None:
    (evaluated / "ippo-seed1" / "adapters").mkdir(parents=True)
    monkeypatch.setattr(study, "_run", lambda *args: pytest.fail("it was run again"))
    cell = Cell("ippo-seed1", "worksheet/ippo", {"seed": 1})
    study.train(cell, evaluated)
    study.evaluate(cell.name, "end", evaluated, problems=4)
