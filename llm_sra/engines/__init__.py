"""Engines turn token ids into token ids and log-probabilities, for many named LoRA adapters over one base model.

`base` is the interface; each engine is a module of its own, imported where it is made.
"""

from llm_sra.engines.base import Completion, Engine, Request

__all__ = ["Completion", "Engine", "Request"]
