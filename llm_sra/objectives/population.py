"""Population entropy: what makes a population of policies diverse.

Source: Zhao et al., *Maximum Entropy Population-Based Training for Zero-Shot Human-AI Coordination* (MEP, arXiv
2112.11701): each policy of a population maximises E Σ_t (r_t + α H(π̄(· | s_t))), π̄ being the mean of the population's
policies, by the reward r_t - α log π̄(a_t | s_t). Built from the abstract and from memory of the formula; the full text
was not at hand.
"""

import math

import torch


def surprise(logprobs: torch.Tensor) -> torch.Tensor:
    """-log π̄(a) of tokens under the mean of n policies: a sample of their mean's entropy if π̄ drew them.

    Args:
        logprobs: (n, ...), of the same tokens under each policy, in nats.

    Returns:
        (...), in nats, 0 or more.
    """
    return math.log(len(logprobs)) - logprobs.logsumexp(dim=0)
