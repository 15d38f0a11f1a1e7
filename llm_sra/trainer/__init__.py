"""The thin subclass of TRL's GRPOTrainer, its configuration, and the rows that it trains on."""

from llm_sra.trainer.arms import Arm, build_arm
from llm_sra.trainer.config import ModelArguments, SRPOConfig
from llm_sra.trainer.trainer import SRPOTrainer

__all__ = ["Arm", "ModelArguments", "SRPOConfig", "SRPOTrainer", "build_arm"]
