"""Trainers, rows and written-out gradients that the tests of the loss share."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from accelerate import Accelerator
from support import qwen2_folder
from training_support import Letters, accumulate, advantage_of, make_trainer, roll

from llm_sra.trainer import SRPOTrainer
from llm_sra.trainer.loss import Share
from llm_sra.trainer.rollout import Rollout, Sample
from llm_sra.trainer.rows import Row

LOSSES = ("dapo", "dr_grpo", "grpo", "bnpo", "cispo")
HERO, ADVERSARY, PARTNER = "left", "adversary-of-left", "right"
TAU, EPSILON, ADVERSARY_EPSILON, TEMPERATURE = 3.0, 0.3, 0.2, 0.8
LIMIT = 6  # tokens of a reply


def trainer_of(loss_type: str = "dapo", **options: Any) -> SRPOTrainer:
    """A trainer between two steps; its rows differ in length, and some episodes are more than one row."""
    trainer = _kept(loss_type, **options)
    Accelerator(cpu=True)  # fills the state that all trainers share, and that each new configuration empties
    return trainer


@cache
def _kept(loss_type: str, **options: Any) -> SRPOTrainer:
    return make_trainer(
        qwen2_folder().parent / "run",
        Letters(stop=("a", "e", "i", "o", "1", "2", "3", "4")),
        loss_type=loss_type,
        epsilon_high=5.0 if loss_type == "cispo" else None,
        tau=TAU,
        entropy_coef=EPSILON,
        adversary_entropy_coef=ADVERSARY_EPSILON,
        temperature=TEMPERATURE,
        **options,
    )


@cache
def rollout_of() -> Rollout:
    """One rollout for all tests: all trainers have the same adapters."""
    return roll(trainer_of())


def rows_of(adapter: str) -> list[Sample]:
    return [sample for sample in rollout_of().samples if sample.adapter == adapter]


def whole(samples: Sequence[Sample]) -> Share:
    tokens = sum(sample.row.own_tokens for sample in samples)
    return Share(len(samples), tokens, len(samples), processes=1, local=tokens)


def sizes_of(samples: Sequence[Sample]) -> tuple[int, int, int]:
    """Sizes of micro-batches: single rows; some of which the last is not full; all rows at once."""
    return 1, next(size for size in (5, 4, 3) if len(samples) % size), 64


def gradient(
    trainer: SRPOTrainer, adapter: str, samples: Sequence[Sample], size: int = 64, share: Share | None = None
) -> torch.Tensor:
    """The adapter's gradient as the trainer accumulates it, in one vector."""
    trainer.args.per_device_train_batch_size = size
    trainer.bases.first.bank.model.zero_grad(set_to_none=True)
    accumulate(trainer, adapter, samples, share or whole(samples))
    return torch.cat([parameter.grad.flatten() for parameter in trainer.bases.parameters(adapter)])


def logprobs_of(trainer: SRPOTrainer, adapter: str | None, row: Row) -> torch.Tensor:
    """(T, V) log-probabilities of every token at the places of the completion, of one row without padding."""
    if adapter is not None:
        trainer.bases.first.bank.activate(adapter)
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    logits = trainer.bases.first.bank.model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
    return (logits / TEMPERATURE).log_softmax(-1)


def chosen(logprobs: torch.Tensor, row: Row) -> torch.Tensor:
    """(T,), of the tokens that were said."""
    return logprobs.gather(1, torch.tensor(row.completion_ids)[:, None]).squeeze(1)


def normalised(values: Sequence[torch.Tensor], loss_type: str) -> torch.Tensor:
    """One loss of the terms of all own tokens, given by row."""
    if loss_type == "grpo":  # mean over a row's tokens, mean over rows
        return sum(row.mean() for row in values) / len(values)
    if loss_type == "dr_grpo":  # sum over a row's tokens by the reply's limit, mean over rows
        return sum(row.sum() for row in values) / LIMIT / len(values)
    return sum(row.sum() for row in values) / sum(len(row) for row in values)  # mean over all tokens


def written_out(
    trainer: SRPOTrainer,
    adapter: str,
    samples: Sequence[Sample],
    loss_type: str,
    reduction: str = "sum",
    epsilon: float | None = None,
    beta: float = 0.0,
    exact_tether: bool = False,
) -> torch.Tensor:
    """-(Σ A log π + ε Σ H), with the terms that are asked for, by plain autograd."""
    policy, entropy, tether, reference = [], [], [], []
    for sample in samples:
        row, own = sample.row, torch.tensor(sample.row.own).bool()
        with torch.no_grad(), trainer.bases.first.bank.model.disable_adapter():
            base = chosen(logprobs_of(trainer, None, row), row)
        with torch.no_grad():
            partner = logprobs_of(trainer, PARTNER, row)
        logprobs = logprobs_of(trainer, adapter, row)
        said = chosen(logprobs, row)
        policy.append(advantage_of(sample) * said[own])
        entropy.append(-(logprobs.exp() * logprobs).sum(-1)[own])
        tether.append((partner.exp() * (partner - logprobs)).sum(-1)[own])
        # TRL multiplies by the ratio to the old policy, which is 1 here: so the gradient is that of the divergence.
        ratio = (said - said.detach()).exp()
        reference.append((ratio * ((base - said).exp() - (base - said) - 1))[own])
    if epsilon is None:
        epsilon = ADVERSARY_EPSILON if adapter == ADVERSARY else EPSILON
    loss = -normalised(policy, loss_type) - epsilon * normalised(entropy, "dapo" if reduction == "mean" else loss_type)
    if exact_tether:
        loss = loss + normalised(tether, loss_type) / TAU
    if beta:
        loss = loss + beta * normalised(reference, loss_type)
    trainer.bases.first.bank.model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in trainer.bases.parameters(adapter)])


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to float32's error over a few hundred tokens."""
    return bool((one - other).norm() < 2e-5 * other.norm()) and other.norm() > 1e-3
