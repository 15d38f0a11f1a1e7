"""PPO by turns: generalised advantage estimation in which every turn is a decision (see `objectives.gae`)."""

from llm_sra.trainer.critic_credit import credit_with_critic
from llm_sra.trainer.estimators.base import EstimatorInputs, estimator


@estimator("ppo", "turn", "one for a turn", takes=("whiten_advantages",), needs_critic=True)
def ppo_turn(inputs: EstimatorInputs) -> None:
    """Fill in advantages and the critic's targets; all processes must call this."""
    options = inputs.options
    decisions = inputs.rollout, inputs.episodes, inputs.tether
    credit_with_critic(*decisions, "turn", options.gamma, options.gae_lambda, options.whiten_advantages)
