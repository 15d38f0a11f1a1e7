"""Options of an evaluation: other conditions than in training, runs that cannot be compared, and bad input."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from evaluation_support import SHORT, pick, roster, scripted
from support import (
    make_run,
)

from llm_sra import evaluate
from llm_sra.evaluation.options import EvaluationKeywords, EvaluationOptions
from llm_sra.models.adapters import AdapterError
from llm_sra.runs import Run, RunError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents on the worksheet that write nonsense."""
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", **SHORT)


def test_options_of_the_task_may_be_others_than_those_of_training(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    dear = make_run(tmp_path / "study" / "dear", task_args={"cost": 0.3, "turns": 4}, **SHORT)
    played = evaluate([dear], path, tmp_path / "out", problems=2, decodings=["greedy"], task_args={"cost": 0.5})
    # The agent writes a wrong line at each of its two turns of four: the option that is not named is the run's own.
    assert pick(played, seat="first", partner="lazy").own_return == pytest.approx(-1.0)
    settings = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]
    assert settings["task_args"] == {"cost": 0.5}
    evaluate([run], path, tmp_path / "own", problems=1, decodings=["greedy"])
    assert set(json.loads((tmp_path / "own" / "results.json").read_text())["settings"]) == {
        "split",
        "seed",
        "roster",
        "idle",
    }


def test_episodes_of_another_world_are_kept_apart_and_played_once(run: Run, tmp_path: Path) -> None:
    path, out = roster(tmp_path, *scripted("lazy")), tmp_path / "out"

    def kept(task_args: Mapping[str, Any] | None) -> int:
        evaluate([run], path, out, problems=2, decodings=["greedy"], task_args=task_args)
        return sum(len(file.read_text().splitlines()) for file in (out / "store").glob("*.jsonl"))

    # self-play and lazy in either seat, two problems each: 6 episodes of each world
    assert [kept(None), kept({"cost": 0.5}), kept({"cost": 0.5}), kept({}), kept(None)] == [6, 12, 12, 12, 12]


def test_runs_of_unlike_worlds_compare_in_one_world(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    short = make_run(tmp_path / "study" / "short", task_args={"turns": 4, "cost": 0.3}, **SHORT)
    same = {"turns": 4, "cost": 0.2}
    played = evaluate([run, short], path, problems=1, decodings=["greedy"], task_args=same)
    assert {record.effort_own for record in played if record.partner == "lazy"} == {2}
    with pytest.raises(RunError, match="cannot be compared: their task_args"):
        evaluate([run, short], path, task_args={"turns": 4})  # the cost is still another


def test_options_that_the_task_does_not_have_or_that_change_the_seats_are_refused(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    with pytest.raises(ValueError, match="'runner'; for task_args, its options are: numbers, low, high"):
        evaluate([run], path, tmp_path / "out", task_args={"runner": "random"})
    four = make_run(tmp_path / "study" / "four", task="hanabi", **SHORT)
    with pytest.raises(RunError, match=r"has agents for the seats .*, but with .*'players': 2.* the task has"):
        evaluate([four], None, tmp_path / "out", task_args={"players": 2}, cross_play=False)
    assert not (tmp_path / "out").exists()


# -- runs that cannot be compared, and other bad input ---------------------------------------------------------------


def test_runs_that_do_not_compare_are_refused(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    longer = make_run(tmp_path / "study" / "longer", max_completion_length=8)
    bigger = make_run(tmp_path / "study" / "bigger", task_args={"numbers": 4}, **SHORT)
    twin = make_run(tmp_path / "elsewhere" / "study" / "one", **SHORT)
    for runs, message in (
        ([run, longer], "cannot be compared: their max_completion_length is 4 and 8"),
        ([run, bigger], "cannot be compared: their task_args"),
        ([run, twin], "study/one"),
        ([run, run], "study/one"),
        ([], "no run to evaluate"),
    ):
        with pytest.raises(RunError, match=message):
            evaluate(runs, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_not_finished_is_refused(tmp_path: Path) -> None:
    unfinished = make_run(tmp_path / "study" / "unfinished")
    unfinished.adapters.rename(tmp_path / "gone")
    with pytest.raises(AdapterError, match="holds no adapter"):
        evaluate([unfinished], roster(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decodings": ["gredy"]}, "unknown decoding 'gredy'; did you mean 'greedy'"),
        ({"problems": 0}, "no problems to play: asked for 0 of the test split"),
        ({"split": "tests"}, "split must be one of"),
        ({"problms": 3}, "unknown option of evaluate 'problms'; did you mean 'problems'"),
        ({"engine": "vlm"}, "unknown engine 'vlm'; did you mean 'vllm'"),
    ],
)
def test_options_that_make_no_evaluation_are_refused(
    run: Run, tmp_path: Path, options: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate([run], roster(tmp_path), **options)


def test_the_keywords_of_evaluate_are_the_fields_of_its_options() -> None:
    assert get_type_hints(EvaluationKeywords) == get_type_hints(EvaluationOptions)
