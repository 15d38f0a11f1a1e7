"""The configuration of a training: TRL's and transformers' fields under their own names, and the method's."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from trl import GRPOConfig, ModelConfig

from llm_sra.engines import EngineKind
from llm_sra.models.chat_template import DAY, read_day
from llm_sra.models.targets import check_head
from llm_sra.objectives.group import Scale
from llm_sra.registry import task_options
from llm_sra.trainer.config_rules import check_rules
from llm_sra.trainer.fields import changed, needs_gpu, needs_package, refusal, refused_of
from llm_sra.trainer.literals import check_choices, take_numbers
from llm_sra.trainer.objective import ObjectiveArguments
from llm_sra.trainer.preferences import read_preferences

REPORTERS = ("tensorboard", "trackio", "wandb")  # names of the packages and of the extras that install them
ImportanceMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


@dataclass
class ModelArguments(ModelConfig):  # type: ignore[misc]
    """The base model and the shape of its LoRA adapters: TRL's `ModelConfig` with defaults of this project."""

    use_peft: bool = field(default=True, metadata={"help": "Always true: policies are LoRA adapters on one base."})
    lora_r: int = field(default=16, metadata={"help": "LoRA rank of every adapter."})
    lora_alpha: int = field(default=16, metadata={"help": "LoRA alpha; updates are scaled by alpha / r."})
    lora_dropout: float = field(
        default=0.0, metadata={"help": "Keep 0: dropout makes log-probabilities differ from those of the rollout."}
    )
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: ["all-linear"], metadata={"help": "Modules that get an adapter."}
    )
    seat_models: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": 'Base models of single seats (JSON), such as {"first": "A", "second": "B"}; seats not named '
            "have model_name_or_path. The adapters that sit in a seat, adversaries' among them, live on its model."
        },
    )
    initial_adapter: str | None = field(
        default=None,
        metadata={
            "help": "Folder of an adapter that every agent starts from, such as one of `llm-sra warm-start`; {seat} in "
            "it stands for the agent's seat. None: adapters that change nothing yet."
        },
    )

    def __post_init__(self) -> None:
        take_numbers(self)
        self.seat_models = task_options(self.seat_models, "seat_models")
        if not all(isinstance(model, str) and model for model in (self.seat_models or {}).values()):
            raise ValueError(f"seat_models must have a model's name or folder for each seat, got {self.seat_models}")
        if not self.use_peft:
            raise ValueError("use_peft must stay true: every policy is a LoRA adapter on one frozen base model")
        if self.lora_r < 1 or self.lora_alpha <= 0:
            raise ValueError(f"lora_r and lora_alpha must be above 0, got {self.lora_r} and {self.lora_alpha}")
        for name in refused_of(type(self)):
            if changed(self, name):
                raise ValueError(refusal(self, name))
        for name in ("load_in_4bit", "load_in_8bit"):
            if getattr(self, name):
                needs_package(name, "bitsandbytes", "bitsandbytes")
        post_init = getattr(super(), "__post_init__", None)
        if post_init:
            post_init()  # makes a pattern of a list of one
        check_head(self.lora_target_modules)


