"""Checkpoints that are damaged, runs that go back to an earlier one, and full disks."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import llama_folder
from training_support import train_tiny, vectors

from llm_sra import files
from llm_sra.files import WriteError
from llm_sra.models.adapter_files import AdapterError
from llm_sra.runs import read_metrics
from llm_sra.trainer import checkpoints, metrics
from llm_sra.trainer.manifest import MANIFEST, damage, write_manifest
from llm_sra.trainer.resuming import ResumeError, check_options, load_with_present_options

SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1}


# -- checkpoints -----------------------------------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "missing": ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
    "empty": ("scheduler.pt", empty, r"scheduler.pt has 0 bytes, expected \d+"),
    "one bit": ("left/adapter_model.safetensors", flip, "left/adapter_model.safetensors is not what was saved"),
    "random numbers": ("rng_state.pth", Path.unlink, "rng_state.pth is missing"),
    "state": ("trainer_state.json", flip, "trainer_state.json is not what was saved"),
    "no manifest": (MANIFEST, Path.unlink, "manifest.json is missing"),
    "torn manifest": (MANIFEST, lambda path: path.write_bytes(path.read_bytes()[:40]), "manifest.json cannot be read"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three checkpoints."""
    return train_tiny(tmp_path_factory.mktemp("saved") / "run", **SAVING, max_steps=3).path


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    name, spoil, message = DAMAGES[kind]
    place = tmp_path / "checkpoints"
    shutil.copytree(saved / "checkpoints", place)
    assert damage(place / "checkpoint-3") is None
    spoil(place / "checkpoint-3" / name)
    with pytest.raises(FileNotFoundError, match=message):
        checkpoints.resolve_resume(str(place / "checkpoint-3"), place)
    assert checkpoints.resolve_resume("true", place) == str(place / "checkpoint-2")
    assert "checkpoint-3 is damaged" in caplog.text and "the checkpoint before it is taken" in caplog.text


def test_a_checkpoint_of_an_earlier_version_has_no_manifest_and_is_resumed(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "checkpoint-3"
    shutil.copytree(saved / "checkpoints" / "checkpoint-3", old)
    (old / MANIFEST).unlink()
    state = torch.load(old / "objective.pt", weights_only=True)
    state.pop("manifest")
    torch.save(state, old / "objective.pt")
    assert checkpoints.resolve_resume("true", tmp_path) == str(old)
    assert "was saved without manifest.json: its files cannot be checked" in caplog.text
    empty(old / "optimizer.pt")
    assert damage(old) == "optimizer.pt is empty"


def test_a_checkpoint_without_the_optimizer_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text("{}")
    write_manifest(tmp_path, resumable=False)
    assert damage(tmp_path) == "it was saved with save_only_model, so the optimizer's state is missing"


def test_a_folder_that_is_replaced_is_deleted_only_after_the_new_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("staged", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    seen = []
    real = shutil.rmtree

    def rmtree(path: Path, **kwargs: Any) -> None:
        if path.exists():
            seen.append((path.name, (tmp_path / "final" / "file").read_text()))
        real(path, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    files.publish_folder(tmp_path / "staged", tmp_path / "final")
    assert seen == [(".final.replaced", "staged")]
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


# -- lineage ---------------------------------------------------------------------------------------------------------


def test_a_run_that_went_back_goes_on_with_its_new_line(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    first = str(run / "checkpoints" / "checkpoint-1")
    train_tiny(run, **SAVING, max_steps=2, learning_rate=0.001, resume_from_checkpoint=first)
    kept = {path.name for path in (run / "checkpoints" / "earlier-1").iterdir()}
    assert kept == {"checkpoint-2", "checkpoint-3", "adapters", "episodes", "metrics.jsonl"}
    assert checkpoints.resolve_resume("true", run / "checkpoints") == str(run / "checkpoints" / "checkpoint-2")
    train_tiny(run, **SAVING, max_steps=3, learning_rate=0.001, resume_from_checkpoint="true")
    steps = [(line["step"], line["learning_rate"]) for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    assert steps == [(1, 0.02), (2, 0.001), (3, 0.001)]
    assert yaml.safe_load((run / "config.yaml").read_text())["arguments"]["learning_rate"] == 0.001
    before, after = (vectors(path / "adapters") for path in (saved, run))
    assert not torch.equal(before["left"], after["left"])


def test_another_runs_checkpoint_is_gone_on_from_and_stays_as_it_was(saved: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    checkpoint = str(saved / "checkpoints" / "checkpoint-2")
    run = train_tiny(tmp_path / "run", **SAVING, max_steps=3, resume_from_checkpoint=checkpoint)
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {"checkpoint-2", "checkpoint-3"}
    assert [line["step"] for line in read_metrics(run.path / "metrics.jsonl") if "loss" in line] == [3]
    one, other = vectors(saved / "adapters"), vectors(run.adapters)
    assert all(torch.equal(one[name], other[name]) for name in one)  # the same seed and options
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": 1}, "holds 'a', which is no part of a training's state"),
        ({"global_step": "3"}, "holds '3' as global_step"),
        ({"total_flos": []}, r"holds \[\] as total_flos"),
        ({"log_history": [1]}, r"holds \[1\] as log_history"),
        ({"stateful_callbacks": "x"}, "holds 'x' as stateful_callbacks"),
    ],
)
def test_a_strangers_state_with_the_right_hash_is_refused_by_its_values(
    saved: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(saved / "checkpoints" / "checkpoint-2", checkpoint)
    assert damage(checkpoint) is None
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps({**state, **change}))
    write_manifest(checkpoint, True)
    with pytest.raises(FileNotFoundError, match=said):
        checkpoints.resolve_resume(str(checkpoint), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arm": "ippo"}, "arm was srpo and is now ippo"),
        ({"optim": "sgd"}, "optim was adamw_torch_fused and is now sgd"),
        ({"algorithm": "ppo"}, "critic-of-left holds no adapter"),
        ({"model_name_or_path": llama_folder}, "was trained on .* whose weights then differ"),
    ],
    ids=["arm", "optimizer", "algorithm", "base"],
)
def test_another_runs_checkpoint_that_does_not_fit_is_refused_and_leaves_no_run(
    saved: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    change = {name: value() if callable(value) else value for name, value in change.items()}
    checkpoint = str(saved / "checkpoints" / "checkpoint-2")
    with pytest.raises((ResumeError, AdapterError), match=said):
        train_tiny(tmp_path / "run", **SAVING, max_steps=3, resume_from_checkpoint=checkpoint, **change)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optimizer.pt", "the optimizer's state in"),
        ("rng_state.pth", "the state of random numbers in"),
        ("objective.pt", "the objective's state in"),
    ],
)
def test_a_strangers_file_with_the_right_hash_is_refused_in_words(
    saved: Path, tmp_path: Path, name: str, said: str
) -> None:
    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(saved / "checkpoints" / "checkpoint-2", checkpoint)
    (checkpoint / name).write_bytes(b"")
    write_manifest(checkpoint, True)
    with pytest.raises(ResumeError, match=said):
        train_tiny(tmp_path / "run", **SAVING, max_steps=3, resume_from_checkpoint=str(checkpoint))
    assert not (tmp_path / "run").exists()


def test_an_optimizers_state_of_another_training_is_refused_in_words() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    of_two = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with pytest.raises(ResumeError, match=r"does not fit what is trained now: .*different number of parameter groups"):
        load_with_present_options(optimizer, scheduler, lambda: optimizer.load_state_dict(of_two.state_dict()))


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        ("optim", "adamw_torch", "sgd"),
        ("lora_r", 8, 16),
        ("arm", "ippo", "srpo"),
        ("sharing", "shared", "separate"),
        ("initial_adapter", None, "runs/warm"),
    ],
)
def test_an_option_that_cannot_take_effect_is_refused(name: str, before: object, now: object) -> None:
    check_options({name: before}, {name: before})
    with pytest.raises(ResumeError, match=f"{name} was {before} and is now {now}"):
        check_options({name: before}, {name: now})


