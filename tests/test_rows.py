"""An evaluation's records as a flat table."""

import csv
from dataclasses import replace
from pathlib import Path

import datasets
from report_support import evaluated, run_folder

from eval.rows import rows, write_rows
from llm_sra.evaluation.results import Results, read_results


def results_of(tmp_path: Path) -> Results:
    run = run_folder(tmp_path / "q" / "ippo", "ippo")
    evaluated(tmp_path / "eval", run, 1)
    found = read_results(tmp_path / "eval")
    first, *others = found.records
    crossed = replace(first, partner="q/srpo", metrics={"lines": 2.0})
    return replace(found, records=(first, *others), cross_play=(crossed,))


def test_a_row_for_each_record_with_all_columns(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    made = rows(results)
    assert len(made) == len(results.records) + 1
    assert made[1]["partner"] == "lazy" and made[1]["solve_rate"] == 0.25 and made[1]["lines"] is None
    assert (made[1]["low"], made[1]["high"]) == results.records[1].solve_rate_ci95
    assert made[-1]["with_run"] and made[-1]["partner"] == "q/srpo" and made[-1]["lines"] == 2.0
    assert not any(row["with_run"] for row in made[:-1])


def test_both_files_hold_the_rows(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    write_rows(results, tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["partner"] for row in read] == [row["partner"] for row in rows(results)]
    assert float(read[1]["solve_rate"]) == 0.25 and read[1]["lines"] == ""
    assert datasets.Dataset.from_parquet(str(tmp_path / "results.parquet")).to_list() == rows(results)


def test_datasets_opens_the_episodes(tmp_path: Path) -> None:
    results_of(tmp_path)
    opened = datasets.load_dataset(
        "json", data_files=str(tmp_path / "eval" / "episodes.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(opened) == 2 * 3 * 4 and set(opened["partner"]) == {"self-play", "lazy", "diligent"}
