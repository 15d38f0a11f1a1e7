"""Engines turn token ids into token ids and log-probabilities, for many named LoRA adapters over one base model.

`base` is the interface. `choose` makes an engine by its name. Each engine is a module of its own, imported
only when it is made.
"""

from llm_sra.engines.base import Completion, Engine, EngineError, Request
from llm_sra.engines.choose import ENGINES, EngineKind, EngineOptions, make_engine, sends_seeds

__all__ = [
    "ENGINES",
    "Completion",
    "Engine",
    "EngineError",
    "EngineKind",
    "EngineOptions",
    "Request",
    "make_engine",
    "sends_seeds",
]
