"""Checkpoints that are whole or not there at all: written beside their place, then moved into it in one step."""

import os
import shutil
from pathlib import Path

from transformers.trainer_utils import sort_checkpoints

FOLDER = "checkpoints"  # of a run
STAGING = ".saving"


def publish(staging: Path, folder: Path) -> None:
    """Move a finished checkpoint from the staging folder into its place."""
    for written in staging.iterdir():
        target = folder / written.name
        if target.exists():
            shutil.rmtree(target)
        os.rename(written, target)
    staging.rmdir()


def wants_resume(resume: str | bool | None) -> bool:
    """Whether a value of `resume_from_checkpoint` asks for a checkpoint at all."""
    return resume not in (None, False) and str(resume).lower() not in ("false", "none", "")


def is_whole(checkpoint: Path) -> bool:
    """Whether a folder holds a checkpoint in its place; its state is what is written last."""
    return (checkpoint / "trainer_state.json").is_file() and checkpoint.resolve().parent.name != STAGING


def resolve_resume(resume: str | bool, folder: Path) -> str | None:
    """The checkpoint to resume from; what a killed run left half-written is removed.

    Args:
        resume: A checkpoint's path; `true` or `latest` for the newest whole one of the run.
        folder: Where the run keeps its checkpoints.

    Returns:
        Its path; None where the run starts from nothing (it was killed before its first checkpoint).

    Raises:
        FileNotFoundError: If a path was given and holds no whole checkpoint.
    """
    if str(resume).lower() in ("true", "latest"):
        shutil.rmtree(folder / STAGING, ignore_errors=True)
        whole = [path for path in sort_checkpoints(str(folder)) if is_whole(Path(path))]
        return whole[-1] if whole else None
    if not is_whole(Path(str(resume))):
        raise FileNotFoundError(
            f"no whole checkpoint at {resume}: expected a folder checkpoint-N with trainer_state.json; "
            "`--resume_from_checkpoint true` takes the newest of the run"
        )
    shutil.rmtree(folder / STAGING, ignore_errors=True)
    return str(resume)
