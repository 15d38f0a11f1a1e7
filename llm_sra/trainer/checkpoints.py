"""Checkpoints that are whole or not there at all: written beside their place, then moved into it in one step."""

import os
import shutil
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

STAGING = ".saving"


def publish(staging: Path, folder: Path) -> None:
    """Move a finished checkpoint from the staging folder into its place."""
    for written in staging.iterdir():
        target = folder / written.name
        if target.exists():
            shutil.rmtree(target)
        os.rename(written, target)
    staging.rmdir()


def resolve_resume(resume: str | bool | None, folder: Path) -> str | None:
    """The checkpoint to resume from.

    Args:
        resume: A checkpoint's path; `true` or `latest` for the newest whole one of the run; nothing or `false`.
        folder: Where the run keeps its checkpoints.

    Returns:
        Its path; None where the run starts from nothing (also if it was killed before its first checkpoint).

    Raises:
        FileNotFoundError: If a path was given and holds no whole checkpoint.
    """
    if folder.is_dir():
        shutil.rmtree(folder / STAGING, ignore_errors=True)  # what a killed run left half-written
    if resume in (None, False) or str(resume).lower() in ("false", "none", ""):
        return None
    if resume is True or str(resume).lower() in ("true", "latest"):
        return get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if not (Path(resume) / "trainer_state.json").is_file() or Path(resume).parent.name == STAGING:
        raise FileNotFoundError(
            f"no whole checkpoint at {resume}: expected a folder checkpoint-N with trainer_state.json; "
            "`--resume_from_checkpoint true` takes the newest of the run"
        )
    return str(resume)
