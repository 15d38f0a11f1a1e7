"""All optimizer updates of a step: gradients of each adapter over its rows, one norm each, then one optimizer step."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from llm_sra.objectives import Tether, value_loss
from llm_sra.trainer.adapter_loss import AdapterLoss
from llm_sra.trainer.arms import Arm
from llm_sra.trainer.bases import Bases
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.critic import Critics, critic_of
from llm_sra.trainer.finite import check_weights, gradient_error
from llm_sra.trainer.loss import Share, loss_inputs, micro_batches
from llm_sra.trainer.metrics import TokenMeans
from llm_sra.trainer.rollout import Rollout, Sample

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class Updater:
    """Updates the adapters and critics of an arm on one rollout.

    Args:
        args: See `SRPOConfig`.
        arm: The adapters.
        bases: Where they live.
        critics: If there are any.
        accelerator: Accelerator of the trainer.
        loss: Loss of a micro-batch.
        means: Gets what is measured by token.
        record: Logs a number of this step by name.
    """

    def __init__(
        self,
        args: SRPOConfig,
        arm: Arm,
        bases: Bases,
        critics: Critics | None,
        accelerator: Accelerator,
        loss: AdapterLoss,
        means: TokenMeans,
        record: Callable[[str, float], None],
    ) -> None:
        self._args, self._arm, self._bases, self._critics, self._accelerator = args, arm, bases, critics, accelerator
        self._loss, self._means, self._record = loss, means, record
        self.grad_norms: dict[str, float] = {}  # of the latest update of each adapter and critic, before clipping

    @property
    def reuses_rollouts(self) -> bool:
        """Whether a rollout is used for more than one update of an adapter."""
        return self._args.num_iterations > 1 or self._extra_updates > 0

    @property
    def _extra_updates(self) -> int:
        """Updates of the adversaries in addition to those of the heroes."""
        return self._args.adversary_updates - 1 if self._arm.adversaries else 0

    def update(
        self,
        model: torch.nn.Module,
        rollout: Rollout,
        optimizer: torch.optim.Optimizer,
        tether: Tether,
    ) -> dict[str, float]:
        """Update heroes once an iteration, adversaries `adversary_updates` times.

        Returns:
            Each adapter's latest loss.

        Raises:
            NumberError: If a gradient is not finite, and that update is not made; or if an update left weights that
                are not.
        """
        losses: dict[str, float] = {}
        self.grad_norms.clear()
        for _ in range(self._args.num_iterations):
            losses.update(self._update_once(model, rollout, optimizer, tether, self._arm.adapters))
            for _ in range(self._extra_updates):
                losses.update(self._update_once(model, rollout, optimizer, tether, tuple(self._arm.adversaries)))
        return losses

    def _update_once(
        self,
        model: torch.nn.Module,
        rollout: Rollout,
        optimizer: torch.optim.Optimizer,
        tether: Tether,
        adapters: Sequence[str],
    ) -> dict[str, float]:
        losses: dict[str, float] = {}
        for adapter in adapters:
            mine = [sample for sample in rollout.samples if sample.adapter == adapter and sample.row.own_tokens]
            share = Share.of(mine, self._accelerator)
            if share.tokens:
                losses[adapter] = self.accumulate(model, adapter, mine, share, tether)
                self.grad_norms[adapter] = self.reduce_and_clip(adapter, self._bases.parameters(adapter), mine)
                if self._critics:
                    self.accumulate_critic(self._critics, adapter, mine, share)
                    critic = critic_of(adapter)
                    self.grad_norms[critic] = self.reduce_and_clip(critic, self._critics.parameters(adapter), mine)
        optimizer.step()
        check_weights(losses, {adapter: self._bases.parameters(adapter) for adapter in losses})
        for adapter in losses:
            self._bases.of(adapter).bank.touch(adapter)
        optimizer.zero_grad(set_to_none=True)
        return losses

    def accumulate(
        self, model: torch.nn.Module, adapter: str, samples: Sequence[Sample], share: Share, tether: Tether
    ) -> float:
        """Add up the gradients of one adapter's loss over all its rows; returns the loss."""
        sharded = self._accelerator.distributed_type in SHARDED
        forward = model if sharded else self._bases.of(adapter).bank.model
        batches = self._batches(adapter, samples, share)
        total = torch.zeros((), device=self._args.device)
        self._loss.parts.clear()
        for i, batch in enumerate(batches):
            self._accelerator.gradient_state._set_sync_gradients(i == len(batches) - 1)
            loss = self._loss(forward, adapter, batch, share, tether)
            self._accelerator.backward(loss)
            total += loss.detach()
        self._accelerator.gradient_state._set_sync_gradients(True)
        return float(self._accelerator.reduce(total, "mean").item())

    def _batches(self, adapter: str, samples: Sequence[Sample], share: Share) -> list[list[Sample]]:
        size = self._args.per_device_train_batch_size
        reader = self._bases.of(adapter).reader
        if share.processes == 1:
            return reader.batches(samples, size)
        return micro_batches(reader.order(samples, size), size, share)

    def accumulate_critic(self, critics: Critics, adapter: str, samples: Sequence[Sample], share: Share) -> None:
        """Add up the gradients of a critic's loss, the mean over all decisions that have a target."""
        args = self._args
        self._loss.parts.clear()
        known = torch.tensor([sum(int((~s.targets.isnan()).sum()) for s in samples if s.targets is not None)])
        count = self._accelerator.reduce(known.to(args.device), "sum").item()
        for batch in self._batches(adapter, samples, share):
            inputs = loss_inputs(batch, share, self._bases.of(adapter).pad_id, args.device)
            there = ~inputs["targets"].isnan()
            values, old, targets = critics.values(adapter, inputs), inputs["values"], inputs["targets"].nan_to_num()
            losses = value_loss(values, old, targets, args.value_clip)[there]
            self._means.add(f"policy/{adapter}/value_loss", losses.sum(), there.sum())
            self._loss.add("its value loss", losses.sum())
            self._accelerator.backward(losses.sum() * share.processes / max(count, 1))

    def reduce_and_clip(
        self, name: str, parameters: Sequence[torch.nn.Parameter], samples: Sequence[Sample] = ()
    ) -> float:
        """Average gradients over processes and clip their norm; returns the norm before clipping.

        Args:
            name: Name of the adapter or critic.
            parameters: Its weights.
            samples: What the gradient is of, for an error.

        Raises:
            NumberError: If the norm is not finite; says where that arose.
        """
        if self._accelerator.num_processes > 1 and self._accelerator.distributed_type not in SHARDED:
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            flat = self._accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
            for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = gradient.view_as(parameter).clone()
        limit = self._args.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
        if not math.isfinite(norm):
            weights = self._bases.of(name).bank.base.named_parameters()
            base = ((key, weight) for key, weight in weights if "lora_" not in key)
            raise gradient_error(name, norm, parameters, samples, self._loss.parts, base)
        self._record(f"policy/{name}/grad_norm", norm)
        return norm


