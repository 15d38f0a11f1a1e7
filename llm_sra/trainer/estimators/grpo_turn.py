"""GRPO by turns: what a turn and later ones brought, minus a baseline of the same turn in the group's episodes."""

from collections.abc import Sequence

import torch

from llm_sra.objectives import group_advantages, returns_to_go
from llm_sra.trainer.estimators.base import EstimatorInputs, estimator


@estimator("grpo", "turn", "one for a turn, against the same turn of the group", takes=("advantage_baseline",))
def grpo_turn(inputs: EstimatorInputs) -> None:
    """Fill in advantages. A turn that no other episode of its group reached has no baseline, and gets 0."""
    inputs.grouped_returns()  # for its note of groups without variance
    for group in inputs.groups():
        ahead = [returns_to_go(played.tethered_rewards(inputs.tether)) for played in group]
        for played, values in zip(group, turn_advantages(ahead, inputs.options.advantage_baseline), strict=True):
            played.set_turn_advantages(values)


def turn_advantages(ahead: Sequence[torch.Tensor], baseline: str) -> list[torch.Tensor]:
    """Of each episode of a group, (K,) advantages of its turns, from (K,) returns to go."""
    advantages = [torch.zeros(len(values)) for values in ahead]
    for turn in range(max(map(len, ahead))):
        reached = [i for i, values in enumerate(ahead) if turn < len(values)]
        if len(reached) > 1:
            values = torch.stack([ahead[i][turn] for i in reached])
            for i, value in zip(reached, group_advantages(values[None], baseline=baseline)[0], strict=True):
                advantages[i][turn] = value
    return advantages
