"""Engines turn token ids into token ids and log-probabilities, for many named LoRA adapters over one base model.

`base` is the interface and `choose` makes one by its name; each engine is a module of its own, imported where it is
made.
"""

from llm_sra.engines.base import Completion, Engine, EngineError, Request
from llm_sra.engines.choose import ENGINES, EngineOptions, make_engine

__all__ = ["ENGINES", "Completion", "Engine", "EngineError", "EngineOptions", "Request", "make_engine"]