def parameter_groups(args: SRPOConfig, arm: Arm, bases: Bases, critics: Critics | None) -> list[dict[str, Any]]:
    """The optimizer's parameter groups: one for each adapter, then one for each critic."""
    slow, fast = args.learning_rate, args.adversary_learning_rate
    rates = {a: fast if a in arm.adversaries and fast is not None else slow for a in arm.adapters}
    groups = [
        {"params": bases.parameters(adapter), "lr": rate, "weight_decay": args.weight_decay}
        for adapter, rate in rates.items()
    ]
    if critics:
        rate = slow if args.critic_learning_rate is None else args.critic_learning_rate
        groups += [
            {"params": critics.parameters(adapter), "lr": rate, "weight_decay": args.weight_decay}
            for adapter in arm.adapters
        ]
    return groups


def check_backend(accelerator: Accelerator, allow_untested: bool) -> None:
    """See that gradients are averaged in a way that was tested.

    Raises:
        NotImplementedError: If they are not.
    """
    if accelerator.distributed_type in SHARDED and not allow_untested:
        raise NotImplementedError(
            f"{accelerator.distributed_type.value} is untested: no GPU test of it has passed yet. Use the "
            "configuration multi_gpu (`llm-sra list accelerate_configs --path multi_gpu` prints its file), or pass "
            "--allow_untested_backend true"
        )
