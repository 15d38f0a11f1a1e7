"""What is logged of a step, and what a user is warned of."""

import logging
from collections.abc import Mapping

from llm_sra.trainer import metrics
from llm_sra.trainer.arms import Arm
from llm_sra.trainer.rollout import Rollout

logger = logging.getLogger(__name__)


class StepReport:
    """Turns steps into numbers and warnings.

    Args:
        arm: The adapters.
        means: What was measured by token; begins anew with each step.
    """

    def __init__(self, arm: Arm, means: metrics.TokenMeans) -> None:
        self._arm, self._means = arm, means
        self._first: Mapping[str, float] = {}

    def numbers(
        self, rollout: Rollout, losses: Mapping[str, float], seconds: Mapping[str, float], tau: float
    ) -> dict[str, float]:
        """The numbers of a step, by name; all processes must call this.

        Args:
            rollout: Of the step.
            losses: By adapter.
            seconds: By part of the step.
            tau: Degree of risk aversion of the step.
        """
        numbers = metrics.play_metrics(rollout)
        numbers |= self._means.reduce()
        for adversary, partner in self._arm.adversaries.items():
            numbers |= metrics.entropy_gaps(numbers, adversary, partner)
        if self._arm.adversaries:
            numbers["tau"] = tau
        numbers |= {f"policy/{adapter}/loss": loss for adapter, loss in losses.items()}
        numbers |= {f"time/{name}": value for name, value in seconds.items()}
        return numbers

    def divergence(self, numbers: Mapping[str, float]) -> float:
        """Mean KL of the adversaries to their partners, in nats an episode."""
        nats = [numbers.get(f"policy/{adversary}/kl_to_partner", 0.0) for adversary in self._arm.adversaries]
        return sum(nats) / len(nats)

    def warn(self, numbers: Mapping[str, float], step: int) -> None:
        """Warn of policies that no longer explore, and of such as explore ever more.

        Args:
            numbers: Of the step.
            step: Its number, counted from 1.
        """
        if collapsed := metrics.collapsed_policies(numbers):
            logger.warning(
                "step %d: %s no longer explores: its entropy, or the variance of its groups, is almost 0, so training "
                "will hardly change it any more. Raise its entropy bonus, or lower its learning rate",
                step,
                ", ".join(collapsed),
            )
        self._first = self._first or numbers
        if exploding := metrics.exploding_policies(numbers, self._first):
            logger.warning(
                "step %d: the entropy of %s is more than %g times that of the first step. Its replies turn into noise: "
                "the entropy bonus pays more for noise than the task pays for solutions. Lower the bonus, or the token "
                "limit of replies",
                step,
                ", ".join(exploding),
                metrics.EXPLODING_ENTROPY,
            )
