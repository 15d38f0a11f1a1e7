"""What a configuration's values must be: every rule of the table fires, and says what to do."""

from dataclasses import MISSING, fields
from typing import Any

import pytest

from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.config_rules import Rule, all_rules, check_rules, first_broken
from llm_sra.trainer.fields import refused_of

NAN = float("nan")
POOL = {"partners": "pool.yaml"}

# What breaks a rule, and what the message says; of single values the nearest that is refused.
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"tau": -0.1}, "tau must be 0 or more, got -0.1"),
    ({"tau": NAN}, "tau must be 0 or more, got nan"),
    ({"tau": "10"}, "tau must be 0 or more, got '10'"),
    ({"entropy_coef": -1}, "entropy_coef must be 0 or more, got -1"),
    ({"adversary_entropy_coef": -1}, "adversary_entropy_coef must be 0 or more, got -1"),
    ({"choices_coef": -1}, "choices_coef must be 0 or more, got -1"),
    ({"seeded_rollouts": True}, "seeded_rollouts has no effect with engine transformers"),
    ({"preferences": {"effort": 1}, "arm": "untrained"}, "preferences are learned, and arm untrained learns nothing"),
    ({"influence_coef": -1}, "influence_coef must be 0 or more, got -1"),
    ({"influence_coef": 0.1}, "influence_coef credits influence on a live partner: set arm to ippo, got srpo"),
    ({"influence_coef": 0.1, "arm": "ippo", "loss_type": "grpo"}, "set loss_type to dapo or dr_grpo, got grpo"),
    (
        {"influence_coef": 0.1, "arm": "ippo", "importance_sampling_level": "sequence"},
        "importance_sampling_level sequence averages away: set it to token",
    ),
    ({"population_entropy_coef": -1}, "population_entropy_coef must be 0 or more, got -1"),
    ({"population": 1}, "population must be 2 or more, got 1"),
    ({"population": 2}, "population and arm mep go together: give both or neither"),
    ({"arm": "mep"}, "population and arm mep go together"),
    ({"arm": "mep", "population": 2}, "is what arm mep is for, and of that arm alone: got 0 with arm mep"),
    ({"population_entropy_coef": 0.1}, "is what arm mep is for, and of that arm alone: got 0.1 with arm srpo"),
    ({"risk_power": -1}, "risk_power must be 0 or more and finite, got -1"),
    ({"alignment_coef": -1}, "alignment_coef must be 0 or more, got -1"),
    ({"algorithm": "adalign"}, "algorithm adalign aligns agents that learn with each other: set arm to ippo, got srpo"),
    ({"arm": "ippo", "alignment_coef": 2.0}, "alignment_coef is an option of adalign/turn"),
    ({"adversary_updates": 0}, "adversary_updates must be 1 or more, got 0"),
    ({"problems_per_step": 0}, "problems_per_step must be 1 or more, got 0"),
    ({"num_iterations": 0}, "num_iterations must be 1 or more, got 0"),
    ({"num_generations": 1}, "num_generations must be 2 or more, got 1"),
    ({"rollout_batch_size": 0}, "rollout_batch_size must be 1 or more, got 0"),
    ({"dev_problems": 0}, "dev_problems must be 1 or more, got 0"),
    ({"log_episodes": -2}, "log_episodes must be -1 or more, got -2"),
    ({"tau_schedule_steps": 0}, "tau_schedule_steps must be 1 or more, got 0"),
    ({"partners_per_step": 0}, "partners_per_step must be 1 or more, got 0"),
    ({"adversary_reset_steps": 0}, "adversary_reset_steps must be 1 or more, got 0"),
    ({"learning_rate": float("inf")}, "learning_rate must be finite, 0 or more, got inf"),
    ({"learning_rate": -1e-9}, "learning_rate must be finite, 0 or more, got -1e-09"),
    ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, got -1"),
    ({"seed": 2**32}, "seed must be a whole number from 0 to 4294967295, got 4294967296"),
    ({"gamma": 1.01}, "gamma must lie in [0, 1], got 1.01"),
    ({"gamma": -0.01}, "gamma must lie in [0, 1], got -0.01"),
    ({"gae_lambda": 1.01}, "gae_lambda must lie in [0, 1], got 1.01"),
    ({"risk_smoothing": 1.0}, "risk_smoothing must lie in [0, 1), got 1.0"),
    ({"adversary_mix": 1.0}, "adversary_mix must lie in [0, 1), got 1.0"),
    ({"value_clip": 0}, "value_clip must be above 0, or left out, got 0"),
    ({"target_kl": 0}, "target_kl must be above 0, or left out, got 0"),
    ({"temperature": 0}, "temperature must be above 0 (greedy replies teach nothing), got 0"),
    ({"risk_alpha": 0}, "risk_alpha must lie in (0, 1], got 0"),
    ({"risk_alpha": 1.01}, "risk_alpha must lie in (0, 1], got 1.01"),
    ({**POOL, "tau": float("inf")}, "tau must be finite with risk entropic (its limit is worst_case), got inf"),
    ({"tau_schedule": "target_kl"}, "tau_schedule target_kl and target_kl go together: give both or neither"),
    ({"target_kl": 1.0}, "tau_schedule target_kl and target_kl go together: give both or neither"),
    ({"tau_schedule": "linear", "arm": "ippo"}, "tau_schedule linear needs a learned adversary: set arm to srpo"),
    ({"tau_schedule": "linear", "tau": 0}, "tau_schedule linear needs a learned adversary"),
    ({"tau_schedule": "linear", **POOL}, "tau_schedule linear needs a learned adversary"),
    ({"tau_schedule": "linear", "tau_start": 0}, "tau_start must be above 0 (with 0 there is no adversary), got 0"),
    ({"arm": "fcp", "risk": "expectation"}, "arm fcp needs `partners`: the roster of the pool"),
    ({"arm": "ippo", **POOL}, "`partners` go with arm srpo or fcp, not with ippo"),
    ({"arm": "fcp", **POOL}, "arm fcp learns a best response to the pool: set risk to expectation (its mean) or rank"),
    ({"partners_per_step": 1}, "partners_per_step and risk_smoothing need `partners`"),
    ({"risk_smoothing": 0.5}, "partners_per_step and risk_smoothing need `partners`"),
    ({"arm": "ippo", "adversary_mix": 0.5}, "need adversaries; arm ippo with tau 10 has none"),
    ({"tau": 0, "adversary_reset_steps": 1}, "need adversaries; arm srpo with tau 0 has none"),
    ({**POOL, "adversary_reset_steps": 1}, "adversary_reset_steps needs learned adversaries, not `partners`"),
    (
        {"importance_sampling_level": "sequence", "advantage_level": "turn"},
        "averages the advantages of single turns away: set advantage_level to episode",
    ),
    ({"importance_sampling_level": "sequence", "algorithm": "ppo"}, "the advantages of single tokens away"),
    ({"loss_type": "luspo"}, "loss_type luspo needs importance_sampling_level sequence"),
    ({"load_best_model_at_end": True}, "load_best_model_at_end needs dev_roster"),
    ({"loss_type": "cispo"}, "epsilon_high must be 1 or more with loss_type cispo (5 is usual), got None"),
    ({"loss_type": "cispo", "epsilon_high": 0.99}, "loss_type cispo (5 is usual), got 0.99"),
    *(({name: "else"}, f"{name} must stay ") for name in refused_of(SRPOConfig)),
    ({"algorithm": "ppo", "scale_rewards": "group"}, "scale_rewards is an option of grpo/episode (algorithm/advantage"),
    ({"advantage_level": "turn", "scale_rewards": "batch"}, "not of grpo/turn: leave it out"),
    (
        {"algorithm": "ppo", "advantage_baseline": "leave_one_out"},
        "is an option of adalign/turn, grpo/episode, grpo/turn",
    ),
    ({"whiten_advantages": True}, "whiten_advantages is an option of ppo/token, ppo/turn"),
    ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps must stay 1 (per_device_train_batch_size is the"),
    ({"steps_per_generation": 2}, "steps_per_generation must stay None (one step is one rollout"),
    ({"generation_batch_size": 8}, "generation_batch_size must stay None (set problems_per_step and num_generations)"),
    ({"num_generations_eval": 1}, "num_generations_eval must stay None (evaluations play the dev roster"),
    (
        {"top_p": 0.9},
        "top_p must stay 1.0 (the trained log-probabilities are those of the whole distribution)",
    ),
    ({"top_k": 50}, "top_k must stay 0"),
    ({"min_p": 0.1}, "min_p must stay None"),
    ({"repetition_penalty": 1.1}, "repetition_penalty must stay 1.0"),
    ({"use_vllm": True}, "use_vllm must stay False (TRL's own vLLM sync merges one adapter into the base"),
    ({"use_adaptive_entropy": True}, "use_adaptive_entropy must stay False"),
    ({"top_entropy_quantile": 0.5}, "top_entropy_quantile must stay 1.0"),
    ({"fp16": True}, "fp16 must stay False (use bf16, or float32)"),
    ({"logging_nan_inf_filter": True}, "logging_nan_inf_filter must stay False (a NaN is an error"),
]


