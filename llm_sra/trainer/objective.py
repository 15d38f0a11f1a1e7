"""What a training is for: the arm, the risk measure, the adversary, the estimator.

`docs/objectives.md` has each in formulas. The rules between these options are in `config_rules`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from llm_sra.objectives import Tether
from llm_sra.objectives.baselines import BASELINES
from llm_sra.objectives.risk import RISKS
from llm_sra.objectives.tau_schedule import Schedule
from llm_sra.trainer.arms import ArmName, Sharing
from llm_sra.trainer.estimators import Estimator, find_estimator


@dataclass
class ObjectiveArguments:
    """The method's own options. Returns, `entropy_coef` and `1 / tau` are in units of the reward."""

    arm: ArmName = field(
        default="srpo",
        metadata={
            "help": "Whom a hero trains with. ippo: the live partner. srpo: its adversary, tethered to the live "
            "partner, or with `partners` sampled ones. adversary: an adversary without tether. fcp: `partners`, to "
            "which it learns best responses. mep: teams that are each trained by themselves, to be a diverse pool "
            "for fcp. untrained: nobody is trained."
        },
    )
    population: int | None = field(default=None, metadata={"help": "mep: how many teams, 2 or more."})
    population_entropy_coef: float = field(
        default=0.0,
        metadata={
            "help": "mep: what a token earns for each nat of -log of its mean probability under the population, in "
            "units of the reward."
        },
    )
    sharing: Sharing = field(
        default="seat",
        metadata={"help": "seat: a hero (and an adversary) per seat. shared: one hero plays every seat."},
    )
    tau: float = field(
        default=10.0,
        metadata={
            "help": "Degree of risk aversion; the tether costs 1/tau per nat. With 0 the live partner takes the "
            "adversary's seat, so `srpo` reduces to `ippo`."
        },
    )
    tau_schedule: Schedule = field(
        default="constant",
        metadata={
            "help": "constant; linear (from tau_start to tau in tau_schedule_steps); or target_kl (starts at tau and "
            "adapts it so that the adversaries' KL to their partners stays near target_kl)."
        },
    )
    tau_start: float = field(default=0.1, metadata={"help": "First tau of the linear schedule."})
    tau_schedule_steps: int | None = field(
        default=None, metadata={"help": "Steps of the linear schedule; None: the whole training."}
    )
    target_kl: float | None = field(
        default=None, metadata={"help": "With tau_schedule target_kl: the KL to hold, in nats an episode."}
    )
    partners: str | None = field(
        default=None,
        metadata={
            "help": "Roster of sampled partners, which replace the adversary: each problem is played with each of "
            "them, num_generations episodes in all. A `live` entry is the agent being trained in the other seat."
        },
    )
    partners_per_step: int | None = field(
        default=None, metadata={"help": "How many of them a hero meets in a step, drawn at random; None: all."}
    )
    risk: str = field(default="entropic", metadata={"help": f"Risk measure over sampled partners. {RISKS.describe()}."})
    risk_alpha: float = field(default=0.25, metadata={"help": "cvar: the share of the worst partners that counts."})
    risk_power: float = field(
        default=1.0, metadata={"help": "rank: the power to which a partner's rank is raised; 0: all alike."}
    )
    risk_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Decay with which returns with partners are pooled over steps, in [0, 1); 0: the latest step alone."
        },
    )
    preferences: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Hidden preferences (JSON), as {"effort": -0.2}: what a unit of a metric of its own earns each '
            "seat in training, beside the task's rewards. Metrics: effort, words, and what the task has for every seat."
        },
    )
    kl_direction: Literal["adversary_partner", "partner_adversary"] = field(
        default="adversary_partner",
        metadata={
            "help": "adversary_partner: KL(adversary || live partner), sampled, in the reward. partner_adversary: "
            "KL(live partner || adversary), exact over the vocabulary, in the loss."
        },
    )
    entropy_coef: float = field(default=0.0, metadata={"help": "Entropy bonus of the heroes (epsilon)."})
    adversary_entropy_coef: float = field(default=0.0, metadata={"help": "Entropy bonus of the adversaries."})
    entropy_reduction: Literal["sum", "mean"] = field(
        default="sum",
        metadata={
            "help": "sum: entropies are summed over own tokens and normalised like the policy term, as in theory. "
            "mean: mean entropy per token."
        },
    )
    choices_coef: float = field(
        default=0.0,
        metadata={
            "help": "Of a task with choices: adds choices_coef * -log P(choices) to the loss, so that agents say one "
            "of the words also where nothing restricts them."
        },
    )
    adversary_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the adversaries; None: that of the heroes."}
    )
    adversary_updates: int = field(default=1, metadata={"help": "Optimizer updates of adversaries per hero update."})
    adversary_mix: float = field(
        default=0.0,
        metadata={
            "help": "Share of the problems that the heroes play with each other instead of adversaries or partners."
        },
    )
    adversary_reset_steps: int | None = field(
        default=None, metadata={"help": "Reset adversaries to copies of their live partners every so many steps."}
    )
    algorithm: str = field(
        default="grpo",
        metadata={"help": "grpo (group-relative advantages), ppo (a critic, GAE) or adalign (advantage alignment)."},
    )
    advantage_level: str | None = field(
        default=None,
        metadata={
            "help": "What gets one advantage. grpo: episode (default), or turn (against the same turn of the group's "
            "episodes). ppo: token (default), or turn. adalign: turn."
        },
    )
    advantage_baseline: str = field(
        default="mean", metadata={"help": f"grpo, adalign: what a return is compared with. {BASELINES.describe()}."}
    )
    gamma: float = field(
        default=1.0,
        metadata={"help": "ppo: discount from one token, or turn, to the next. adalign: from one turn to the next."},
    )
    alignment_coef: float = field(
        default=1.0,
        metadata={
            "help": "adalign: weight of the others' advantages at a turn, times the sum of one's own before it; per "
            "unit of the reward."
        },
    )
    gae_lambda: float = field(default=1.0, metadata={"help": "ppo: lambda of generalised advantage estimation."})
    influence_coef: float = field(
        default=0.0,
        metadata={
            "help": "Credit of a turn for one standard deviation of its causal influence on what the other seat says "
            "next (Dr. MAMR), in units of the reward; 0: none."
        },
    )
    critic_learning_rate: float | None = field(
        default=None, metadata={"help": "ppo: learning rate of the critics; None: learning_rate."}
    )
    value_clip: float | None = field(
        default=None,
        metadata={"help": "ppo: how far values may move in a step, in units of the reward; None: no limit."},
    )
    whiten_advantages: bool = field(
        default=False,
        metadata={
            "help": "ppo: centre and scale each policy's advantages over all processes. It changes the game: epsilon "
            "is then in units of their standard deviation."
        },
    )

    @property
    def estimator(self) -> Estimator:
        """What computes advantages."""
        return find_estimator(self.algorithm, self.advantage_level)

    @property
    def level(self) -> str:
        """What gets one advantage."""
        return self.estimator.level

    def tether(self, tau: float) -> Tether:
        """The adversaries' tether at a step's τ."""
        return Tether(tau, in_reward=self.kl_direction == "adversary_partner")
