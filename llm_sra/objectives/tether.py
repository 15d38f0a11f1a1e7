"""The adversary's tether to the live partner, in either direction of the Kullback-Leibler divergence.

Source: SRPO (arXiv 2602.21515). The adversary φ of hero i maximises E[-R_i] - (1/τ) KL(φ ‖ π), π being the live
partner. The KL is of whole replies: a sum over the adversary's own tokens of an episode.
"""

import torch


def tethered_return(
    hero_return: torch.Tensor, adversary_logprobs: torch.Tensor, partner_logprobs: torch.Tensor, tau: float
) -> torch.Tensor:
    """What an adversary gets for an episode: -R_i - (1/τ) Σ_t (log φ_t - log π_t), the k1 estimate of the KL.

    Both log-probabilities must be of the same tokens after the same prompts, at the same temperature, from the same
    engine: the difference of two engines' rounding would be taken for a divergence.

    Args:
        hero_return: (E,), R_i, in units of the reward.
        adversary_logprobs: (E,), log φ summed over all tokens that the adversary said in the episode, in nats.
        partner_logprobs: (E,), log π of the same tokens, summed alike.
        tau: Degree of risk aversion, above 0; the tether weighs 1/τ units of the reward per nat.

    Returns:
        (E,), in units of the reward.

    Raises:
        ValueError: If τ is not above 0: at τ = 0 the live partner itself sits in the seat, and there is no adversary.
    """
    if tau <= 0:
        raise ValueError(f"an adversary needs tau above 0, got {tau}; at 0 the live partner itself is seated")
    return -hero_return - (adversary_logprobs - partner_logprobs) / tau


def exact_tether(partner_logits: torch.Tensor, adversary_logits: torch.Tensor) -> torch.Tensor:
    """The other direction, KL(π ‖ φ), exact over the vocabulary at each token.

    It asks only that φ keeps some mass where π has mass, while KL(φ ‖ π) forbids φ what π never does.

    Args:
        partner_logits: (B, T, V), of the live partner π; no gradient flows into them.
        adversary_logits: (B, T, V), of φ, divided by the same temperature.

    Returns:
        (B, T), in nats, 0 or more.
    """
    partner = partner_logits.detach().float().log_softmax(dim=-1)
    return (partner.exp() * (partner - adversary_logits.float().log_softmax(dim=-1))).sum(dim=-1)
