"""Group-relative advantages: the return minus a baseline of the episodes of the same problem and match.

Source: GRPO, DeepSeekMath (arXiv 2402.03300), without its division by the group's standard deviation, which would
turn ε and 1/τ into multiples of that deviation and so change the game (Dr. GRPO, arXiv 2503.20783, drops it for
another reason). Baselines are entries of a registry, `baselines`.
"""

from typing import Literal

import torch

from llm_sra.objectives.baselines import BASELINES

Scale = Literal["none", "group", "batch"]


def group_advantages(
    returns: torch.Tensor, scale: Scale = "none", batch_std: float | None = None, baseline: str = "mean"
) -> torch.Tensor:
    """Advantages of episodes that are compared with each other.

    Args:
        returns: (groups, G), in units of the reward.
        scale: `none` keeps the units. `group` divides by each group's standard deviation, `batch` by `batch_std`;
            both change the game that is solved (see the module).
        batch_std: Standard deviation of all returns of the batch, over all processes; needed for `batch`.
        baseline: What a return is compared with: the name of an entry of `BASELINES`.

    Returns:
        (groups, G); each group sums to zero.

    Raises:
        ValueError: If a group has fewer than two episodes: nothing to compare with.
    """
    if returns.ndim != 2 or returns.shape[1] < 2:
        raise ValueError(f"expected returns of shape (groups, G) with G of 2 or more, got {tuple(returns.shape)}")
    centred = BASELINES[baseline].centre(returns)
    if scale == "none":
        return centred
    if scale == "group":
        return centred / (returns.std(dim=1, keepdim=True) + 1e-4)
    if batch_std is None:
        raise ValueError("scale 'batch' needs the standard deviation of the whole batch")
    return centred / (batch_std + 1e-4)


def groups_without_variance(returns: torch.Tensor, tolerance: float = 1e-6) -> float:
    """Share of groups, in [0, 1], from which nothing can be learned: all returns equal.

    Args:
        returns: (groups, G).
        tolerance: Largest spread that counts as equal.
    """
    spread = returns.max(dim=1).values - returns.min(dim=1).values
    return (spread <= tolerance).float().mean().item()
