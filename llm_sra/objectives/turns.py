"""Which of a seat's turns an episode's rewards come after."""

from collections.abc import Sequence
from itertools import pairwise

import torch


def turn_rewards(rewards: Sequence[float], steps: Sequence[int]) -> torch.Tensor:
    """What each turn brought: the rewards from its own step on, up to the seat's next turn.

    What came before the first turn is no turn's doing and is left out. A seat may have none: an episode can end before
    it is asked.

    Args:
        rewards: One for each step of the episode, in units of the reward.
        steps: The step of each of the seat's K turns, ascending.

    Returns:
        (K,), in units of the reward.
    """
    bounds = [*steps, len(rewards)]
    return torch.tensor([sum(rewards[start:end]) for start, end in pairwise(bounds)])


def returns_to_go(rewards: torch.Tensor) -> torch.Tensor:
    """(K,) sums of what each turn and those after it brought."""
    return rewards.flip(0).cumsum(0).flip(0)
