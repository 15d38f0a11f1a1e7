"""GRPO: one advantage for a whole episode, its return minus a baseline of its group (see `objectives.group`)."""

import torch

from llm_sra.objectives import group_advantages
from llm_sra.trainer.estimators.base import EstimatorInputs, estimator
from llm_sra.trainer.metrics import batch_std
from llm_sra.trainer.player_episodes import returns_by_adapter


@estimator("grpo", "episode", "one for an episode", takes=("scale_rewards", "advantage_baseline"), default=True)
def grpo_episode(inputs: EstimatorInputs) -> None:
    """Fill in advantages; with `scale_rewards: batch` all processes must call this."""
    options, stds = inputs.options, {}
    if options.scale_rewards == "batch":
        stds = batch_std(returns_by_adapter(inputs.episodes, inputs.returns))
    adapters = inputs.adapters
    advantages = {
        key: iter(
            group_advantages(values, options.scale_rewards, stds.get(adapters[key]), options.advantage_baseline)
            .flatten()
            .tolist()
        )
        for key, values in inputs.grouped_returns().items()
    }
    for played in inputs.episodes:
        value = next(advantages[played.key])
        played.set_turn_advantages(torch.full((len(played.rewards),), value))