def test_tau_is_fixed_only_where_a_controller_moves_it() -> None:
    check_options({"tau": 1.0, "tau_schedule": "constant"}, {"tau": 2.0, "tau_schedule": "constant"})
    with pytest.raises(ResumeError, match=r"tau was 1\.0 and is now 2\.0"):
        check_options({"tau": 1.0, "tau_schedule": "target_kl"}, {"tau": 2.0, "tau_schedule": "target_kl"})


# -- a full disk -----------------------------------------------------------------------------------------------------


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_for_torch(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")


def full_for_safetensors(*args: Any, **kwargs: Any) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


FULL: dict[str, tuple[str, Callable[..., None], str]] = {
    "lock": ("os.ftruncate", full, r"the lock of the folder to .*/\.lock: No space"),
    "config": ("llm_sra.runs.write_whole", full, r"the configuration to .*config\.yaml: No space"),
    "metrics": ("llm_sra.trainer.metrics.MetricsFile._trim", full, r"the metrics to .*metrics\.jsonl: No space"),
    "episodes": ("llm_sra.episodes.json_lines", full, r"the episodes of a step to .*step-000001\.jsonl: No"),
    "adapters": ("peft.peft_model.safe_save_file", full_for_safetensors, r"the adapters to .*: .*No space left"),
    "optimizer": (
        "transformers.trainer.torch.save",
        full_for_torch,
        r"a checkpoint to .*/checkpoint-1/.*not be written",
    ),
    "state": ("transformers.TrainerState.save_to_json", full, r"a checkpoint to .*/checkpoint-1/.*: No space"),
    "manifest": ("llm_sra.trainer.manifest.write_whole", full, r"the list of .* files to .*/manifest\.json: No space"),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_one_line_that_names_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    target, failure, message = FULL[what]
    monkeypatch.setattr(target, failure)
    with pytest.raises(WriteError, match=rf"^cannot write {message}.*MiB are free there$"):
        train_tiny(tmp_path / "run", **SAVING, max_steps=1)
    assert not (tmp_path / "run" / "checkpoints" / "checkpoint-1").exists()


@pytest.mark.parametrize("error", [RuntimeError("gloo: connection closed"), ValueError("no number")])
def test_errors_of_another_kind_are_not_blamed_on_the_disk(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), files.writing("a file", tmp_path):
        raise error


def test_metrics_are_kept_until_a_resumed_run_logs(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step"')
    file = metrics.MetricsFile(path)
    state: Any = type("State", (), {"global_step": 1, "is_world_process_zero": True})()
    file.on_train_begin(None, state, None)  # type: ignore[arg-type]
    assert path.read_text().count("\n") == 2
    state.global_step = 2
    file.on_log(None, state, None, logs={"loss": 0.5})  # type: ignore[arg-type]
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "loss": 0.5}]
