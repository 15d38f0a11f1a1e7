"""Checkpoints that are complete or absent: written to a staging folder, then moved into place in one step.

A checkpoint has each adapter in PEFT format, the critics' heads, and the state of the objective. What else transformers
needs to resume, it writes itself.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints, sort_checkpoints

from llm_sra.models.adapters import AdapterBank
from llm_sra.objectives.smoothing import SmoothedWeights
from llm_sra.objectives.tau_schedule import TauSchedule
from llm_sra.trainer.critic import Critics

FOLDER = "checkpoints"  # of a run
STAGING = ".saving"
OBJECTIVE = "objective.pt"  # the state of the objective


class Checkpoints:
    """Saves and loads what a run trains.

    Args:
        run_dir: The run folder.
        bank: The adapters.
        adapters: Those that are trained; a sampled partner's has a folder elsewhere.
        critics: If there are any.
        schedule: Of τ.
        smoothed: By hero's seat, the weights of sampled partners.
    """

    def __init__(
        self,
        run_dir: Path,
        bank: AdapterBank,
        adapters: Sequence[str],
        critics: Critics | None,
        schedule: TauSchedule,
        smoothed: Mapping[str, SmoothedWeights],
    ) -> None:
        self._run_dir, self._bank, self._critics = run_dir, bank, critics
        self._adapters = (*adapters, *(critics.adapters if critics else ()))
        self._schedule, self._smoothed = schedule, smoothed
        self._place = run_dir / FOLDER
        self.folder = self._place  # where transformers is to write checkpoints

    def save(self, folder: Path | None = None) -> None:
        """Write adapters and critics to a folder; None: to the run's `adapters/`."""
        folder = folder or self._run_dir / "adapters"
        folder.mkdir(parents=True, exist_ok=True)
        self._bank.save(folder, self._adapters)
        if self._critics:
            self._critics.save(folder)

    def load(self, folder: Path) -> None:
        """Read adapters, critics and the objective's state from a checkpoint."""
        for adapter in self._adapters:
            self._bank.load(folder / adapter, adapter)
        if self._critics:
            self._critics.load(folder)
        if (folder / OBJECTIVE).is_file():  # older checkpoints have none
            objective = torch.load(folder / OBJECTIVE, weights_only=True)
            self._schedule.load_state_dict(objective["tau"])
            for hero, weights in self._smoothed.items():
                weights.load_state_dict(objective["risk"][hero])

    def newest(self) -> str:
        """What there is to resume from, in words."""
        found = get_last_checkpoint(str(self._place)) if self._place.is_dir() else None
        if found is None:
            return "There is no checkpoint yet: begin anew"
        return f"{Path(found).name} is from before: go on with --resume_from_checkpoint true"

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Let transformers write a checkpoint to the staging folder inside the block."""
        self.folder = self._place / STAGING
        try:
            yield
        finally:
            self.folder = self._place

    def publish(self, state: TrainerState, accelerator: Accelerator, save: bool, limit: int | None) -> None:
        """Complete the staged checkpoint, move it into place and delete the oldest; all processes must call this.

        A process that is killed before leaves earlier checkpoints as they were, and never half of this one.

        Args:
            state: Of the trainer; it learns where the best checkpoint is.
            accelerator: Of the trainer.
            save: Whether this process writes.
            limit: How many checkpoints are kept; None: all.
        """
        if save:
            staged = self._place / STAGING / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            best = self._place / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
            if best.is_dir() or best.name == staged.name:
                state.best_model_checkpoint = str(best)
            objective = {
                "tau": self._schedule.state_dict(),
                "risk": {hero: weights.state_dict() for hero, weights in self._smoothed.items()},
            }
            torch.save(objective, staged / OBJECTIVE)
            state.save_to_json(str(staged / "trainer_state.json"))
        accelerator.wait_for_everyone()
        if save:
            _move(self._place / STAGING, self._place)
            rotate_checkpoints(
                output_dir=str(self._place), save_total_limit=limit, best_model_checkpoint=state.best_model_checkpoint
            )
        accelerator.wait_for_everyone()


def _move(staging: Path, folder: Path) -> None:
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
    """Whether a folder holds a complete checkpoint; `trainer_state.json` is written last."""
    return (checkpoint / "trainer_state.json").is_file() and checkpoint.resolve().parent.name != STAGING


def resolve_resume(resume: str | bool, folder: Path) -> str | None:
    """The checkpoint to resume from; incomplete ones of a killed process are removed.

    Args:
        resume: A checkpoint's path; `true` or `latest` for the newest complete one of the run.
        folder: Where the run keeps its checkpoints.

    Returns:
        Its path; None where the run has no checkpoint yet, and so starts anew.

    Raises:
        FileNotFoundError: If a path was given and holds no complete checkpoint.
    """
    if str(resume).lower() in ("true", "latest"):
        shutil.rmtree(folder / STAGING, ignore_errors=True)
        whole = [path for path in sort_checkpoints(str(folder)) if is_whole(Path(path))]
        return whole[-1] if whole else None
    if not is_whole(Path(str(resume))):
        raise FileNotFoundError(
            f"no complete checkpoint at {resume}: expected a folder checkpoint-N with trainer_state.json; "
            "`--resume_from_checkpoint true` takes the run's newest"
        )
    shutil.rmtree(folder / STAGING, ignore_errors=True)
    return str(resume)
