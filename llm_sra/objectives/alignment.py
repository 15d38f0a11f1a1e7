"""Advantage alignment: credit for what was good for the other while things went well for oneself.

Sources: Duque et al., *Advantage Alignment Algorithms* (arXiv 2406.14662), by which a policy gradient shapes its
opponent: A*_t = A¹_t + β γ (Σ_{k<t} γ^(t-k) A¹_k) A²_t. For LLMs, with a group-relative baseline in place of a critic:
Piche et al., *Learning Robust Social Strategies with Large Language Models* (arXiv 2511.19405, AdAlign). Built from
abstracts and the formulas in the authors' repositories; the papers' full texts were not at hand.
"""

import torch


def alignment_term(own: torch.Tensor, others: torch.Tensor, coef: float, gamma: float) -> torch.Tensor:
    """β γ (Σ_{k<t} γ^(t-k) A_k) B_t of one player in one episode: what is added to its advantages A_t.

    Args:
        own: (K,), A_t, advantages of its K turns, in units of the reward.
        others: (K,), B_t, what the same turns brought the other players: the sum of their advantages, in that unit.
        coef: β, 0 or more, per unit of the reward.
        gamma: Discount from one turn to the next, in [0, 1].

    Returns:
        (K,), in units of the reward; 0 for the first turn, which has nothing before it.
    """
    past = torch.zeros_like(own)
    for t in range(1, len(own)):
        past[t] = gamma * (past[t - 1] + own[t - 1])
    return coef * gamma * past * others
