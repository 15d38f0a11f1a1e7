"""The adversary's tether to the live partner, in either direction of the Kullback-Leibler divergence.

Source: SRPO (arXiv 2602.21515). The adversary φ of hero i maximises E[-R_i] - (1/τ) KL(φ ‖ π), π being the live
partner. The KL is of whole replies: a sum over the adversary's own tokens of an episode. These are the formulas;
`trainer.scorer` measures the log-probabilities on a rollout.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch

Nats = TypeVar("Nats", float, torch.Tensor)


@dataclass(frozen=True, slots=True)
class Tether:
    """How strongly adversaries are tied to their live partners, and where they pay for it.

    Attributes:
        tau: Degree of risk aversion, above 0; one nat costs 1/τ units of the reward. `inf`: no tether.
        in_reward: KL(φ ‖ π), sampled, in the adversary's reward. Else KL(π ‖ φ), exact, in its loss.
    """

    tau: float
    in_reward: bool = True

    def cost(self, nats: Nats) -> Nats:
        """Divergence in nats to units of the reward."""
        return nats / self.tau

    def reward_cost(self, nats: Nats) -> Nats:
        """What a divergence in nats takes from the reward, in its units: 0 where the tether is in the loss."""
        return self.cost(nats) if self.in_reward else 0.0 * nats

    def adversary_return(self, hero_return: torch.Tensor, nats: torch.Tensor) -> torch.Tensor:
        """(E,) returns of an adversary; see `tethered_return`.

        Args:
            hero_return: (E,), R_i, in units of the reward.
            nats: (E,), Σ (log φ - log π) over all that the adversary said in the episode.
        """
        return tethered_return(hero_return, nats if self.in_reward else 0.0 * nats, torch.zeros(()), self.tau)


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
        ValueError: If τ is not above 0: at τ = 0 the live partner takes the adversary's seat.
    """
    if tau <= 0:
        raise ValueError(f"an adversary needs tau above 0, got {tau}; with 0 the live partner takes its seat")
    return -hero_return - (adversary_logprobs - partner_logprobs) / tau


def exact_tether(partner_logits: torch.Tensor, adversary_logits: torch.Tensor) -> torch.Tensor:
    """The other direction, KL(π ‖ φ), exact over the vocabulary at each token.

    It only demands that φ keeps some mass where π has mass; KL(φ ‖ π) forbids φ what π never does.

    Args:
        partner_logits: (B, T, V), of the live partner π; no gradient flows into them.
        adversary_logits: (B, T, V), of φ, divided by the same temperature.

    Returns:
        (B, T), in nats, 0 or more.
    """
    partner = partner_logits.detach().float().log_softmax(dim=-1)
    return (partner.exp() * (partner - adversary_logits.float().log_softmax(dim=-1))).sum(dim=-1)
