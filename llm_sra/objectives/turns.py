"""Rewards of an episode by the turns of a seat."""

from collections.abc import Sequence
from itertools import pairwise

import torch


def turn_rewards(rewards: Sequence[float], steps: Sequence[int]) -> torch.Tensor:
    """The reward of each turn: all rewards from its own step on, up to the seat's next turn.

    Rewards before the first turn belong to no turn and are left out. A seat may have no turns: an episode can end
    before it acts.

    Args:
        rewards: One for each step of the episode, in units of the reward.
        steps: The step of each of the seat's K turns, ascending.

    Returns:
        (K,), in units of the reward.
    """
    bounds = [*steps, len(rewards)]
    return torch.tensor([sum(rewards[start:end]) for start, end in pairwise(bounds)])


def returns_to_go(rewards: torch.Tensor) -> torch.Tensor:
    """(K,) sums of the rewards of each turn and those after it."""
    return rewards.flip(0).cumsum(0).flip(0)


def discounted_to_go(rewards: torch.Tensor, gamma: float) -> torch.Tensor:
    """(K,) sums of the rewards of each turn and those after it, each turn later discounted once more by γ."""
    ahead = torch.zeros_like(rewards)
    following = torch.zeros(())
    for turn in range(len(rewards) - 1, -1, -1):
        following = rewards[turn] + gamma * following
        ahead[turn] = following
    return ahead
