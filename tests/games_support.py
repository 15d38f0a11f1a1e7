"""What the tests of the oracle share."""

from llm_sra.games import RiskProfile

NASH = RiskProfile.same(0, 0)
PROFILES = [(0, 0.3), (1, 0.2), (10, 0.03), (3, 0.1), (1000, 0.01)]


def second_actions(found):
    """Both probabilities of the second action, of each equilibrium."""
    return [(float(each.policies[0][1]), float(each.policies[1][1])) for each in found]
