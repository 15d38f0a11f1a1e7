"""What is logged of a step, and what a user is warned of."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from llm_sra.protocol.check import unpaid
from llm_sra.task import Episode, Reward, Task
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
        self._without_room: set[str] = set()  # policies that were warned of
        self._entropy = _Lasting(metrics.LASTING)
        self._variance = _Lasting(metrics.LASTING)

    def numbers(
        self, rollout: Rollout, losses: Mapping[str, float], seconds: Mapping[str, float], tau: float
    ) -> dict[str, float]:
        """The numbers of a step, by name; all processes must call this.

        Args:
            rollout: Rollout of the step.
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
        """Warn of policies that no longer learn, once that has lasted, and of policies whose entropy keeps growing.

        Args:
            numbers: Numbers of the step.
            step: Its number, counted from 1.
        """
        if lasting := self._entropy.begun(metrics.without_entropy(numbers)):
            logger.warning(
                "step %d: the entropy of %s has been below %g nats a token for %d steps: it says nearly always the "
                "same, and most of its groups earn the same, so it no longer explores. If its task is not solved, go "
                "back to an earlier checkpoint with a higher entropy_coef (adversary_entropy_coef for an adversary) or "
                "a lower learning_rate",
                step,
                ", ".join(lasting),
                metrics.COLLAPSED_ENTROPY,
                metrics.LASTING,
            )
        if lasting := self._variance.begun(metrics.without_variance(numbers)):
            logger.warning(
                "step %d: for %d steps nearly all groups of %s have had no variance: all episodes of a problem earned "
                "the same, so nothing is learned from them (entropy now: %s nats a token). If every problem is solved, "
                "training is done; else take easier problems, more num_generations, or rewards for parts of a solution",
                step,
                metrics.LASTING,
                ", ".join(lasting),
                ", ".join(f"{numbers.get(f'policy/{name}/entropy', math.nan):.2g}" for name in lasting),
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

    def warn_of_room(self, episodes: Sequence[Episode], contexts: Mapping[str, int], limit: int) -> None:
        """Warn, once of each policy, of replies for which the context of its model had too little room.

        Args:
            episodes: Of a step.
            contexts: Tokens that a prompt and its reply may have together, by adapter.
            limit: Most tokens of a reply.
        """
        turns, cut = Counter[str](), Counter[str]()
        for turn in (turn for episode in episodes for turn in episode.turns if turn.policy in contexts):
            tokens = len(turn.reply.token_ids)
            full = turn.reply.finish != "stop" and len(turn.prompt_ids) + tokens >= contexts[turn.policy]
            turns[turn.policy] += 1
            cut[turn.policy] += full and tokens < limit
        for policy in sorted(name for name, count in cut.items() if count and name not in self._without_room):
            self._without_room.add(policy)
            logger.warning(
                "the context of %d tokens had no room for %d of the %d replies of %s in seat %s: they were cut, or "
                "nothing was said. Take a model with a longer context, raise vllm_max_model_length or a server's "
                "--max-model-len if they are less, or shorten what the seat sees",
                contexts[policy],
                cut[policy],
                turns[policy],
                policy,
                " and ".join(self._arm.seats[policy]),
            )

    def warn_of_pay(self, task: Task, episodes: Sequence[Episode]) -> None:
        """Warn of a seat that was paid nothing in the episodes of a step."""
        returns = [
            {seat: float(any(reward != Reward() for reward in rewards)) for seat, rewards in episode.rewards.items()}
            for episode in episodes
        ]
        if finding := unpaid(task, returns):
            logger.warning("%s", finding.text)


class _Lasting:
    """Counts for how many steps in a row something holds.

    Args:
        steps: After so many it is said, once.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._counts: dict[str, int] = {}

    def begun(self, names: Sequence[str]) -> list[str]:
        """Those for which it has now held for so many steps.

        Args:
            names: For which it holds in this step.
        """
        self._counts = {name: self._counts.get(name, 0) + 1 for name in names}
        return [name for name, count in self._counts.items() if count == self._steps]