def unchecked(**values: Any) -> SRPOConfig:
    """A configuration of the defaults and these values that nothing has checked or completed."""
    config = SRPOConfig.__new__(SRPOConfig)
    for field in fields(SRPOConfig):
        value = field.default_factory() if field.default_factory is not MISSING else field.default
        object.__setattr__(config, field.name, values.get(field.name, value))
    return config


def broken_by(values: dict[str, Any]) -> Rule | None:
    return first_broken(unchecked(**values))


def test_the_defaults_keep_every_rule() -> None:
    assert broken_by({}) is None


@pytest.mark.parametrize(("values", "message"), BROKEN, ids=[" ".join(values) for values, _ in BROKEN])
def test_a_rule_that_is_broken_says_what_came_and_what_to_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_rules(unchecked(**values))
    assert message in str(caught.value)
    rule = broken_by(values)
    assert rule is not None and set(rule.fields) & values.keys()


def test_every_rule_of_the_table_is_fired_by_an_example() -> None:
    fired = {rule.message for values, _ in BROKEN if (rule := broken_by(values)) is not None}
    assert [rule.message for rule in all_rules() if rule.message not in fired] == []
    assert len({rule.message for rule in all_rules()}) == len(all_rules())  # one message, one rule


def test_every_rule_is_about_fields_that_exist() -> None:
    known = {field.name for field in fields(SRPOConfig)}
    assert {name for rule in all_rules() for name in rule.fields} <= known


