"""What a training is for: the arm, the risk measure, the adversary, the estimator; and what these ask of each other.

`docs/objectives.md` has each in formulas.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_sra.trainer.arms import has_adversaries

if TYPE_CHECKING:
    from llm_sra.trainer.config import SRPOConfig

ALGORITHMS = ("grpo", "ppo")
RISKS = ("entropic", "cvar", "worst_case", "expectation")
LEVELS = {"grpo": ("episode", "turn"), "ppo": ("token", "turn")}  # the first is the default


@dataclass
class ObjectiveArguments:
    """The method's own options. Returns, `entropy_coef` and `1 / tau` are in units of the reward."""

    arm: str = field(
        default="srpo",
        metadata={
            "help": "ippo (live partner), srpo (tethered adversary, or with `partners` sampled ones), adversary (no "
            "tether), fcp (best responses to `partners`) or untrained."
        },
    )
    sharing: str = field(
        default="seat",
        metadata={"help": "seat: a hero (and an adversary) per seat; shared: one hero plays every seat."},
    )
    tau: float = field(
        default=10.0, metadata={"help": "Degree of risk aversion; the tether weighs 1/tau. 0 seats the live partner."}
    )
    tau_schedule: str = field(
        default="constant",
        metadata={
            "help": "constant; linear (from tau_start to tau in tau_schedule_steps); or target_kl (from tau on, what "
            "holds the adversaries target_kl nats an episode from their partners)."
        },
    )
    tau_start: float = field(default=0.1, metadata={"help": "Where the linear schedule begins."})
    tau_schedule_steps: int | None = field(default=None, metadata={"help": "Steps of it; None: the whole training."})
    target_kl: float | None = field(default=None, metadata={"help": "Nats an episode, for tau_schedule target_kl."})
    partners: str | None = field(
        default=None,
        metadata={
            "help": "Roster of sampled partners, which take the adversary's place: each problem is played with each of "
            "them, num_generations episodes in all. A `live` entry is the partner that is trained beside."
        },
    )
    partners_per_step: int | None = field(
        default=None, metadata={"help": "How many of them a hero meets in a step, drawn at random; None: all."}
    )
    risk: str = field(
        default="entropic",
        metadata={"help": "Risk measure over sampled partners: entropic (with tau), cvar, worst_case or expectation."},
    )
    risk_alpha: float = field(default=0.25, metadata={"help": "cvar: the share of the worst partners that counts."})
    risk_smoothing: float = field(
        default=0.0, metadata={"help": "Decay with which the partners' weights are averaged over steps, in [0, 1)."}
    )
    kl_direction: str = field(
        default="adversary_partner",
        metadata={
            "help": "adversary_partner: KL(adversary || live partner), sampled, in the reward. partner_adversary: "
            "KL(live partner || adversary), exact over the vocabulary, in the loss."
        },
    )
    entropy_coef: float = field(default=0.0, metadata={"help": "Entropy bonus of the heroes (epsilon)."})
    adversary_entropy_coef: float = field(default=0.0, metadata={"help": "Entropy bonus of the adversaries."})
    entropy_reduction: str = field(
        default="sum",
        metadata={
            "help": "sum: entropies are summed over own tokens under the policy term's normaliser, as in theory. mean: "
            "mean entropy per token."
        },
    )
    adversary_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the adversaries; None: that of the heroes."}
    )
    adversary_updates: int = field(default=1, metadata={"help": "Optimizer updates of adversaries per hero update."})
    adversary_mix: float = field(
        default=0.0,
        metadata={
            "help": "Share of the problems that the heroes play with each other, not with adversaries or partners."
        },
    )
    adversary_reset_steps: int | None = field(
        default=None, metadata={"help": "Make adversaries copies of their live partners again every so many steps."}
    )
    algorithm: str = field(
        default="grpo", metadata={"help": "grpo (group-relative advantages) or ppo (a critic, GAE)."}
    )
    advantage_level: str | None = field(
        default=None,
        metadata={
            "help": "What gets one advantage. grpo: episode (default), or turn (against the same turn of the group's "
            "episodes). ppo: token (default), or turn."
        },
    )
    advantage_baseline: str = field(
        default="mean", metadata={"help": "grpo: mean of the group, or leave_one_out: of the group's other episodes."}
    )
    gamma: float = field(default=1.0, metadata={"help": "ppo: discount from one token, or turn, to the next."})
    gae_lambda: float = field(default=1.0, metadata={"help": "ppo: lambda of generalised advantage estimation."})
    critic_learning_rate: float | None = field(
        default=None, metadata={"help": "ppo: learning rate of the critics; None: learning_rate."}
    )
    value_clip: float | None = field(
        default=None, metadata={"help": "ppo: how far values may move in a step, in units of the reward; None: freely."}
    )
    whiten_advantages: bool = field(
        default=False,
        metadata={
            "help": "ppo: centre and scale each policy's advantages over all processes; it changes the game: epsilon "
            "is then in units of their standard deviation."
        },
    )

    @property
    def level(self) -> str:
        """What gets one advantage."""
        return self.advantage_level or LEVELS[self.algorithm][0]