@dataclass
class SRPOConfig(ObjectiveArguments, GRPOConfig):  # type: ignore[misc]
    """Configuration of `SRPOTrainer`.

    One step is one rollout of `problems_per_step` problems, `num_generations` episodes each, shared by all matches of
    the arm, and all optimizer updates on it. Returns, `entropy_coef` and `1 / tau` are in units of the reward.
    """

    task: str = field(
        default="worksheet", metadata={"help": "Name of a shipped task, path/to/file.py:Class or module:Class."}
    )
    task_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of the task (JSON). On the command line: those to change."}
    )
    problems_per_step: int = field(
        default=16,
        metadata={"help": "Problems per step, over all matches and processes; each is played num_generations times."},
    )
    engine: EngineKind = field(
        default="transformers",
        metadata={
            "help": "transformers: generate with the weights under training. vllm: with vLLM on this machine. server: "
            "with the vLLM servers at vllm_server_base_url (several: separated by commas)."
        },
    )
    engine_adapter_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder in which vLLM finds adapters; None: in memory. Servers on other machines need a shared "
            "folder, under the same path."
        },
    )
    seeded_rollouts: bool | None = field(
        default=None,
        metadata={
            "help": "Whether vLLM and servers are sent a seed for each reply; None: yes, except for vLLM on a GPU, "
            "where numbers do not repeat anyhow and sampling by seeds is slow. Without seeds a resumed run continues "
            "with replies of the same distribution, but not the same ones. The engine transformers always draws by "
            "seeds."
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
    dev_roster: str | None = field(
        default=None, metadata={"help": "Roster to play every eval_steps: a file, or a name such as worksheet_dev."}
    )
    trust_scripts: bool = field(
        default=False,
        metadata={"help": "Run scripted partners of `partners` and `dev_roster` that do not ship with llm-sra."},
    )
    dev_problems: int = field(default=32, metadata={"help": "Problems of the dev split per seat and partner."})
    log_episodes: int = field(
        default=8, metadata={"help": "Episodes per match and step to write to episodes/; -1: all."}
    )
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Delete an earlier run in output_dir."})
    allow_untested_backend: bool = field(
        default=False, metadata={"help": "Train under FSDP or DeepSpeed although no GPU test covers them yet."}
    )

    # Fields of TRL and transformers with another default or meaning here.
    scale_rewards: Scale = field(
        default="none",
        metadata={"help": "none keeps units; group or batch divide by a standard deviation, which changes the game."},
    )
    max_completion_length: int | None = field(
        default=None, metadata={"help": "Token limit of one reply; None: the task's."}
    )
    output_dir: str | None = field(default="runs/run", metadata={"help": "The run folder."})
    logging_steps: float = field(default=1, metadata={"help": "Log every so many steps."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Must stay false: NaN is an error."})
    metric_for_best_model: str | None = field(
        default="worst_partner", metadata={"help": "With load_best_model_at_end: the metric of the dev roster."}
    )
    vllm_server_host: str = field(default="127.0.0.1", metadata={"help": "Without vllm_server_base_url: the host."})
    vllm_importance_sampling_mode: ImportanceMode = field(
        default="token_truncate",
        metadata={
            "help": "With vLLM, how the ratio of the trainer's to vLLM's probability of a reply is bounded: "
            "token_truncate, token_mask, sequence_truncate or sequence_mask."
        },
    )
    greater_is_better: bool | None = field(
        default=True, metadata={"help": "Whether a larger value of that metric is better."}
    )

    def __post_init__(self) -> None:
        take_numbers(self)
        self.task_args = task_options(self.task_args)
        self.preferences = read_preferences(self.preferences)
        self.template_date = str(self.template_date)  # YAML makes a date of it
        read_day(self.template_date)
        check_choices(self)
        check_rules(self)
        if self.use_liger_kernel:
            needs_package("use_liger_kernel", "liger_kernel", "liger-kernel")
        # TRL asks for batches of whole groups; how many episodes are played is decided here, in training and on the
        # development roster.
        self.steps_per_generation, self.num_generations_eval = self.num_generations, 1
        super().__post_init__()
        if self.use_liger_kernel:
            needs_gpu("use_liger_kernel", self.device.type, "liger-kernel is written in Triton")
        for name in REPORTERS:
            if name in self.report_to and find_spec(name) is None:
                raise ValueError(f"report_to names {name}, which is not installed: pip install {name}")

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        assert self.output_dir is not None
        return Path(self.output_dir)


def check_together(model: ModelArguments, config: SRPOConfig) -> None:
    """Check that the adapters' shape and the engine go together.

    Raises:
        ValueError: If they do not.
    """
    if model.seat_models:
        if model.model_revision != "main":
            raise ValueError(
                f"model_revision {model.model_revision} cannot be meant for all of seat_models: name folders that hold "
                "the revisions"
            )
        for name in ("use_liger_kernel", "load_in_4bit", "load_in_8bit"):
            if getattr(config, name, False) or getattr(model, name, False):
                raise ValueError(f"{name} goes with one model for all seats, others were not tested: leave it out")
    if config.engine == "transformers":
        return
    for name in ("use_dora", "load_in_4bit", "load_in_8bit", "lora_target_parameters"):
        if getattr(model, name):
            raise ValueError(f"{name} needs engine transformers: vLLM cannot serve such adapters, got {config.engine}")
