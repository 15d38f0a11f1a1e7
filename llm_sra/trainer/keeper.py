"""How TRL's trainer is made to keep and load adapters: each in PEFT format, and never half a checkpoint."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import GRPOTrainer

from llm_sra.models.adapters import AdapterBank
from llm_sra.objectives.risk import SmoothedWeights
from llm_sra.objectives.tau_schedule import TauSchedule
from llm_sra.trainer import checkpoints
from llm_sra.trainer.arms import Roles
from llm_sra.trainer.critic import Critics

OBJECTIVE = "objective.pt"  # what the objective remembers from step to step
logger = logging.getLogger(__name__)


class AdapterKeeper(GRPOTrainer):  # type: ignore[misc]
    """Saves and loads the adapters of a bank where transformers would save a model."""

    args: Any
    bank: AdapterBank
    arm: Roles
    critics: Critics | None
    _checkpoint_dir: Path
    _schedule: TauSchedule
    _smoothed: Mapping[str, SmoothedWeights]

    @property
    def _kept(self) -> tuple[str, ...]:
        """The adapters that are trained; a sampled partner's has a folder elsewhere."""
        return (*self.arm.adapters, *(self.critics.adapters if self.critics else ()))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoint_dir)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Cards are written by the export, with results."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.run_dir / "adapters")
        folder.mkdir(parents=True, exist_ok=True)
        self.bank.save(folder, self._kept)
        if self.critics:
            self.critics.save(folder)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save beside, then move into place: a kill leaves the earlier checkpoint, never half of this one."""
        final = self.args.run_dir / checkpoints.FOLDER
        self._checkpoint_dir = final / checkpoints.STAGING
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._checkpoint_dir = final
        if self.args.should_save:
            staged = final / checkpoints.STAGING / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            best = final / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            if best.is_dir() or best.name == staged.name:
                self.state.best_model_checkpoint = str(best)
            objective = {
                "tau": self._schedule.state_dict(),
                "risk": {hero: weights.state_dict() for hero, weights in self._smoothed.items()},
            }
            torch.save(objective, staged / OBJECTIVE)
            self.state.save_to_json(str(staged / "trainer_state.json"))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(final / checkpoints.STAGING, final)
            rotate_checkpoints(
                output_dir=str(final),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        for adapter in self._kept:
            self.bank.load(folder / adapter, adapter)
        if self.critics:
            self.critics.load(folder)
        if (folder / OBJECTIVE).is_file():  # one from before there was anything to keep has none
            objective = torch.load(folder / OBJECTIVE, weights_only=True)
            self._schedule.load_state_dict(objective["tau"])
            for hero, weights in self._smoothed.items():
                weights.load_state_dict(objective["risk"][hero])

    def _load_best_model(self) -> None:
        logger.info("loading the best checkpoint, %s", self.state.best_model_checkpoint)
        self._load_from_checkpoint(self.state.best_model_checkpoint)