def check_objective(config: "SRPOConfig") -> None:
    """See that the method's own options go together.

    Raises:
        ValueError: If they do not; says what to do.
    """
    optional = {
        "tau_schedule_steps": 1,
        "partners_per_step": 1,
        "adversary_reset_steps": 1,
    }
    for key, least in optional.items():
        value = getattr(config, key)
        if value is not None and value < least:
            raise ValueError(f"{key} must be {least} or more, got {value!r}")
    for key in ("gamma", "gae_lambda"):
        if getattr(config, key) > 1:
            raise ValueError(f"{key} must lie in [0, 1], got {getattr(config, key)!r}")
    for key in ("risk_smoothing", "adversary_mix"):
        if getattr(config, key) >= 1:
            raise ValueError(f"{key} must lie in [0, 1), got {getattr(config, key)!r}")
    if not 0 < config.risk_alpha <= 1:
        raise ValueError(f"risk_alpha must lie in (0, 1], got {config.risk_alpha!r}")
    for key in ("value_clip", "target_kl"):
        if getattr(config, key) is not None and not getattr(config, key) > 0:
            raise ValueError(f"{key} must be above 0, or left out, got {getattr(config, key)!r}")
    if (config.tau_schedule == "target_kl") != (config.target_kl is not None):
        raise ValueError("tau_schedule target_kl and target_kl go together: give both or neither")
    if config.tau_schedule != "constant" and not (config.arm == "srpo" and config.tau > 0 and config.partners is None):
        raise ValueError(f"tau_schedule {config.tau_schedule} needs a learned adversary: arm srpo with tau above 0")
    if config.tau_schedule == "linear" and not config.tau_start > 0:
        raise ValueError(f"tau_start must be above 0 (at 0 there is no adversary), got {config.tau_start!r}")
    if config.arm == "fcp" and config.partners is None:
        raise ValueError("arm fcp needs `partners`: the roster of the pool that best responses are learned to")
    if config.partners is not None and config.arm not in ("srpo", "fcp"):
        raise ValueError(f"`partners` go with arm srpo or fcp, not with {config.arm}")
    if config.arm == "fcp" and config.risk != "expectation":
        raise ValueError("arm fcp is a best response to the pool's mean: set risk to expectation, or arm to srpo")
    if config.partners is None and (config.partners_per_step is not None or config.risk_smoothing):
        raise ValueError("partners_per_step and risk_smoothing need `partners`")
    if config.partners is not None and config.risk == "entropic" and not math.isfinite(config.tau):
        raise ValueError(f"risk entropic needs a finite tau, got {config.tau}; worst_case is its limit")
    if config.partners_per_step is not None and config.risk_smoothing:
        raise ValueError("risk_smoothing needs the same partners at every step: leave out partners_per_step")
    alone = config.partners is None and not has_adversaries(config.arm, config.tau, sampled=False)
    if alone and (config.adversary_mix or config.adversary_reset_steps):
        raise ValueError(f"adversary_mix and adversary_reset_steps need adversaries; arm {config.arm} has none")
    if config.partners is not None and config.adversary_reset_steps:
        raise ValueError("adversary_reset_steps needs learned adversaries, not `partners`")
    if config.advantage_level == "turn" and config.scale_rewards != "none":
        raise ValueError(f"advantage_level turn takes scale_rewards none, got {config.scale_rewards}")
    if config.importance_sampling_level == "sequence" and config.level != "episode":
        raise ValueError(
            "importance_sampling_level sequence weighs whole rows: it would average the advantages of single "
            f"{config.level}s away; set advantage_level to episode"
        )
    if config.loss_type == "luspo" and config.importance_sampling_level != "sequence":
        raise ValueError("loss_type luspo needs importance_sampling_level sequence; by tokens it is dr_grpo, scaled")
    if config.algorithm == "ppo" and (config.scale_rewards != "none" or config.advantage_baseline != "mean"):
        raise ValueError("scale_rewards and advantage_baseline are grpo's; ppo has whiten_advantages")
    if config.algorithm == "grpo" and config.whiten_advantages:
        raise ValueError("whiten_advantages is ppo's; grpo has scale_rewards")
