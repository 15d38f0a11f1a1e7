"""What a baseline of group-relative advantages is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from llm_sra.objectives.registry import Registry

Centre = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Baseline:
    """An entry of `BASELINES`.

    Attributes:
        name: What `advantage_baseline` is set to.
        summary: What a return is compared with, in a few words.
        centre: (groups, G) returns to returns minus the baseline, in the same units.
    """

    name: str
    summary: str
    centre: Centre


BASELINES: Registry[Baseline] = Registry("advantage_baseline")


def baseline(name: str, summary: str) -> Callable[[Centre], Centre]:
    """Register the decorated function; arguments as of `Baseline`."""

    def register(centre: Centre) -> Centre:
        BASELINES.add(Baseline(name, summary, centre))
        return centre

    return register
