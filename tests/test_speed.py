"""What a training takes: measured by a clock that is known, said after three steps, kept in the run folder."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from training_support import train_tiny

from llm_sra.trainer import speed
from llm_sra.trainer.speed import Speed, SpeedFile, generated_tokens, read_speed


def test_tokens_of_a_step_are_those_of_all_policies_in_all_their_seats() -> None:
    line = {
        "play/left/hero/tokens": 6.0, "play/right/hero/tokens": 10.0, "policy/hero/episodes": 8.0,
        "play/right/adversary/tokens": 3.0, "policy/adversary/episodes": 4.0, "play/left/hero/return": 1.0,
    }  # fmt: skip
    assert generated_tokens(line) == 8 * 8 + 3 * 4


def test_seconds_hours_and_tokens_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A step ends at 10, 14, 19 and 23 s. The first took 10 s, the others 3, 4 and 3; 1 s passes between two steps.
    times = iter([0.0, 10.0, 11.0, 14.0, 15.0, 19.0, 20.0, 23.0])
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    args = SimpleNamespace(device=torch.device("cpu"), world_size=2)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=4, global_step=0)
    clock = SpeedFile(tmp_path)
    clock.on_train_begin(args, state, None)
    logs = {"solve_rate": 0.5, "play/left/hero/tokens": 7.0, "policy/hero/episodes": 10.0}
    for step in range(1, 5):
        clock.on_step_begin(args, state, None)
        clock.on_step_end(args, state, None)
        state.global_step = step
        clock.on_log(args, state, None, {"eval_self_play": 1.0})
        assert (read_speed(tmp_path) is None) == (step <= 3)
        clock.on_log(args, state, None, logs)
        if step == 3:
            estimated = read_speed(tmp_path)
    assert estimated is not None and (estimated.measured, estimated.finished) == (3, False)
    assert estimated.seconds_per_step == 3.5  # the median of 3 and 4
    assert estimated.hours == pytest.approx(4 * (19 - 10) / 2 / 3600, abs=1e-5)
    assert estimated.tokens_per_second == 20.0  # 70 in 3.5 s
    clock.on_train_end(args, state, None)
    measured = read_speed(tmp_path)
    assert measured is not None and (measured.measured, measured.finished, measured.processes) == (4, True, 2)
    assert measured.seconds_per_step == 3.0
    assert measured.hours == pytest.approx(4 * (23 - 10) / 3 / 3600, abs=1e-5)
    assert capsys.readouterr().out == f"speed: {estimated.sentence}\n"
    assert estimated.sentence.startswith("3.5 s a step, about 0.3 min for 4 steps, 20 tokens/s, ")


def test_long_trainings_are_told_in_hours_and_a_gpu_with_its_memory() -> None:
    told = Speed(250, 250, 312.5, 21.7, 1840.0, 12.3, 61.24, 1, "a GPU", True).sentence
    assert told == "312 s a step, 21.7 h for 250 steps, 1,840 tokens/s, 12.3 GB of memory, 61.2 GB of the GPU"


def test_a_training_leaves_it_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_tiny(tmp_path / "run", max_steps=3)
    found = read_speed(run.path)
    assert found is not None and found.finished and found.measured == found.steps == 3
    assert found.seconds_per_step > 0 and found.tokens_per_second and 0.05 < found.memory_gb < 100
    assert found.gpu_memory_gb is None or torch.cuda.is_available()
    assert capsys.readouterr().out.count("speed: ") == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"steps": 3}', json.dumps(dict.fromkeys(Speed.__dataclass_fields__, "x"))]
)
def test_what_cannot_be_read_counts_as_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "speed.json").write_text(text)
    assert read_speed(tmp_path) is None
