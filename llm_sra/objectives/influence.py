"""Causal influence of what was said on what was said next, as credit: Dr. MAMR's answer to lazy agents.

Source: Zhang et al., *Unlocking the Power of Multi-Agent LLM for Reasoning: From Lazy Agents to Deliberation* (arXiv
2511.02303). It drops the factor 1/T (T turns) from GRPO's sum over turns, which favours short and lazy episodes, and
adds to the advantage of each step α C̃: the step's causal influence CI, normalised. CI(s) is the mean, over all steps
like s, of Δℓ = log p(next step | everything) - log p(next step | everything but the step). Built from the abstract and
from summaries of the paper, whose full text was not at hand.

Where this differs: steps are alike if they say the same on the same problem (the paper compares embeddings). A step is
taken out of the view before it is rendered (the paper masks attention to it). Advantages of outcomes are not divided by
a standard deviation. The reward for restarts, β R̃, is not here. Uncertain: how the paper normalises CI, and whether Δℓ
is summed over tokens; here it is, and C̃ has mean 0 and variance 1 over a policy's turns of a step of training.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from statistics import fmean, pstdev

SLACK = 1e-4  # added to a standard deviation, in nats


def shared_influence(alike: Sequence[Hashable], nats: Sequence[float]) -> list[float]:
    """CI of each turn: the mean of Δℓ over the turns like it.

    Args:
        alike: (N,), equal for turns that are alike.
        nats: (N,), Δℓ of each.

    Returns:
        (N,), in nats.
    """
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for key, value in zip(alike, nats, strict=True):
        groups[key].append(value)
    return [fmean(groups[key]) for key in alike]


def standardised(values: Sequence[float], everyone: Sequence[float]) -> list[float]:
    """C̃: values minus the mean of `everyone`, divided by their standard deviation.

    Args:
        values: (N,), in nats.
        everyone: (M,), of all processes, one or more.

    Returns:
        (N,), without a unit.
    """
    mean, spread = fmean(everyone), pstdev(everyone)
    return [(value - mean) / (spread + SLACK) for value in values]
