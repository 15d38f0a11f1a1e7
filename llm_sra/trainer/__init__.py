"""The thin subclass of TRL's GRPOTrainer, its configuration, and the rows that it trains on."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_sra.trainer.arms import Arm, build_arm
    from llm_sra.trainer.config import ModelArguments, SRPOConfig
    from llm_sra.trainer.trainer import SRPOTrainer

__all__ = ["Arm", "ModelArguments", "SRPOConfig", "SRPOTrainer", "build_arm"]

# Loaded on first use: a command line can be looked at without TRL.
_HOMES = {
    "Arm": "arms",
    "ModelArguments": "config",
    "SRPOConfig": "config",
    "SRPOTrainer": "trainer",
    "build_arm": "arms",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'llm_sra.trainer' has no attribute {name!r}")
    return getattr(import_module(f"llm_sra.trainer.{_HOMES[name]}"), name)
