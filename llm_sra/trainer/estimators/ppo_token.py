"""PPO by tokens: generalised advantage estimation in which every token is a decision (see `objectives.gae`)."""

from llm_sra.trainer.critic_credit import credit_with_critic
from llm_sra.trainer.estimators.base import EstimatorInputs, estimator


@estimator("ppo", "token", "one for a token", takes=("whiten_advantages",), needs_critic=True, default=True)
def ppo_token(inputs: EstimatorInputs) -> None:
    """Fill in advantages and the critic's targets; all processes must call this."""
    options = inputs.options
    decisions = inputs.rollout, inputs.episodes, inputs.tether
    credit_with_critic(*decisions, "token", options.gamma, options.gae_lambda, options.whiten_advantages)
