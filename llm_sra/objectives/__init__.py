"""Episodes to advantages: who is credited with what, in units of the reward.

Each rule is a pure function in a file of its own; risk measures (`risk`) and baselines (`baselines`) are entries of
registries. This package neither plays nor trains.
"""

from llm_sra.objectives.gae import explained_variance, gae, value_loss
from llm_sra.objectives.group import group_advantages, groups_without_variance
from llm_sra.objectives.tether import Tether, exact_tether, tethered_return
from llm_sra.objectives.turns import discounted_to_go, returns_to_go, turn_rewards

__all__ = [
    "Tether",
    "discounted_to_go",
    "exact_tether",
    "explained_variance",
    "gae",
    "group_advantages",
    "groups_without_variance",
    "returns_to_go",
    "tethered_return",
    "turn_rewards",
    "value_loss",
]
