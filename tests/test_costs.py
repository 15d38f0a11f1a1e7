"""The table of what recipes take, from runs whose figures are known."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import costs
from llm_sra.registry import shipped_recipes
from llm_sra.trainer.speed import Speed

SPEED = Speed(80, 80, 6.123, 0.1421, 533.3, 1.24, None, 1, "a processor, 2 cores", True)


def run_of(tmp_path: Path, recipe: str, speed: Speed) -> Path:
    run = tmp_path / recipe
    run.mkdir(parents=True)
    (run / "speed.json").write_text(json.dumps(asdict(speed)))
    return run


def test_a_whole_run_is_measured_and_a_short_one_is_estimated(tmp_path: Path) -> None:
    short = Speed(8, 8, 3.0, 0.01, None, 1.0, 41.26, 2, "a GPU", True)
    runs = [run_of(tmp_path, "worksheet/srpo", SPEED), run_of(tmp_path, "worksheet/ippo", short)]
    text = costs.table(costs.of_runs(runs))
    assert "| `worksheet/srpo` | 6.12 | 0.14 | 533 | 1.2 |  | measured on a processor, 2 cores |" in text
    # 8 steps took 0.01 h, so 80 take 0.1 h.
    assert "| `worksheet/ippo` | 3 | 0.1 |  | 1.0 | 41.3 | estimated from 8 steps on a GPU, 2 processes |" in text
    assert text.endswith(f"Not measured: {len(shipped_recipes()) - 2} recipes.\n")


def test_a_run_of_no_recipe_or_without_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of no shipped recipe"):
        costs.of_runs([run_of(tmp_path, "mine", SPEED)])
    (tmp_path / "worksheet" / "srpo").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has no speed\.json"):
        costs.of_runs([tmp_path / "worksheet" / "srpo"])


def test_the_pages_table_is_replaced_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = costs.PAGE.read_text()
    page = tmp_path / "recipes.md"
    page.write_text(before)
    monkeypatch.setattr(costs, "PAGE", page)
    costs.main([str(run_of(tmp_path, "worksheet/srpo", SPEED)), "--write"])
    assert capsys.readouterr().out in page.read_text()
    for text in (before, page.read_text()):
        assert text.count(costs.BEGIN) == text.count(costs.END) == 1
    outside = [text.split(costs.BEGIN)[0] + text.split(costs.END)[1] for text in (before, page.read_text())]
    assert outside[0] == outside[1]
