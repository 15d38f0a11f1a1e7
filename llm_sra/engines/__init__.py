"""Engines turn token ids into token ids and log-probabilities, for many named LoRA adapters over one base model."""

from llm_sra.engines.base import Completion, Engine, Request
from llm_sra.engines.transformers import TransformersEngine

__all__ = ["Completion", "Engine", "Request", "TransformersEngine"]
