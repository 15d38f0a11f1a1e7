"""A checkpoint is on the disk before it has its name, and its name is before the next step counts on it."""

import os
from pathlib import Path

import pytest
from training_support import train_tiny

FSYNC, RENAME = os.fsync, Path.rename


def test_every_file_of_a_checkpoint_is_synced_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []

    def fsync(descriptor: int) -> None:
        done.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        FSYNC(descriptor)

    def rename(self: Path, target: Path) -> Path:
        done.append(("rename", str(self)))
        return RENAME(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    run = train_tiny(tmp_path / "run", max_steps=1, save_strategy="steps", save_steps=1)
    checkpoint = run.path / "checkpoints" / "checkpoint-1"
    named = next(i for i, (what, path) in enumerate(done) if what == "rename" and path.endswith("/checkpoint-1"))
    staged = done[named][1]
    before = {path for what, path in done[:named] if what == "fsync"}
    assert {str(path).replace(str(checkpoint), staged) for path in checkpoint.rglob("*")} <= before
    assert ("fsync", str(checkpoint.parent)) in done[named:]
