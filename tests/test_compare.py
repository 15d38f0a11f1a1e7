"""`llm-sra compare` with a tiny model: two arms over two seeds, a kill in the middle, and the commands it prints."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support import ROOT
from training_support import weights

from llm_sra.evaluation.results import read_results
from llm_sra.runs import read_metrics
from recipes.cli import main

FIELDS = {
    "task": "worksheet", "model_name_or_path": "worksheet/pupil", "max_steps": 3, "problems_per_step": 4,
    "num_generations": 2, "max_completion_length": 12, "lora_r": 2, "lora_alpha": 4, "use_cpu": True, "bf16": False,
    "gradient_checkpointing": False, "learning_rate": 0.01, "save_strategy": "steps", "save_steps": 1,
    "report_to": "none",
}  # fmt: skip
NAMES = ["ippo-seed1", "srpo-seed1", "ippo-seed2", "srpo-seed2"]


def asked(home: Path, *more: str, seeds: str = "1 2") -> list[str]:
    recipe = home / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(FIELDS))
    words = ["compare", "--config", str(recipe), "--arms", "ippo", "srpo", "--seeds", *seeds.split()]
    return [*words, "--roster", "worksheet_dev", "--problems", "2", "--out", str(home / "out"), *more]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two arms over two seeds were compared; what was shown is in `shown`."""
    home = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patched, (home / "shown").open("w") as shown:
        patched.setattr("sys.stdout", shown)
        assert main(asked(home, "--jobs", "2")) == 0
    return home


def test_every_cell_is_trained_played_with_the_roster_and_each_other_and_reported(home: Path) -> None:
    results = read_results(home / "out" / "eval")
    assert results.runs == tuple(f"out/{name}" for name in NAMES)
    assert results.partners and {(r.run, r.partner) for r in results.cross_play} == {
        (a, b) for a in results.runs for b in results.runs if a != b
    }
    for name in NAMES:
        config = yaml.safe_load((home / "out" / name / "config.yaml").read_text())["arguments"]
        assert f"{config['arm']}-seed{config['seed']}" == name
        assert json.loads((home / "out" / name / "speed.json").read_text())["measured"] == 3
    assert (home / "out" / "report" / "report.html").is_file()


def test_the_plan_comes_first_and_the_end_is_short(home: Path) -> None:
    lines = (home / "shown").read_text().splitlines()
    assert lines[0] == f"4 trainings in {home}/out (ippo, srpo), 2 at a time:"
    assert lines[1:5] == [f"  {name}: to train" for name in NAMES]
    assert lines[5] == "Then they play with the partners of worksheet_dev and each other."
    begun = next(index for index, line in enumerate(lines) if line.startswith("Playing"))
    trained = [line for line in lines[:begun] if line.startswith("trained: ")]
    assert len(trained) == 4 and "; 3 of 4 left, about " in trained[0]
    end = lines[begun + 1 :]
    assert len(end) <= 25 and max(map(len, end[:-6])) <= 100
    places = [line.split()[1] for line in end if line.startswith("  ") and str(home) in line][:4]
    assert len(places) == 4 and all(Path(place).exists() for place in places)


def test_what_is_there_is_kept_and_another_seed_is_added(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "out").glob("*/adapters/**/*")}
    assert main(asked(home)) == 0
    shown = capsys.readouterr().out
    assert shown.count(": finished, kept") == 4 and "trained: " not in shown
    assert f"Played before, kept: {home}/out/eval" in shown
    assert {path: path.stat().st_mtime_ns for path in (home / "out").glob("*/adapters/**/*")} == before


def test_other_settings_in_the_same_folder_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(home, "--tau", "3")) == 2
    assert "was trained with other settings (tau 10, now 3)" in capsys.readouterr().err


def test_the_printed_commands_make_the_same(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(asked(tmp_path, "--print", seeds="2")) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [words[1] for words in commands] == ["train", "train", "eval", "report"]
    for words in commands:
        assert words[0] == "llm-sra" and main(words[1:]) == 0
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    capsys.readouterr()
    assert main(asked(tmp_path, seeds="2")) == 0
    assert capsys.readouterr().out.count(": finished, kept") == 2  # trained by hand, and known for what they are
    for name in ("ippo-seed2", "srpo-seed2"):
        ours, theirs = (weights(folder / "out" / name / "adapters") for folder in (home, tmp_path))
        assert all((ours[agent][key] == theirs[agent][key]).all() for agent in ours for key in ours[agent])


@pytest.mark.slow
def test_a_killed_cell_goes_on_from_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*asked(tmp_path, "--train_only", "--max_steps", "6", seeds="1"), "--jobs", "1"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen([sys.executable, "-m", "llm_sra", *words], env=env, stdout=subprocess.DEVNULL)
    first = tmp_path / "out" / "ippo-seed1"
    deadline = time.monotonic() + 240
    while (
        not (first / "checkpoints" / "checkpoint-2").is_dir() and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert not (first / "adapters").exists()
    before = (first / "metrics.jsonl").read_text().splitlines()[:2]
    assert main([*asked(tmp_path, "--train_only", "--max_steps", "6", seeds="1")]) == 0
    assert "  ippo-seed1: goes on (step " in capsys.readouterr().out
    lines = (first / "metrics.jsonl").read_text().splitlines()
    assert lines[:2] == before
    steps = [line["step"] for line in read_metrics(first / "metrics.jsonl") if "solve_rate" in line]
    assert steps == list(range(1, 7))
    assert (first / "adapters").is_dir() and not (tmp_path / "out" / "eval").exists()


def test_again_replaces_everything(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*asked(tmp_path, "--train_only", "--max_steps", "1", seeds="1")]) == 0
    capsys.readouterr()
    assert main([*asked(tmp_path, "--train_only", "--max_steps", "2", seeds="1")]) == 2
    assert "max_steps 1, now 2" in capsys.readouterr().err
    assert main([*asked(tmp_path, "--train_only", "--max_steps", "2", "--again", seeds="1")]) == 0
    assert len(read_metrics(tmp_path / "out" / "ippo-seed1" / "metrics.jsonl")) == 3  # two steps and the end
