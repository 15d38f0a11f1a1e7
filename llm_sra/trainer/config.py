"""What a training run is told: TRL's and transformers' flags under their own names, and the method's beside them."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl import GRPOConfig, ModelConfig

from llm_sra.engines import ENGINES
from llm_sra.trainer.arms import ARMS, tether_strength
from llm_sra.trainer.schedule import SCHEDULES

ALGORITHMS = ("grpo", "ppo")
RISKS = ("entropic", "cvar", "worst_case", "expectation")
LEVELS = {"grpo": ("episode", "turn"), "ppo": ("token", "turn")}  # the first is the default
IMPORTANCE_MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


@dataclass
class ModelArguments(ModelConfig):
    """The base model and the shape of its LoRA adapters: TRL's `ModelConfig` with defaults of this project."""

    use_peft: bool = field(default=True, metadata={"help": "Always true: policies are LoRA adapters on one base."})
    lora_r: int = field(default=16, metadata={"help": "LoRA rank of every adapter."})
    lora_alpha: int = field(default=16, metadata={"help": "LoRA alpha; updates are scaled by alpha / r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "0, or log-probabilities are not those of the rollout."})
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: ["all-linear"], metadata={"help": "Modules that get an adapter."}
    )

    def __post_init__(self) -> None:
        if not self.use_peft:
            raise ValueError("use_peft must stay true: every policy is a LoRA adapter on one frozen base model")
        if self.lora_r < 1 or self.lora_alpha <= 0:
            raise ValueError(f"lora_r and lora_alpha must be above 0, got {self.lora_r} and {self.lora_alpha}")
        post_init = getattr(super(), "__post_init__", None)
        if post_init:
            post_init()


@dataclass
class SRPOConfig(GRPOConfig):
    """Configuration of `SRPOTrainer`.

    One step is one rollout of `problems_per_step` problems, `num_generations` episodes each, shared by all matches of
    the arm, and all optimizer updates on it. Returns, `entropy_coef` and `1 / tau` are in units of the reward.
    """

    task: str = field(default="worksheet", metadata={"help": "Folder's name, path/to/file.py:Class or module:Class."})
    task_args: dict[str, Any] | str | None = field(default=None, metadata={"help": "Options of the task (JSON)."})
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
    problems_per_step: int = field(
        default=16,
        metadata={"help": "Problems per step, over all matches and processes; each is played num_generations times."},
    )
    engine: str = field(
        default="transformers",
        metadata={
            "help": "transformers: generate with the weights that are trained. vllm: with vLLM on this machine. "
            "server: with the vLLM servers at vllm_server_base_url (several: separated by commas)."
        },
    )
    engine_adapter_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder through which adapters reach vLLM; None: in memory. Servers on other machines need a "
            "shared one, under the same path."
        },
    )
    rollout_batch_size: int = field(
        default=256, metadata={"help": "Most replies in one forward pass of the engine `transformers`."}
    )
    dev_roster: str | None = field(default=None, metadata={"help": "Roster that is played every eval_steps."})
    dev_problems: int = field(default=32, metadata={"help": "Problems of the dev split per seat and partner."})
    log_episodes: int = field(default=8, metadata={"help": "Episodes per match and step that are written; -1: all."})
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Delete an earlier run in output_dir."})
    allow_untested_backend: bool = field(
        default=False, metadata={"help": "Go on under FSDP or DeepSpeed, which no GPU test has covered yet."}
    )

    # Defaults of TRL and transformers that mean something else here.
    scale_rewards: str = field(
        default="none",
        metadata={"help": "none keeps units; group or batch divide by a standard deviation, which changes the game."},
    )
    max_completion_length: int | None = field(
        default=None, metadata={"help": "Token limit of one reply; None: the task's."}
    )
    num_generations_eval: int | None = field(default=1, metadata={"help": "Not used: evaluation plays the dev roster."})
    steps_per_generation: int | None = field(default=None, metadata={"help": "Not used: one step is one rollout."})
    output_dir: str | None = field(default="runs/run", metadata={"help": "The run folder."})
    logging_steps: float = field(default=1, metadata={"help": "Log every so many steps."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Must stay false: NaN is an error."})
    metric_for_best_model: str | None = field(
        default="worst_partner", metadata={"help": "With load_best_model_at_end: the metric of the dev roster."}
    )
    vllm_server_host: str = field(default="127.0.0.1", metadata={"help": "Without vllm_server_base_url: the host."})
    vllm_importance_sampling_mode: str = field(
        default="token_truncate",
        metadata={
            "help": "With vLLM, how the ratio of the trainer's to vLLM's probability of a reply is kept in bounds: "
            "token_truncate, token_mask, sequence_truncate or sequence_mask."
        },
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether that metric is to be large."})

    def __post_init__(self) -> None:
        self._read_task_args()
        self._check()
        # TRL asks for a generation batch of whole groups; how many episodes there are is ours to say.
        self.steps_per_generation = self.num_generations
        super().__post_init__()

    def _read_task_args(self) -> None:
        """Take `task_args` from JSON, as a flag gives them."""
        if isinstance(self.task_args, str):
            try:
                self.task_args = json.loads(self.task_args)
            except ValueError as error:
                raise ValueError(f"task_args must be a JSON object, got {self.task_args!r}: {error}") from error
        if self.task_args is not None and not isinstance(self.task_args, dict):
            raise ValueError(f"task_args must be a JSON object, got {self.task_args!r}")

    def _check(self) -> None:
        one_of = {
            "arm": ARMS,
            "engine": ENGINES,
            "vllm_importance_sampling_mode": IMPORTANCE_MODES,
            "sharing": ("seat", "shared"),
            "kl_direction": ("adversary_partner", "partner_adversary"),
            "entropy_reduction": ("sum", "mean"),
            "scale_rewards": ("none", "group", "batch"),
            "tau_schedule": SCHEDULES,
            "risk": RISKS,
            "algorithm": ALGORITHMS,
            "advantage_level": (None, *LEVELS.get(self.algorithm, ())),
            "advantage_baseline": ("mean", "leave_one_out"),
        }
        for key, allowed in one_of.items():
            if getattr(self, key) not in allowed:
                names = ", ".join(str(name) for name in allowed if name is not None)
                raise ValueError(f"{key} must be one of {names}, got {getattr(self, key)!r}")
        at_least = {
            "tau": 0,
            "entropy_coef": 0,
            "adversary_entropy_coef": 0,
            "adversary_updates": 1,
            "problems_per_step": 1,
            "num_iterations": 1,
            "num_generations": 2,
            "rollout_batch_size": 1,
            "dev_problems": 1,
            "log_episodes": -1,
            "gamma": 0,
            "gae_lambda": 0,
            "risk_smoothing": 0,
            "adversary_mix": 0,
        }
        for key, least in at_least.items():
            value = getattr(self, key)
            if not (isinstance(value, int | float) and value >= least):  # so that NaN is refused too
                raise ValueError(f"{key} must be {least} or more, got {value!r}")
        self._check_objective()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0 (greedy replies teach nothing), got {self.temperature}")
        if self.load_best_model_at_end and not self.dev_roster:
            raise ValueError("load_best_model_at_end needs dev_roster: the best model is chosen by its partners")
        ceiling = self.epsilon if self.epsilon_high is None else self.epsilon_high
        if self.loss_type == "cispo" and ceiling < 1:
            raise ValueError(
                f"epsilon_high must be 1 or more with loss_type cispo (5 is usual), got {ceiling}: there it is the "
                "largest ratio itself, and less would shrink the policy term against entropy and tether"
            )
        fixed = {
            "gradient_accumulation_steps": (
                1,
                "per_device_train_batch_size is the micro-batch; gradients are "
                "accumulated over the whole rollout anyway",
            ),
            "steps_per_generation": (None, "one step is one rollout; set problems_per_step and num_generations"),
            "generation_batch_size": (None, "set problems_per_step and num_generations"),
            "top_p": (1.0, "the log-probabilities that are trained are those of the whole distribution"),
            "top_k": (0, "the log-probabilities that are trained are those of the whole distribution"),
            "min_p": (None, "the log-probabilities that are trained are those of the whole distribution"),
            "repetition_penalty": (1.0, "the log-probabilities that are trained are those of the plain distribution"),
            "use_vllm": (False, "TRL's own vLLM sync merges one adapter into the base: set engine to vllm or server"),
            "use_adaptive_entropy": (False, "set entropy_coef and adversary_entropy_coef"),
            "top_entropy_quantile": (1.0, "it would leave tokens out of the policy term but not out of the entropy"),
            "fp16": (False, "use bf16, or float32"),
            "logging_nan_inf_filter": (False, "a NaN is an error, never replaced by a value"),
        }
        for key, (value, why) in fixed.items():
            if getattr(self, key) not in (value, *((0, None) if key == "top_k" else ())):
                raise ValueError(f"{key} must stay {value!r} ({why}), got {getattr(self, key)!r}")

    def _check_objective(self) -> None:
        """What the method's own options ask of each other."""
        optional = {
            "tau_schedule_steps": 1,
            "partners_per_step": 1,
            "adversary_reset_steps": 1,
        }
        for key, least in optional.items():
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} must be {least} or more, got {value!r}")
        for key in ("gamma", "gae_lambda"):
            if getattr(self, key) > 1:
                raise ValueError(f"{key} must lie in [0, 1], got {getattr(self, key)!r}")
        for key in ("risk_smoothing", "adversary_mix"):
            if getattr(self, key) >= 1:
                raise ValueError(f"{key} must lie in [0, 1), got {getattr(self, key)!r}")
        if not 0 < self.risk_alpha <= 1:
            raise ValueError(f"risk_alpha must lie in (0, 1], got {self.risk_alpha!r}")
        for key in ("value_clip", "target_kl"):
            if getattr(self, key) is not None and not getattr(self, key) > 0:
                raise ValueError(f"{key} must be above 0, or left out, got {getattr(self, key)!r}")
        if (self.tau_schedule == "target_kl") != (self.target_kl is not None):
            raise ValueError("tau_schedule target_kl and target_kl go together: give both or neither")
        if self.tau_schedule != "constant" and not (self.arm == "srpo" and self.tau > 0 and self.partners is None):
            raise ValueError(f"tau_schedule {self.tau_schedule} needs a learned adversary: arm srpo with tau above 0")
        if self.tau_schedule == "linear" and not self.tau_start > 0:
            raise ValueError(f"tau_start must be above 0 (at 0 there is no adversary), got {self.tau_start!r}")
        if self.arm == "fcp" and self.partners is None:
            raise ValueError("arm fcp needs `partners`: the roster of the pool that best responses are learned to")
        if self.partners is not None and self.arm not in ("srpo", "fcp"):
            raise ValueError(f"`partners` go with arm srpo or fcp, not with {self.arm}")
        if self.arm == "fcp" and self.risk != "expectation":
            raise ValueError("arm fcp is a best response to the pool's mean: set risk to expectation, or arm to srpo")
        if self.partners is None and (self.partners_per_step is not None or self.risk_smoothing):
            raise ValueError("partners_per_step and risk_smoothing need `partners`")
        if self.partners is not None and self.risk == "entropic" and not math.isfinite(self.tau):
            raise ValueError(f"risk entropic needs a finite tau, got {self.tau}; worst_case is its limit")
        if self.partners_per_step is not None and self.risk_smoothing:
            raise ValueError("risk_smoothing needs the same partners at every step: leave out partners_per_step")
        alone = self.partners is None and (
            self.arm not in ("srpo", "adversary") or tether_strength(self.arm, self.tau) == 0
        )
        if alone and (self.adversary_mix or self.adversary_reset_steps):
            raise ValueError(f"adversary_mix and adversary_reset_steps need adversaries; arm {self.arm} has none")
        if self.partners is not None and self.adversary_reset_steps:
            raise ValueError("adversary_reset_steps needs learned adversaries, not `partners`")
        if self.advantage_level == "turn" and self.scale_rewards != "none":
            raise ValueError(f"advantage_level turn takes scale_rewards none, got {self.scale_rewards}")
        if self.importance_sampling_level == "sequence" and self.level != "episode":
            raise ValueError(
                "importance_sampling_level sequence weighs whole rows: it would average the advantages of single "
                f"{self.level}s away; set advantage_level to episode"
            )
        if self.loss_type == "luspo" and self.importance_sampling_level != "sequence":
            raise ValueError(
                "loss_type luspo needs importance_sampling_level sequence; by tokens it is dr_grpo, scaled"
            )
        if self.algorithm == "ppo" and (self.scale_rewards != "none" or self.advantage_baseline != "mean"):
            raise ValueError("scale_rewards and advantage_baseline are grpo's; ppo has whiten_advantages")
        if self.algorithm == "grpo" and self.whiten_advantages:
            raise ValueError("whiten_advantages is ppo's; grpo has scale_rewards")

    @property
    def level(self) -> str:
        """What gets one advantage."""
        return self.advantage_level or LEVELS[self.algorithm][0]

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        assert self.output_dir is not None
        return Path(self.output_dir)
