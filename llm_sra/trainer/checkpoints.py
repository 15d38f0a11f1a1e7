"""Checkpoints that are complete or absent: written to a staging folder, then moved into place in one step.

A checkpoint has each adapter in PEFT format, the critics' heads, and the state of the objective. What else transformers
needs to resume, it writes itself. A list of all files with their hashes comes last.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, rotate_checkpoints, sort_checkpoints

from llm_sra.files import WriteError, publish_folder, sync_tree, writing
from llm_sra.objectives.partner_returns import PartnerReturns
from llm_sra.objectives.tau_schedule import TauSchedule
from llm_sra.trainer.bases import Bases
from llm_sra.trainer.critic import Critics
from llm_sra.trainer.manifest import MANIFEST, MARK, OBJECTIVE, STATE, damage, has_manifest, write_manifest
from llm_sra.trainer.resuming import reading_state

FOLDER = "checkpoints"  # of a run
STAGING = ".saving"
logger = logging.getLogger(__name__)


class Checkpoints:
    """Saves and loads what a run trains.

    Args:
        run_dir: The run folder.
        bases: Where the adapters live.
        adapters: Those that are trained; a sampled partner's has a folder elsewhere.
        critics: If there are any.
        schedule: Schedule of τ.
        earned: By hero's seat, what it earned with sampled partners.
    """

    def __init__(
        self,
        run_dir: Path,
        bases: Bases,
        adapters: Sequence[str],
        critics: Critics | None,
        schedule: TauSchedule,
        earned: Mapping[str, PartnerReturns],
    ) -> None:
        self._run_dir, self._bases, self._critics = run_dir, bases, critics
        self._adapters = (*adapters, *(critics.adapters if critics else ()))
        self._schedule, self._earned = schedule, earned
        self._place = run_dir / FOLDER
        self.folder = self._place  # where transformers is to write checkpoints

    def save(self, folder: Path | None = None) -> None:
        """Write adapters and critics to a folder; None: to the run's `adapters/`."""
        final = self._run_dir / "adapters"
        folder = folder or final
        staged = self._run_dir / ".adapters.saving" if folder == final else folder
        with writing("the adapters", staged):
            staged.mkdir(parents=True, exist_ok=True)
            for base in self._bases:
                base.bank.save(staged, [name for name in self._adapters if self._bases.of(name) is base])
            if self._critics:
                self._critics.save(staged)
            if staged != folder:
                sync_tree(staged)
                publish_folder(staged, folder)

    def load(self, folder: Path) -> None:
        """Read adapters, critics and the objective's state from a checkpoint."""
        for adapter in self._adapters:
            self._bases.of(adapter).bank.load(folder / adapter, adapter)
        if self._critics:
            self._critics.load(folder)
        if (folder / OBJECTIVE).is_file():  # older checkpoints have none
            with reading_state("the objective's state"):
                objective = torch.load(folder / OBJECTIVE, weights_only=True)
                self._schedule.load_state_dict(objective["tau"])
                for hero, earned in self._earned.items():
                    earned.load_state_dict(objective["risk"][hero])

    def newest(self) -> str:
        """What there is to resume from, in words."""
        found = get_last_checkpoint(str(self._place)) if self._place.is_dir() else None
        if found is None:
            return "There is no checkpoint yet: start again"
        return f"{Path(found).name} is from before: go on with --resume_from_checkpoint true"

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Let transformers write a checkpoint to the staging folder inside the block.

        Raises:
            WriteError: If the disk does not take it; names the file.
        """
        self.folder = self._place / STAGING
        try:
            with _written_last(self.folder):
                yield
        finally:
            self.folder = self._place

    def publish(
        self, state: TrainerState, accelerator: Accelerator, save: bool, limit: int | None, resumable: bool = True
    ) -> None:
        """Complete the staged checkpoint, give it its name and delete the oldest; all processes must call this.

        A process that is killed before leaves earlier checkpoints as they were, and never half of this one.

        Args:
            state: State of the trainer; it learns where the best checkpoint is.
            accelerator: Accelerator of the trainer.
            save: Whether this process writes.
            limit: How many checkpoints are kept; None: all.
            resumable: Whether the optimizer's state was saved too.
        """
        accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if save:
            staged = self._place / STAGING / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            with _written_last(staged):
                self._complete(staged, state, resumable)
                publish_folder(staged, self._place / staged.name)
                staged.parent.rmdir()
            rotate_checkpoints(
                output_dir=str(self._place), save_total_limit=limit, best_model_checkpoint=state.best_model_checkpoint
            )
        accelerator.wait_for_everyone()

    def _complete(self, staged: Path, state: TrainerState, resumable: bool) -> None:
        best = self._place / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
        if best.is_dir() or best.name == staged.name:
            state.best_model_checkpoint = str(best)
        objective = {
            "tau": self._schedule.state_dict(),
            "risk": {hero: earned.state_dict() for hero, earned in self._earned.items()},
            MARK: True,
        }
        torch.save(objective, staged / OBJECTIVE)
        state.save_to_json(str(staged / STATE))
        write_manifest(staged, resumable)


@contextmanager
def _written_last(folder: Path) -> Iterator[None]:
    """Name the file that a failure inside the block left unfinished, and delete what was staged."""
    try:
        yield
    except Exception:
        files = [path for path in folder.rglob("*") if path.is_file()]
        last = max(files, key=lambda path: path.stat().st_mtime_ns, default=folder)
        try:
            with writing("a checkpoint", last):
                raise
        except WriteError:
            shutil.rmtree(folder, ignore_errors=True)  # makes room for whatever is done about it
            raise


def wants_resume(resume: str | bool | None) -> bool:
    """Whether a value of `resume_from_checkpoint` asks for a checkpoint at all."""
    return resume not in (None, False) and str(resume).lower() not in ("false", "none", "")


def resolve_resume(resume: str | bool, folder: Path, main: bool = True) -> str | None:
    """The checkpoint to resume from; incomplete ones of a killed process are removed.

    Args:
        resume: A checkpoint's path; `true` or `latest` for the newest complete one of the run.
        folder: Where the run keeps its checkpoints.
        main: Whether this process may write, and says what it finds.

    Returns:
        Its path; None where the run has no checkpoint yet, and so starts anew.

    Raises:
        FileNotFoundError: If a path was given and holds no complete checkpoint; names what is wrong with it.
    """
    if main:
        shutil.rmtree(folder / STAGING, ignore_errors=True)
    named = str(resume).lower() not in ("true", "latest")
    for path in [str(resume)] if named else reversed(sort_checkpoints(str(folder))):
        checkpoint = Path(path)
        wrong = "it was never finished" if checkpoint.resolve().parent.name == STAGING else damage(checkpoint)
        if wrong is None:
            if main and not has_manifest(checkpoint):
                logger.warning("%s was saved without %s: its files cannot be checked", checkpoint, MANIFEST)
            return path
        if named:
            raise FileNotFoundError(
                f"no complete checkpoint at {resume}: {wrong}. Expected a folder checkpoint-N as a training writes it; "
                "`--resume_from_checkpoint true` takes the run's newest that is complete"
            )
        if main:
            logger.warning("%s is damaged (%s): the checkpoint before it is taken", checkpoint, wrong)
    return None
