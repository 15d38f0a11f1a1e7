"""llm-sra: fine-tune pairs of LLM agents that stay useful with partners they have never met."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llm_sra.task import Task

if TYPE_CHECKING:
    from llm_sra.evaluation.runner import evaluate
    from llm_sra.evaluation.single.runner import evaluate_single
    from llm_sra.exporting.export import export
    from llm_sra.playing import play
    from llm_sra.training import train

__all__ = ["Task", "evaluate", "evaluate_single", "export", "play", "train"]
__version__ = "0.1.0"

# Loaded on first use: the file of a task needs `Task`, not torch.
_HOMES = {
    "evaluate": "evaluation.runner",
    "evaluate_single": "evaluation.single.runner",
    "export": "exporting.export",
    "play": "playing",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'llm_sra' has no attribute {name!r}")
    return getattr(import_module(f"llm_sra.{_HOMES[name]}"), name)
