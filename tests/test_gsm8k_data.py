"""GSM8K's problems: how data is read, split and refused, and which options there are."""

import json
import math
from itertools import chain
from pathlib import Path

import pytest
from gsm8k_support import made_up_rows, write_data

from tasks.gsm8k import GSM8K
from tasks.gsm8k import data as gsm8k_data
from tasks.gsm8k.data import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"), made_up_rows(30), made_up_rows(7, start=1000))


@pytest.fixture
def task(folder: str) -> GSM8K:
    return GSM8K(data_path=folder, protocol="relay")


def test_splits_are_disjoint_and_stable(folder: str, tmp_path: Path) -> None:
    task = GSM8K(data_path=folder, validation=10)
    ids = {split: [problem.id for problem in task.problems(split)] for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in ids.items()} == {"train": 20, "dev": 10, "test": 7}
    assert len(set(chain(*ids.values()))) == 37
    backwards = GSM8K(
        data_path=write_data(tmp_path, made_up_rows(30)[::-1], made_up_rows(7, start=1000)), validation=10
    )
    for split, found in ids.items():
        assert {problem.id for problem in backwards.problems(split, seed=5)} == set(found)
    assert {problem.id for problem in GSM8K(data_path=folder, validation=5).problems("dev")} < set(ids["dev"])


def test_a_seed_chooses_and_orders_problems(folder: str) -> None:
    task = GSM8K(data_path=folder, validation=10)
    assert task.problems("train", 5, seed=1) == task.problems("train", seed=1)[:5]
    assert task.problems("train", seed=1) != task.problems("train", seed=2)
    assert len(task.problems("train", 1000)) == 20
    json.dumps([problem.data for problem in task.problems("train")])


def test_references_are_read_as_answers_are(folder: str) -> None:
    problem = GSM8K(data_path=folder, validation=1).problems("test", 1)[0]
    marbles = int(problem.data["question"].split()[2])
    assert problem.data["answer"] == str(2 * marbles)  # "#### 2,000" in the file


def test_long_questions_are_left_out_without_moving_the_splits(folder: str) -> None:
    task, all_of_them = (
        GSM8K(data_path=folder, validation=10, max_question_chars=70),
        GSM8K(data_path=folder, validation=10),
    )
    for split in ("train", "dev"):
        short = [problem for problem in all_of_them.problems(split) if len(problem.data["question"]) <= 70]
        assert 0 < len(short) < len(all_of_them.problems(split))
        assert {problem.id for problem in task.problems(split)} == {problem.id for problem in short}
    with pytest.raises(DataError, match="max_question_chars"):
        GSM8K(data_path=folder, validation=10, max_question_chars=3).problems("train")


def test_a_question_that_stands_twice_is_one_problem(tmp_path: Path) -> None:
    task = GSM8K(data_path=write_data(tmp_path, made_up_rows(5) * 2, made_up_rows(2, start=50)), validation=1)
    assert len(task.problems("train")) == 4


def test_nothing_is_read_before_it_is_needed_and_then_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = gsm8k_data._from_files
    monkeypatch.setattr(gsm8k_data, "_from_files", lambda paths: read.append(paths[0].name) or real(paths))
    task = GSM8K(data_path=folder, validation=5)
    assert read == []
    for split in ("train", "dev", "train", "test", "test"):
        task.problems(split)
    assert read == ["train.jsonl", "test.jsonl"]


def test_missing_data_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder.*nowhere.*train\.jsonl and test\.jsonl"):
        GSM8K(data_path=str(tmp_path / "nowhere"))
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"no test\.jsonl in it.*expected a folder with train\.jsonl"):
        GSM8K(data_path=str(tmp_path))


@pytest.mark.parametrize(
    "row", [{"question": "How many?"}, {"question": 5, "answer": "#### 5"}, {"question": "How many?", "answer": "5"}]
)
def test_a_row_of_another_form_is_named(tmp_path: Path, row: dict[str, object]) -> None:
    task = GSM8K(data_path=write_data(tmp_path, made_up_rows(3), [row]), validation=1)
    with pytest.raises(DataError, match=r"test, row 1: expected one problem per line"):
        task.problems("test")


def test_a_file_that_is_not_jsonl_is_named(tmp_path: Path) -> None:
    write_data(tmp_path, made_up_rows(3), made_up_rows(3))
    (tmp_path / "train.jsonl").write_text("question,answer\nHow many?,5\n")
    with pytest.raises(DataError, match=r"cannot read .*train\.jsonl: expected one problem per line"):
        GSM8K(data_path=str(tmp_path), validation=1).problems("train")


def test_a_hub_out_of_reach_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(gsm8k_data, "load_dataset", offline)
    with pytest.raises(DataError, match=r"cannot load openai/gsm8k from the hub: no network.*data_path"):
        GSM8K().problems("train")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"turns": 1}, ValueError),
        ({"turns": 2.0}, TypeError),
        ({"turns": True}, TypeError),
        ({"validation": 0}, ValueError),
        ({"max_question_chars": 0}, ValueError),
        ({"cost_per_token": -0.1}, ValueError),
        ({"cost_per_token": math.nan}, ValueError),
        ({"cost_per_token": "0.1"}, TypeError),
        ({"data_path": 3}, TypeError),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"`{next(iter(options))}`"):
        GSM8K(**options)  # type: ignore[arg-type]


def test_splits_that_cannot_be_had_are_refused(task: GSM8K) -> None:
    with pytest.raises(DataError, match="`validation` must be below the 30 problems"):  # 500 by default
        task.problems("train")
