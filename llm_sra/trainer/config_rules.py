"""What a configuration's values must be, alone and together: one table of rules, each with its message.

A rule checks and explains; it never changes a value. Rules of single risk measures and estimators come from their
registries. Fields that hold one of several names are checked in `literals`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from trl import GRPOConfig

from llm_sra.objectives.risk import RISKS, RiskMeasure, RiskOption
from llm_sra.trainer.arms import has_adversaries
from llm_sra.trainer.estimators import ESTIMATORS, EstimatorOptions
from llm_sra.trainer.fields import REFUSED, changed, default_of, refused_of
from llm_sra.trainer.loss import ROW_MEAN
from llm_sra.trainer.values import RANGES, Range

Config = Any  # an SRPOConfig, whose module imports this one


@dataclass(frozen=True, slots=True)
class Rule:
    """What values of a configuration must be.

    Attributes:
        fields: Names of the fields that it is about.
        broken: Whether a configuration breaks it.
        message: What is wrong and what to do; `{c.tau}` stands for the value of `tau`, `{default}` for the
            default of the first field.
    """

    fields: tuple[str, ...]
    broken: Callable[[Config], bool]
    message: str

    def explain(self, config: Config) -> str:
        """The message for a configuration that breaks the rule."""
        return self.message.format(c=config, default=default_of(type(config), self.fields[0]))


def check_rules(config: Config) -> None:
    """Raise the first rule that a configuration breaks.

    Raises:
        ValueError: With the rule's message.
    """
    rule = first_broken(config)
    if rule is not None:
        raise ValueError(rule.explain(config))


def first_broken(config: Config) -> Rule | None:
    """The first rule that a configuration breaks; None if it keeps all."""
    return next((rule for rule in all_rules() if rule.broken(config)), None)


def all_rules() -> list[Rule]:
    """Every rule, in the order in which they are checked: single values first, then combinations."""
    return [*SINGLE, *_risk_rules(), *COMBINED, *_estimator_rules(), *FIXED]


def _rule(allowed: Range) -> Rule:
    field = allowed.field
    message = f"{field} must {allowed.must}, got {{c.{field}!r}}"
    return Rule((field,), lambda config: not allowed.holds(getattr(config, field)), message)


SINGLE = tuple(map(_rule, RANGES))


def _no_adversaries(config: Config) -> bool:
    """Whether heroes meet neither adversaries nor sampled partners."""
    return config.partners is None and not has_adversaries(config.arm, config.tau, sampled=False)


COMBINED = (
    Rule(
        ("seeded_rollouts", "engine"),
        lambda c: c.seeded_rollouts is not None and c.engine == "transformers",
        "seeded_rollouts has no effect with engine transformers, which always draws by seeds: leave it out, or set "
        "engine to vllm or server",
    ),
    Rule(
        ("tau_schedule", "target_kl"),
        lambda c: (c.tau_schedule == "target_kl") != (c.target_kl is not None),
        "tau_schedule target_kl and target_kl go together: give both or neither",
    ),
    Rule(
        ("tau_schedule", "arm", "tau", "partners"),
        lambda c: c.tau_schedule != "constant" and not (c.arm == "srpo" and c.tau > 0 and c.partners is None),
        "tau_schedule {c.tau_schedule} needs a learned adversary: set arm to srpo and tau above 0, without `partners`",
    ),
    Rule(
        ("tau_start", "tau_schedule"),
        lambda c: c.tau_schedule == "linear" and not c.tau_start > 0,
        "tau_start must be above 0 (with 0 there is no adversary), got {c.tau_start!r}",
    ),
    Rule(
        ("population", "arm"),
        lambda c: (c.arm == "mep") != (c.population is not None),
        "population and arm mep go together: give both or neither",
    ),
    Rule(
        ("population_entropy_coef", "arm"),
        lambda c: (c.arm == "mep") != bool(c.population_entropy_coef),
        "population_entropy_coef is what arm mep is for, and of that arm alone: got {c.population_entropy_coef:g} with "
        "arm {c.arm}",
    ),
    Rule(
        ("arm", "partners"),
        lambda c: c.arm == "fcp" and c.partners is None,
        "arm fcp needs `partners`: the roster of the pool to learn best responses to",
    ),
    Rule(
        ("partners", "arm"),
        lambda c: c.partners is not None and c.arm not in ("srpo", "fcp"),
        "`partners` go with arm srpo or fcp, not with {c.arm}",
    ),
    Rule(
        ("arm", "risk"),
        lambda c: c.arm == "fcp" and c.risk not in ("expectation", "rank"),
        "arm fcp learns a best response to the pool: set risk to expectation (its mean) or rank, or arm to srpo",
    ),
    Rule(
        ("partners_per_step", "risk_smoothing", "partners"),
        lambda c: c.partners is None and bool(c.partners_per_step is not None or c.risk_smoothing),
        "partners_per_step and risk_smoothing need `partners`",
    ),
    Rule(
        ("adversary_mix", "adversary_reset_steps", "arm"),
        lambda c: _no_adversaries(c) and bool(c.adversary_mix or c.adversary_reset_steps),
        "adversary_mix and adversary_reset_steps need adversaries; arm {c.arm} with tau {c.tau:g} has none",
    ),
    Rule(
        ("adversary_reset_steps", "partners"),
        lambda c: c.partners is not None and bool(c.adversary_reset_steps),
        "adversary_reset_steps needs learned adversaries, not `partners`",
    ),
    Rule(
        ("preferences", "arm"),
        lambda c: bool(c.preferences) and c.arm == "untrained",
        "preferences are learned, and arm untrained learns nothing: set arm to ippo, or leave them out",
    ),
    Rule(
        ("algorithm", "arm"),
        lambda c: c.algorithm == "adalign" and c.arm not in ("ippo", "untrained"),
        "algorithm adalign aligns agents that learn with each other: set arm to ippo, got {c.arm}",
    ),
    Rule(
        ("influence_coef", "arm"),
        lambda c: bool(c.influence_coef) and c.arm not in ("ippo", "untrained"),
        "influence_coef credits influence on a live partner: set arm to ippo, got {c.arm}",
    ),
    Rule(
        ("influence_coef", "loss_type"),
        lambda c: bool(c.influence_coef) and c.loss_type in ROW_MEAN,
        "influence_coef goes with losses that do not divide by an episode's length, which favours lazy agents: set "
        "loss_type to dapo or dr_grpo, got {c.loss_type}",
    ),
    Rule(
        ("influence_coef", "importance_sampling_level"),
        lambda c: bool(c.influence_coef) and c.importance_sampling_level == "sequence",
        "influence_coef credits single turns, which importance_sampling_level sequence averages away: set it to token",
    ),
    Rule(
        ("importance_sampling_level", "advantage_level"),
        lambda c: c.importance_sampling_level == "sequence" and c.level != "episode",
        "importance_sampling_level sequence weights whole rows, which averages the advantages of single {c.level}s "
        "away: set advantage_level to episode",
    ),
    Rule(
        ("loss_type", "importance_sampling_level"),
        lambda c: c.loss_type == "luspo" and c.importance_sampling_level != "sequence",
        "loss_type luspo needs importance_sampling_level sequence; with token it is dr_grpo, scaled",
    ),
    Rule(
        ("load_best_model_at_end", "dev_roster"),
        lambda c: c.load_best_model_at_end and not c.dev_roster,
        "load_best_model_at_end needs dev_roster, whose partners decide which model is best",
    ),
    Rule(
        ("epsilon_high", "loss_type"),
        lambda c: c.loss_type == "cispo" and (c.epsilon if c.epsilon_high is None else c.epsilon_high) < 1,
        "epsilon_high must be 1 or more with loss_type cispo (5 is usual), got {c.epsilon_high} (without it epsilon, "
        "{c.epsilon}): it is the largest ratio itself there, and less would shrink the policy term against entropy and "
        "tether",
    ),
)


def _must_stay(field: str) -> Rule:
    return Rule(
        (field,),
        lambda config: changed(config, field),
        f"{field} must stay {{default!r}} ({REFUSED[field]}), got {{c.{field}!r}}",
    )


FIXED = tuple(_must_stay(field) for field in refused_of(GRPOConfig))


def _risk_rules() -> Iterator[Rule]:
    for measure in RISKS.values():
        for option in measure.options:
            yield _risk_rule(measure, option)


def _risk_rule(measure: RiskMeasure, option: RiskOption) -> Rule:
    def broken(config: Config) -> bool:
        used = config.partners is not None and config.risk == measure.name
        return (option.own or used) and not option.holds(getattr(config, option.field))

    fields = (option.field,) if option.own else ("risk", option.field)
    return Rule(fields, broken, f"{option.field} must {option.must}, got {{c.{option.field}!r}}")


def _estimator_rules() -> Iterator[Rule]:
    for option in dict.fromkeys(option for entry in ESTIMATORS.values() for option in entry.takes):
        yield _estimator_rule(option)


def _estimator_rule(option: str) -> Rule:
    takers = ", ".join(name for name, entry in ESTIMATORS.items() if option in entry.takes)
    default = getattr(EstimatorOptions(), option)
    return Rule(
        (option, "algorithm", "advantage_level"),
        lambda config: getattr(config, option) != default and option not in config.estimator.takes,
        f"{option} is an option of {takers} (algorithm/advantage_level), not of {{c.estimator.name}}: leave it out",
    )
