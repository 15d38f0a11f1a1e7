"""Episodes to advantages: who is credited with what, in units of the reward.

Each rule is a pure function in a file of its own. This package neither plays nor trains.
"""

from llm_sra.credit.group import group_advantages, groups_without_variance
from llm_sra.credit.tether import exact_tether, tethered_return

__all__ = ["exact_tether", "group_advantages", "groups_without_variance", "tethered_return"]
