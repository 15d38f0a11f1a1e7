"""Generalised advantage estimation, and the loss of a critic.

Source: Schulman et al., *High-Dimensional Continuous Control Using Generalized Advantage Estimation* (arXiv
1506.02438); the clipped value loss, as in the implementations of PPO (arXiv 1707.06347) that go with the paper.
"""

import torch


def gae(rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float) -> torch.Tensor:
    """A_t = Σ_k (γ λ)^k δ_{t+k}, with δ_t = r_t + γ V_{t+1} - V_t.

    Args:
        rewards: (N, T), what each of T decisions brought, in units of the reward; 0 after a sequence's end.
        values: (N, T), the critic's value before each decision; 0 after the end.
        gamma: Discount from one decision to the next, in [0, 1].
        lam: λ, in [0, 1]: with 0 the critic's value replaces all but one reward, with 1 it only is a baseline.

    Returns:
        (N, T), in units of the reward; 0 after the end. Added to `values`, the returns that a critic is fitted to.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    ahead = torch.zeros_like(following)
    for t in range(rewards.shape[1] - 1, -1, -1):
        following = rewards[:, t] + gamma * ahead - values[:, t] + gamma * lam * following
        advantages[:, t], ahead = following, values[:, t]
    return advantages


def value_loss(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float | None) -> torch.Tensor:
    """Half the squared error of each value; with `clip`, moving further than that from `old` lowers it no more.

    Args:
        values: (...), of the critic that is trained.
        old: (...), of the critic before the first update on these episodes.
        returns: (...), its targets.
        clip: Above 0, in units of the reward; None: no clipping.

    Returns:
        (...), in squared units of the reward.
    """
    error = (values - returns).square()
    if clip is not None:
        error = torch.maximum(error, (old + (values - old).clamp(-clip, clip) - returns).square())
    return error / 2


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 a constant, below 0 a worse one.

    Args:
        values: (N,).
        returns: (N,); where they do not vary there is nothing to explain, and the answer is NaN.
    """
    spread = returns.var(correction=0)
    return (1 - (returns - values).var(correction=0) / spread).item() if spread > 0 else float("nan")
