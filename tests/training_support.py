"""What the tests of training build on: a toy task with much variance, runs and trainers of a tiny random model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from support import ALPHA, RANK, Toy, make_engine, qwen2_folder
from transformers import TrainerCallback

from llm_sra import train
from llm_sra.engines import Engine
from llm_sra.models.adapters import AdapterBank
from llm_sra.runs import Run, read_metrics
from llm_sra.task import Reward, Sampling, Task
from llm_sra.trainer import SRPOTrainer, build_arm
from llm_sra.trainer.critic import critic_of
from llm_sra.trainer.influence import measure_influence
from llm_sra.trainer.loss import Share
from llm_sra.trainer.parse import parse
from llm_sra.trainer.rollout import Rollout, Sample
from llm_sra.trainer.rows import Row

TASK = f"{__file__}:Letters"
FLAGS: dict[str, Any] = {
    "task": TASK,
    "max_steps": 2,
    "problems_per_step": 4,
    "num_generations": 3,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.02,
    "lr_scheduler_type": "constant",
    "lora_r": RANK,
    "lora_alpha": ALPHA,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
# One step of this moves the weights by minus the gradient.
GRADIENT: dict[str, Any] = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "max_steps": 1}


class Letters(Toy):
    """`Toy`, paid by chance: the team gets 1 for every text of odd length, its writer pays by the last character."""

    def step(self, state: Any, replies: Mapping[str, str], rng: Any) -> tuple[Any, Mapping[str, Reward]]:
        state, _ = super().step(state, replies, rng)
        team = float(sum(len(text) for text in replies.values()) % 2)
        cost = {seat: 0.25 * (ord(text[-1]) % 4) if text else 0.0 for seat, text in replies.items()}
        return state, {seat: Reward(team=team, cost=cost.get(seat, 0.0)) for seat in self.seats}


class Nothing(Toy):
    """`Toy` in which nobody is ever paid, and nothing costs."""

    def step(self, state: Any, replies: Mapping[str, str], rng: Any) -> tuple[Any, Mapping[str, Reward]]:
        return super().step(state, replies, rng)[0], {}


class OneSided(Toy):
    """`Toy` in which the left seat alone is paid."""

    def step(self, state: Any, replies: Mapping[str, str], rng: Any) -> tuple[Any, Mapping[str, Reward]]:
        return super().step(state, replies, rng)[0], {"left": Reward(own=1.0)}


class Huge(Letters):
    """`Letters` that pays the right seat a number that is finite, but not in float32."""

    pay = 1e300

    def step(self, state: Any, replies: Mapping[str, str], rng: Any) -> tuple[Any, Mapping[str, Reward]]:
        state, rewards = super().step(state, replies, rng)
        return state, {**rewards, "right": Reward(team=self.pay)}


class NoNumber(Huge):
    """`Letters` that pays the right seat not a number, once somebody says a word of more than a letter."""

    @property
    def pay(self) -> float:  # type: ignore[override]
        return float("nan")


def train_tiny(out: Path, callbacks: Sequence[TrainerCallback] = (), **overrides: Any) -> Run:
    """Train the tiny model on `Letters`."""
    model = {} if "model_name_or_path" in overrides else {"model_name_or_path": qwen2_folder()}
    return train(callbacks=callbacks, output_dir=out, **model, **{**FLAGS, **overrides})


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The adapters below a folder: weights by key, by adapter."""
    return {path.parent.name: load_file(path) for path in sorted(folder.glob("*/adapter_model.safetensors"))}


def flat(state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """All weights of an adapter in one vector."""
    return torch.cat([state[key].flatten() for key in sorted(state)])


def vectors(folder: Path) -> dict[str, torch.Tensor]:
    """One vector for each adapter below a folder."""
    return {name: flat(state) for name, state in weights(folder).items()}


class Initial(TrainerCallback):
    """Keeps what the adapters were before training."""

    def __init__(self) -> None:
        self.vectors: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from peft import get_peft_model_state_dict

        model = kwargs["model"]
        for name in model.peft_config:
            adapter = get_peft_model_state_dict(model, adapter_name=name)
            self.vectors[name] = flat({key: value.detach().clone() for key, value in adapter.items()})


def make_trainer(out: Path, task: Task | None = None, engine: Engine | None = None, **overrides: Any) -> SRPOTrainer:
    """A trainer of adapters with random weights, all different: as in the middle of a training.

    Args:
        out: The run folder.
        task: `Letters` if None.
        engine: Its bank is trained as it is; None makes a bank of the tests' Qwen2 and generates by transformers.
        **overrides: Of the configuration.
    """
    task = task or Letters()
    _, args = parse(None, overrides={"model_name_or_path": qwen2_folder(), "output_dir": out, **FLAGS, **overrides})
    arm = build_arm(
        args.arm, task.seats, args.sharing, args.tau, Sampling(args.temperature),
        live_share=args.adversary_mix, population=args.population,
    )  # fmt: skip
    if engine is None:
        engine = make_engine(qwen2_folder(), arm.adapters)
    bank: AdapterBank = engine.bank
    if args.estimator.needs_critic:
        for adapter in arm.adapters:
            bank.add(critic_of(adapter), bank.model.peft_config[adapter], served=False)
    trainer = SRPOTrainer(task, arm, {"main": bank}, {"main": engine}, args)
    bank.model.train()
    return trainer


def worth(row: Row, adapter: str, tether: str | None, advantage: float) -> Sample:
    """A row whose every said token has one advantage."""
    said = torch.tensor(row.turns) >= 0
    return Sample(row, adapter, tether, torch.where(said, advantage, 0.0))


def advantage_of(sample: Sample) -> float:
    """The advantage that all said tokens of a row share."""
    values = set(sample.advantages[torch.tensor(sample.row.turns) >= 0].tolist())
    assert len(values) == 1, values
    return values.pop()


def roll(trainer: SRPOTrainer) -> Rollout:
    """A step's rollout with its credit, before any update."""
    rollout = trainer._play()
    score(trainer, rollout)
    trainer._credit(rollout)
    return rollout


def score(trainer: SRPOTrainer, rollout: Rollout) -> None:
    """Fill in what the trainer scores before any update."""
    trainer.scorer.score(rollout, trainer.arm.adapters, trainer.updater.reuses_rollouts, trainer.arm.peers)
    if trainer.args.influence_coef:
        measure_influence(rollout, trainer.scorer, trainer.bases)


def accumulate(trainer: SRPOTrainer, adapter: str, samples: Sequence[Sample], share: Share) -> float:
    """Add up the gradients of an adapter's loss."""
    return trainer.updater.accumulate(trainer.bases.first.bank.model, adapter, samples, share, trainer.tether)


def steps_of(run: Run) -> list[dict[str, Any]]:
    """What was logged of each step."""
    return [line for line in read_metrics(run.path / "metrics.jsonl") if "time/train" in line]


Trained = tuple[Run, dict[str, torch.Tensor], dict[str, torch.Tensor]]


def trained(out: Path, **overrides: Any) -> Trained:
    """A run, its adapters at the end, and how far each of them moved."""
    initial = Initial()
    run = train_tiny(out, callbacks=[initial], **overrides)
    final = vectors(run.adapters)
    return run, final, {name: final[name] - before for name, before in initial.vectors.items()}
