"""What TensorBoard, trackio and wandb are told of a training is what `metrics.jsonl` has, under the same names."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_support import train_tiny
from transformers.integrations import integration_utils

from llm_sra.trainer.config import SRPOConfig

# transformers gives wandb and trackio these once, beside the curves or not at all.
ONCE = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
STUB = """
from types import SimpleNamespace
__version__ = "0"
run, logged, started = None, [], []
class Config(dict):
    def update(self, values, allow_val_change=False):
        pass
config, summary = Config(), {}
context_vars = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))
def init(**options):
    global run
    started.append(options)
    run = SimpleNamespace(_label=lambda **_: None, id="0", name="stub", url="")
    run.summary = summary
def log(values):
    logged.append(values)
def define_metric(*args, **kwargs):
    pass
def finish():
    pass
def termwarn(*args, **kwargs):
    pass
"""


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def reported(line: dict[str, Any]) -> dict[str, Any]:
    """A line under the names of transformers' reporters: `eval_x` is eval/x, all else is train/..."""
    numbers = {key: value for key, value in line.items() if key != "step"}
    return {
        f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}": value
        for key, value in numbers.items()
    }


@pytest.fixture
def stub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in a reporter's place that keeps what it is told."""
    name = request.param
    errors = tmp_path / "stubs" / name / "sdk" / "lib"
    errors.mkdir(parents=True)
    (tmp_path / "stubs" / name / "__init__.py").write_text(STUB)
    for folder in (errors.parent, errors):
        (folder / "__init__.py").write_text("")
    (errors / "config_util.py").write_text("class ConfigError(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "stubs"))
    monkeypatch.setattr(integration_utils, f"is_{name}_available", lambda: True)
    yield __import__(name)
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.mark.parametrize("stub", ["wandb", "trackio"], indirect=True)
def test_trackio_and_wandb_get_the_numbers_of_metrics_jsonl_under_their_names(stub: Any, tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "study" / "tiny", arm="srpo", tau=1.0, report_to=stub.__name__)
    expected = [
        {**reported({key: value for key, value in line.items() if key not in ONCE}), "train/global_step": line["step"]}
        for line in lines_of(run.path)
    ]
    assert stub.logged == expected and len(expected) == 3
    assert {"train/solve_rate", "train/policy/adversary-of-left/kl_to_partner"} <= set(stub.logged[0])
    assert [options["name"] for options in stub.started] == ["study/tiny"] == [run.name]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_finds_the_numbers_of_metrics_jsonl_in_the_run_folder(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "runs" / "tiny", arm="srpo", tau=1.0, report_to="tensorboard")
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in lines_of(run.path):
        for name, value in reported(line).items():
            expected.setdefault(name, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    expected.pop("train/total_flos")  # always 0, and taken away by the callback that prints
    assert scalars(run.path / "logs") == expected and "train/solve_rate" in expected
    folders = {path.parent.relative_to(tmp_path / "runs") for path in tmp_path.rglob("events.*")}
    assert folders == {Path("tiny/logs")}  # the name that `tensorboard --logdir runs` shows


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    options = {"report_to": "tensorboard", "save_strategy": "steps", "save_steps": 2}
    train_tiny(tmp_path / "run", max_steps=3, **options)
    run = train_tiny(tmp_path / "run", max_steps=4, resume_from_checkpoint=True, **options)
    assert len(list((run.path / "logs").iterdir())) == 2
    assert [step for step, _ in scalars(run.path / "logs")["train/solve_rate"]] == [1, 2, 3, 4]


def test_another_folder_for_tensorboard_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    run = train_tiny(tmp_path / "run", max_steps=1, report_to="tensorboard")
    assert "train/solve_rate" in scalars(tmp_path / "board") and not (run.path / "logs").exists()


def test_a_reporter_that_is_not_installed_is_said_with_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trackio, which is not installed: pip install trackio$"):
        SRPOConfig(output_dir=str(tmp_path), report_to="trackio", use_cpu=True, bf16=False)
