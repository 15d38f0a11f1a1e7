"""What a training run is told: TRL's and transformers' flags under their own names, and the method's beside them."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trl import GRPOConfig, ModelConfig

from llm_sra.engines import ENGINES
from llm_sra.models.templates import DAY, read_day
from llm_sra.objectives.tau_schedule import SCHEDULES
from llm_sra.registry import task_options
from llm_sra.trainer.arms import ARMS
from llm_sra.trainer.objective import ALGORITHMS, LEVELS, RISKS, ObjectiveArguments, check_objective

REPORTERS = ("tensorboard", "trackio", "wandb")  # the extras of that name install them
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
class SRPOConfig(ObjectiveArguments, GRPOConfig):
    """Configuration of `SRPOTrainer`.

    One step is one rollout of `problems_per_step` problems, `num_generations` episodes each, shared by all matches of
    the arm, and all optimizer updates on it. Returns, `entropy_coef` and `1 / tau` are in units of the reward.
    """

    task: str = field(default="worksheet", metadata={"help": "Folder's name, path/to/file.py:Class or module:Class."})
    task_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of the task (JSON). On the command line: those to change."}
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
    template_date: str = field(
        default=DAY,
        metadata={
            "help": "YYYY-MM-DD: what chat templates that ask for today's date are told, so that a run's prompts are "
            "the same on every day."
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
        self.task_args = task_options(self.task_args)
        self._check()
        # TRL asks for a generation batch of whole groups; how many episodes there are is ours to say.
        self.steps_per_generation = self.num_generations
        super().__post_init__()
        for name in REPORTERS:
            if name in self.report_to and find_spec(name) is None:
                raise ValueError(f"report_to names {name}, which is not installed: pip install 'llm-sra[{name}]'")

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
        self.template_date = str(self.template_date)  # YAML makes a date of it
        read_day(self.template_date)
        check_objective(self)
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

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        assert self.output_dir is not None
        return Path(self.output_dir)