@pytest.mark.parametrize(
    "values",
    [
        {"tau": 0},
        {"tau": float("inf")},
        {"tau": float("inf"), "risk": "worst_case", **POOL},
        {"gamma": 0, "gae_lambda": 1},
        {"risk_alpha": 1.0},
        {"tau_schedule": "target_kl", "target_kl": 0.1},
        {"tau_schedule": "linear", "tau_start": 0.1},
        {"arm": "fcp", "risk": "expectation", **POOL},
        {**POOL, "partners_per_step": 1, "risk_smoothing": 0.5},
        {"arm": "fcp", "risk": "rank", "risk_power": 0, **POOL},
        {"arm": "mep", "population": 2, "population_entropy_coef": 0.01},
        {"arm": "ippo", "influence_coef": 0.1, "loss_type": "dr_grpo"},
        {"loss_type": "cispo", "epsilon_high": 1.0},
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
        {"algorithm": "ppo", "whiten_advantages": True},
        {"advantage_level": "turn", "advantage_baseline": "leave_one_out"},
        {"arm": "ippo", "algorithm": "adalign", "alignment_coef": 0, "advantage_baseline": "leave_one_out"},
        {"top_k": None},
    ],
)
def test_values_at_the_edge_keep_every_rule(values: dict[str, Any]) -> None:
    assert broken_by(values) is None
