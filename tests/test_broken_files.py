"""Broken files of runs and results: one line that names the file, in whatever way it is broken; never a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_support import evaluated, run_folder
from rich.console import Console

from llm_sra.evaluation.records import Record, Summary
from llm_sra.evaluation.results import write_results
from llm_sra.evaluation.settings import task_of
from llm_sra.exporting.cards import find_evaluation
from llm_sra.files import to_json
from llm_sra.runs import Run, read_environment
from recipes.commands import report
from recipes.commands.watch import watch
from recipes.terminal import run_command

NAN, DEEP = float("nan"), b"[" * 100_000
NOT_JSON = {"empty": b"", "torn": b'{"records": [', "binary": b"\xff\xfe\x00\x01", "deep": DEEP, "a list": b"[]"}
NOT_JSON |= {"a number": b"1", "null": b"null", "text": b'"records"'}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = run_folder(tmp_path_factory.mktemp("whole") / "q" / "ippo-seed1", "ippo", max_steps=5, num_train_epochs=1)
    evaluated(run.path / "report", run, solved=2)
    (run.path / "environment.json").write_text(json.dumps({"packages": {"torch": "2"}, "python": "3.11"}))
    (run.path / "episodes").mkdir()
    [line, *_] = (run.path / "report" / "episodes.jsonl").read_text().splitlines()
    (run.path / "episodes" / "step-000001.jsonl").write_text(line + "\n")
    return run.path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "q" / whole.name))


def refused(folder: Path, file: str, capsys: pytest.CaptureFixture[str], command: Callable[[], Any]) -> None:
    """See that a command ends with one line that names the file."""
    capsys.readouterr()
    assert run_command(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and file in lines[0] and len(lines[0]) < 2500, lines


def reported(folder: Path) -> Callable[[], Any]:
    return lambda: report.main([str(folder), "--out", str(folder / "page")])


def changed(path: Path, *keys: Any, value: Any, line: int | None = None) -> None:
    """Set a value deep in a JSON file, or in a line of one."""
    lines = path.read_text().splitlines()
    whole = json.loads(lines[line] if line is not None else path.read_text())
    place = whole
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    if line is None:
        path.write_text(json.dumps(whole))
    else:
        path.write_text("".join(text + "\n" for text in [*lines[:line], json.dumps(whole), *lines[line + 1 :]]))


RECORD: list[tuple[str, Any]] = [
    ("run", 1), ("arm", None), ("seat", ["first"]), ("partner", {}), ("decoding", 0), ("n", "4"), ("n", 2.5),
    ("solve_rate", "0.5"), ("solve_rate", NAN), ("solve_rate", None), ("solve_rate_ci95", [0.1]),
    ("solve_rate_ci95", None), ("solve_rate_ci95", ["a", "b"]), ("team_reward", []), ("own_return", "x"),
    ("effort_own", {}), ("effort_partner", True and "y"), ("metrics", [1]), ("metrics", {"x": "y"}),
    ("metrics", {"x": NAN}),
]  # fmt: skip


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_results_that_are_no_json_object(folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "report" / "results.json").write_bytes(content)
    refused(folder, "results.json", capsys, reported(folder))
    with pytest.raises(ValueError, match=r"results\.json"):  # as the export reads them
        find_evaluation(Run.open(folder), None)


@pytest.mark.parametrize(("key", "value"), RECORD)
def test_a_record_with_a_value_of_another_kind(
    folder: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(folder / "report" / "results.json", "records", 0, key, value=value)
    refused(folder, "results.json", capsys, reported(folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [("records", {}), ("records", [1]), ("records", None), ("records", 3), ("settings", []), ("settings", "x"),
     ("missing", [1]), ("missing", [{"partner": 1, "reason": "x"}]), ("missing", [{}]), ("cross_play", [{}]),
     ("teams", [{}]), ("teams", 1), ("best_responses", [1]), ("best_responses", {"task": "worksheet"})],
)  # fmt: skip
def test_results_with_a_part_of_another_kind(
    folder: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(folder / "report" / "results.json", key, value=value)
    refused(folder, "" if value == {} else "results.json", capsys, reported(folder))


EPISODE: list[tuple[str, Any]] = [
    ("run", 1), ("seat", None), ("partner", []), ("problem", {}), ("problem", None), ("solved", "yes"),
    ("solved", None), ("effort", []), ("effort", {"first": "x"}), ("effort", {"first": NAN}), ("metrics", 3),
    ("turns", 3), ("effort", {"first": 10**400}),
    ("turns", [{}]), ("turns", [{"seat": "first", "step": 0, "text": 5}]), ("turns", ["hm"]),
    ("turns", [{"seat": "first", "step": "x", "text": ""}]), ("turns", [[]]), ("policies", [1]), ("rewards", []),
    ("rewards", {"first": [[1, 2, 3, 4]]}), ("rewards", {"first": [["a", 0, 0]]}), ("rewards", {"first": 1}),
    ("match", 1), ("index", "0"), ("returns", {"first": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), EPISODE)
def test_an_episode_with_a_value_of_another_kind(
    folder: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(folder / "report" / "episodes.jsonl", key, value=value, line=1)
    refused(folder, "episodes.jsonl, line 2", capsys, reported(folder))
    if key in ("run", "seat", "partner"):
        return
    changed(folder / "episodes" / "step-000001.jsonl", key, value=value, line=0)
    refused(folder, "step-000001.jsonl", capsys, lambda: watch(folder, Console(), once=True))


@pytest.mark.parametrize("content", [DEEP, b"[]", b"1", b"{}", b'{"run": "x"}', b"\xff\xfe", b"{"])
def test_a_line_of_episodes_that_holds_none(folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "report" / "episodes.jsonl"
    path.write_bytes(content + b"\n" + path.read_bytes())
    refused(folder, "episodes.jsonl, line 1", capsys, reported(folder))


@pytest.mark.parametrize("step", [None, "x", [], NAN, -1, {}])
def test_a_line_of_metrics_without_a_step(folder: Path, step: Any, capsys: pytest.CaptureFixture[str]) -> None:
    changed(folder / "metrics.jsonl", "step", value=step, line=1)
    refused(folder, "metrics.jsonl, line 2", capsys, reported(folder))
    refused(folder, "metrics.jsonl", capsys, lambda: watch(folder, Console(), once=True))


@pytest.mark.parametrize("content", [b"\xff\xfe\n", DEEP + b"\n", b'{"step": 3\n', b"[]\n", b"\n"])
def test_what_a_kill_leaves_of_a_line_of_metrics_is_passed_over(folder: Path, content: bytes) -> None:
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + content)
    assert run_command(reported(folder)) == 0
    watch(folder, Console(), once=True)


@pytest.mark.parametrize(
    "value", [None, "x", [], {}, NAN, 10**400], ids=["none", "text", "list", "object", "nan", "huge"]
)
def test_a_metric_that_is_no_number_is_no_point_of_a_curve(folder: Path, value: Any) -> None:
    changed(folder / "metrics.jsonl", "play/first/first/return", value=value, line=1)
    changed(folder / "metrics.jsonl", "epoch", value=value, line=1)
    assert run_command(reported(folder)) == 0
    watch(folder, Console(), once=True)


CONFIGS = {
    "empty": "", "a list": "[]", "no heroes": "arguments: {arm: ippo}", "not yaml": "a: [", "binary": "\x00",
    "heroes a list": "{arguments: {arm: ippo, task: x}, heroes: [1]}", "no hero": "{arguments: {arm: x}, heroes: {}}",
    "heroes of numbers": "{arguments: {arm: ippo, task: x}, heroes: {first: 1}}",
    "arguments a list": "{arguments: [arm], heroes: {first: first}}",
    "arguments text": "{arguments: arm, heroes: {first: first}}",
    "an arm of numbers": "{arguments: {arm: [1], task: x}, heroes: {first: first}}",
    "a task of numbers": "{arguments: {arm: ippo, task: 3}, heroes: {first: first}}",
    "steps of text": "{arguments: {arm: ippo, task: x, max_steps: ten}, heroes: {first: first}}",
    "no arm": "{arguments: {task: worksheet, max_steps: 5}, heroes: {first: first}}",
}  # fmt: skip


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_that_no_training_wrote(folder: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yaml").write_text(content)
    for command in (reported(folder), lambda: watch(folder, Console(), once=True)):
        refused(folder, "config.yaml", capsys, command)


def test_an_argument_that_a_run_lacks_is_named_with_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "config.yaml").write_text("{arguments: {arm: ippo, task: worksheet}, heroes: {first: first}}")
    refused(folder, "config.yaml has no task_args", capsys, lambda: task_of([Run.open(folder)]))
    refused(folder, "config.yaml has no model_name", capsys, lambda: Run.open(folder).config["model_name_or_path"])


@pytest.mark.parametrize("content", [*NOT_JSON.values(), b'{"packages": []}', b'{"packages": "torch"}'])
def test_an_environment_that_no_training_wrote(
    folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "environment.json").write_bytes(content)
    refused(folder, "environment.json", capsys, lambda: read_environment(folder))


def test_results_hold_no_nan_and_earlier_ones_stay_if_some_is_to_be_written(tmp_path: Path) -> None:
    def summary(metrics: dict[str, float]) -> Summary:
        share = (0.5, (0.1, 0.9))
        return Summary((Record("r", "ippo", "first", "lazy", "greedy", 2, *share, 0.5, 0.5, 1.0, 1.0, metrics),), {})

    write_results(tmp_path, summary({"x": 1.0}), [])
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(ValueError, match=r"^records\.0\.metrics\.x is nan"):
        write_results(tmp_path, summary({"x": NAN}), [])
    assert (tmp_path / "results.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"^a\.1\.b is inf"):
        to_json({"a": [0, {"b": float("inf")}]})
