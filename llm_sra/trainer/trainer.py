"""The trainer: TRL's GRPOTrainer with another rollout and another order of updates.

One step is one rollout and all optimizer updates on it:

    sync      bring the adapters to the engine
    generate  play the step's episodes, all matches at once
    score     log-probabilities that the credit or the loss needs
    credit    returns, tether, advantages
    train     for each update, each adapter: micro-batches, clip, optimizer step

The loss is TRL's. What is ours here: which adapter is active, that a loss does not depend on how its rows are cut into
micro-batches, one gradient norm per adapter, gradients averaged over processes. The parts do not know the trainer.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback

from llm_sra.adapters import AdapterBank
from llm_sra.credit import exact_tether
from llm_sra.engines import Engine
from llm_sra.play import play
from llm_sra.task import Task
from llm_sra.trainer import checkpoints, metrics
from llm_sra.trainer.arms import Arm
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.keeper import AdapterKeeper
from llm_sra.trainer.loss import (
    Share,
    accumulation_scale,
    by_length,
    chunks,
    importance_ratios,
    loss_inputs,
    micro_batches,
    reduce_tokens,
)
from llm_sra.trainer.rollout import (
    Rollout,
    Sample,
    assign_advantages,
    by_adapter,
    collect,
    player_returns,
    problem_order,
    seat_tables,
)
from llm_sra.trainer.rows import collate

logger = logging.getLogger(__name__)
ENGINE = "main"
FROM_TRL = {"clip_ratio/region_mean": "clip_fraction", "cispo_clip_ratio": "clip_fraction", "kl": "kl_to_base"}
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class SRPOTrainer(AdapterKeeper):
    """Trains the heroes of a task, and their adversaries.

    Args:
        task: The rules.
        arm: Who plays with whom, and for what.
        bank: One adapter for each of `arm.adapters`.
        tokenizer: Of the base model.
        engine: Generates the replies.
        args: See `SRPOConfig`.
        evaluate_heroes: Called every `eval_steps` with the engine; its numbers are logged as `eval_<name>`.
        callbacks: transformers callbacks.
    """

    optimizer: Any  # set by transformers
    control: Any

    def __init__(
        self,
        task: Task,
        arm: Arm,
        bank: AdapterBank,
        tokenizer: PreTrainedTokenizerBase,
        engine: Engine,
        args: SRPOConfig,
        evaluate_heroes: Callable[[], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.task, self.arm, self.bank, self.engine = task, arm, bank, engine
        if args.eval_strategy != "no" and evaluate_heroes is None:
            raise ValueError("eval_strategy asks for evaluations: name the roster to play in dev_roster")
        self.problems = list(task.problems("train", seed=args.seed))
        if not self.problems:
            raise ValueError(f"task {type(task).__name__} has no problems in its train split")
        self._evaluate_heroes = evaluate_heroes
        self._checkpoint_dir = args.run_dir / checkpoints.FOLDER
        self._reply_limit = args.max_completion_length or task.max_reply_tokens
        beta, args.beta = args.beta, 0.0  # TRL would copy an adapter named "default"
        entropy_coef, args.entropy_coef = args.entropy_coef, 0.0  # TRL's bonus depends on the number of micro-batches
        completion_length, args.max_completion_length = args.max_completion_length, self._reply_limit
        super().__init__(
            model=bank.model,
            reward_funcs=_rewards_come_from_the_task,
            args=args,
            train_dataset=Dataset.from_dict({"prompt": [problem.id for problem in self.problems]}),
            eval_dataset=Dataset.from_dict({"prompt": [""]}) if args.eval_strategy != "no" else None,
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        args.beta, args.entropy_coef, args.max_completion_length = beta, entropy_coef, completion_length
        self.beta = beta
        # Only now: in `__init__` TRL would start a vLLM of its own. From here on it says whether losses are corrected.
        self.use_vllm = not engine.shares_weights
        self._entropies: torch.Tensor | None = None
        self._means = metrics.TokenMeans()
        self._grad_norms: dict[str, float] = {}
        self._first_numbers: dict[str, float] = {}
        self._check_backend()

    # -- the step ------------------------------------------------------------------------------------------------

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One rollout and all its updates; returns the mean loss of the last update."""
        model.train()
        clock = metrics.Clock()
        with clock("sync"):
            self.engine.sync()
        with clock("generate"):
            rollout = self._play()
            self.engine.rest()
        with clock("score"):
            self._score(rollout)
        self._credit(rollout)
        with clock("train"):
            losses = self._update(model, rollout)
        self._log_step(rollout, losses, clock)
        self._step += 1
        return torch.tensor(sum(losses.values()) / max(len(losses), 1), device=self.args.device)

    def _play(self) -> Rollout:
        args, step = self.args, self.state.global_step
        seated = seat_tables(
            self.arm,
            problem_order(self.problems, step, args.problems_per_step, args.seed),
            args.num_generations,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        episodes = play(
            self.task,
            [table for table, _ in seated],
            {ENGINE: self.engine},
            seed=args.seed,
            step=step,
            max_reply_tokens=self._reply_limit,
        )
        return collect(episodes, [training for _, training in seated], args.mask_truncated_completions)

    @torch.no_grad()
    def _score(self, rollout: Rollout) -> None:
        """Log-probabilities before any update: own ones where a later update or the tether needs them."""
        with self._evaluating():
            for adapter in self.arm.adapters:
                samples = [sample for sample in rollout.samples if sample.adapter == adapter]
                tethered = any(sample.tether for sample in samples)
                for batch in chunks(by_length(samples), self.args.per_device_train_batch_size):
                    needed = self._reused or tethered or not self.engine.shares_weights
                    own = self._logprobs(batch, adapter) if needed else None
                    if tethered and own is not None:
                        self._tether(batch, own)
                    if own is not None and not self.engine.shares_weights:
                        self._compare_with_engine(batch, adapter, own)
                    base = self._logprobs(batch, None) if self.beta else None
                    for i, sample in enumerate(batch):
                        length = len(sample.row.completion_ids)
                        sample.old_logprobs = own[i, :length].clone() if own is not None and self._reused else None
                        sample.ref_logprobs = base[i, :length].clone() if base is not None else None

    def _tether(self, batch: Sequence[Sample], own: torch.Tensor) -> None:
        """Σ (log φ - log π) of each row; both sides by the same forward pass of the same tokens."""
        for tether in {sample.tether for sample in batch}:
            rows = [i for i, sample in enumerate(batch) if sample.tether == tether]
            partner = self._logprobs([batch[i] for i in rows], tether)
            for j, i in enumerate(rows):
                row = batch[i].row
                said = torch.tensor([turn >= 0 for turn in row.turns], device=own.device)
                length = len(row.completion_ids)
                batch[i].kl_sum = ((own[i, :length] - partner[j, :length]) * said).sum().item()

    def _compare_with_engine(self, batch: Sequence[Sample], adapter: str, own: torch.Tensor) -> None:
        """Weigh tokens by the trainer's over the engine's probability of them, and report how far apart these are."""
        args = self.args
        inputs = collate([sample.row for sample in batch], self._tokenizer.pad_token_id, args.device)
        mask, sampled = inputs["tool_mask"], inputs["sampling_per_token_logps"]
        bounds = args.vllm_importance_sampling_clip_max, args.vllm_importance_sampling_clip_min
        ratios = importance_ratios(own, sampled, mask, args.vllm_importance_sampling_mode, *bounds)
        prefix = f"policy/{adapter}"
        self._means.add(f"{prefix}/engine_logprob_difference", ((own - sampled).abs() * mask).sum(), mask.sum())
        self._means.add(f"{prefix}/importance_ratio", (ratios * mask).sum(), mask.sum())
        if args.vllm_importance_sampling_correction:
            for sample, row in zip(batch, ratios, strict=True):
                sample.importance = row[: len(sample.row.completion_ids)].clone()

    def _logprobs(self, batch: Sequence[Sample], adapter: str | None) -> torch.Tensor:
        """(B, T) log-probabilities of the completions under an adapter, or under the base."""
        inputs = collate([sample.row for sample in batch], self._tokenizer.pad_token_id, self.args.device)
        with self.bank.using(adapter):
            logprobs, _, _ = self._get_per_token_logps_and_entropies(
                self.bank.model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].size(1),
            )
        return logprobs

    def _credit(self, rollout: Rollout) -> None:
        returns = player_returns(rollout, self.args.tau, self._tether_in_reward)
        batch_std: dict[str, float] = {}
        if self.args.scale_rewards == "batch":
            batch_std = metrics.batch_std(by_adapter(rollout, returns))
        assign_advantages(rollout, returns, self.args.num_generations, self.args.scale_rewards, batch_std)

    def _update(self, model: torch.nn.Module, rollout: Rollout) -> dict[str, float]:
        """All optimizer updates of the step: heroes once an iteration, adversaries `adversary_updates` times."""
        losses: dict[str, float] = {}
        self._grad_norms.clear()
        for _ in range(self.args.num_iterations):
            losses.update(self._update_once(model, rollout, self.arm.adapters))
            for _ in range(self._extra_updates):
                losses.update(self._update_once(model, rollout, tuple(self.arm.adversaries)))
        return losses

    def _update_once(self, model: torch.nn.Module, rollout: Rollout, adapters: Sequence[str]) -> dict[str, float]:
        losses: dict[str, float] = {}
        for adapter in adapters:
            mine = [sample for sample in rollout.samples if sample.adapter == adapter and sample.row.own_tokens]
            samples = by_length(mine)
            share = Share.of(samples, self.accelerator)
            if share.tokens:
                losses[adapter] = self._accumulate(model, adapter, samples, share)
                self._grad_norms[adapter] = self._reduce_and_clip(adapter)
        self.optimizer.step()
        self.bank.touch(*losses)
        self.optimizer.zero_grad(set_to_none=True)
        return losses

    def _accumulate(self, model: torch.nn.Module, adapter: str, samples: Sequence[Sample], share: Share) -> float:
        """Gradients of one adapter's loss over all its rows; returns the loss."""
        forward = model if self.accelerator.distributed_type in SHARDED else self.bank.model
        batches = micro_batches(samples, self.args.per_device_train_batch_size, share)
        total = torch.zeros((), device=self.args.device)
        for i, batch in enumerate(batches):
            self.accelerator.gradient_state._set_sync_gradients(i == len(batches) - 1)
            loss = self._micro_batch_loss(forward, adapter, batch, share)
            self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.gradient_state._set_sync_gradients(True)
        return self.accelerator.reduce(total, "mean").item()

    def _micro_batch_loss(
        self, model: torch.nn.Module, adapter: str, batch: Sequence[Sample], share: Share
    ) -> torch.Tensor:
        """One micro-batch's part of the adapter's loss; the parts add up to the same whatever the micro-batch size."""
        args = self.args
        inputs = loss_inputs(batch, share, self._tokenizer.pad_token_id, args.device)
        mask = inputs["completion_mask"] * inputs["tool_mask"]
        adversary = adapter in self.arm.adversaries
        partner = self._partner_logits(batch, inputs) if adversary and not self._tether_in_reward else None
        self.bank.activate(adapter)
        self.current_gradient_accumulation_steps = accumulation_scale(
            self.loss_type, len(batch), int(mask.sum()), share, args.steps_per_generation
        )
        with self._reported_by_trl() as reported:
            loss = self._compute_loss(model, inputs)
        entropies = self._entropies
        assert entropies is not None
        tokens = mask.sum()
        self._means.add(f"policy/{adapter}/entropy", (entropies.detach() * mask).sum(), tokens)
        for theirs, ours in FROM_TRL.items():
            for value in reported.get(theirs, ()):
                self._means.add(f"policy/{adapter}/{ours}", value * tokens, tokens)
        coef = args.adversary_entropy_coef if adversary else args.entropy_coef
        mean = args.entropy_reduction == "mean"
        loss = loss - coef * reduce_tokens(entropies, mask, share, self.loss_type, self._reply_limit, mean)
        if partner is not None:
            kl = exact_tether(partner, self._logits(inputs))
            loss = loss + reduce_tokens(kl, mask, share, self.loss_type, self._reply_limit) / args.tau
        return loss

    @torch.no_grad()
    def _partner_logits(self, batch: Sequence[Sample], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, T, V) logits of the live partner that each row is tethered to."""
        logits: torch.Tensor | None = None
        for tether in sorted({sample.tether for sample in batch if sample.tether} or {next(iter(self.bank.names))}):
            with self.bank.using(tether):
                these = self._logits(inputs)
            rows = torch.tensor([sample.tether == tether for sample in batch], device=these.device)
            logits = these if logits is None else torch.where(rows[:, None, None], these, logits)
        assert logits is not None
        return logits

    def _logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, T, V) logits of the completion tokens under the active adapter, divided by the temperature."""
        width = inputs["completion_ids"].size(1)
        with self.accelerator.autocast():
            logits = self.bank.model(
                input_ids=torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            ).logits
        return logits[:, -width - 1 : -1] / self.temperature

    def _reduce_and_clip(self, adapter: str) -> float:
        """Average the adapter's gradients over processes and clip their norm; returns the norm before clipping."""
        parameters = self.bank.parameters(adapter)
        if self.accelerator.num_processes > 1 and self.accelerator.distributed_type not in SHARDED:
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            flat = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
            for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = gradient.view_as(parameter).clone()
        limit = self.args.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"step {self.state.global_step}: the gradient of adapter {adapter!r} is {norm}. Nothing was updated; "
                "the last checkpoint is whole. Lower learning_rate or max_grad_norm, or train in float32"
            )
        self._metrics["train"][f"policy/{adapter}/grad_norm"].append(norm)
        return norm

    # -- hooks of TRL and transformers ----------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple:
        """TRL's; keeps the entropies, from which the bonus is made."""
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._entropies = result[1]
        return result

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> float:
        """The norm of all gradients, before each adapter's was clipped by itself."""
        return math.hypot(*self._grad_norms.values())

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """One optimizer with a parameter group per adapter."""
        if self.optimizer is None:
            cls, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            slow, fast = self.args.learning_rate, self.args.adversary_learning_rate
            groups = [
                {
                    "params": self.bank.parameters(adapter),
                    "lr": fast if adapter in self.arm.adversaries and fast is not None else slow,
                    "weight_decay": self.args.weight_decay,
                }
                for adapter in self.arm.adapters
            ]
            self.optimizer = cls(groups, **options)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Numbers of steps: problems are chosen by the number alone, so that a resumed run plays the same."""
        steps = self.args.max_steps
        if steps <= 0:  # then transformers asks for one epoch, and counts the steps of all
            steps = math.ceil(len(self.problems) / self.args.problems_per_step)
        numbers: Any = [{"step": step} for step in range(steps)]
        return DataLoader(numbers, batch_size=1)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Play the development roster."""
        numbers = self._evaluate_heroes() if self._evaluate_heroes else {}
        self.engine.rest()
        logs = {f"{metric_key_prefix}_{name}": value for name, value in numbers.items()}
        with self._evaluating():  # else TRL would write the training's numbers onto this line
            self.log(dict(logs))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs

    # -- helpers --------------------------------------------------------------------------------------------------

    @property
    def _tether_in_reward(self) -> bool:
        return self.args.kl_direction == "adversary_partner"

    @property
    def _reused(self) -> bool:
        """Whether a rollout is used for more than one update of an adapter."""
        return self.args.num_iterations > 1 or self._extra_updates > 0

    @property
    def _extra_updates(self) -> int:
        """Updates of the adversaries beside those of the heroes."""
        return self.args.adversary_updates - 1 if self.arm.adversaries else 0

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.bank.model.training
        self.bank.model.eval()
        try:
            yield
        finally:
            self.bank.model.train(was_training)

    @contextmanager
    def _reported_by_trl(self) -> Iterator[dict[str, list[float]]]:
        """What TRL reports inside the block; it is kept from the log, where it would mix the adapters."""
        everything = self._metrics["train"]
        self._metrics["train"] = reported = type(everything)(list)
        try:
            yield reported
        finally:
            self._metrics["train"] = everything

    def _log_step(self, rollout: Rollout, losses: dict[str, float], clock: metrics.Clock) -> None:
        numbers = metrics.play_metrics(rollout)
        numbers |= self._means.reduce(self.accelerator)
        for adversary, partner in self.arm.adversaries.items():
            ours, theirs = (numbers.get(f"policy/{name}/entropy") for name in (adversary, partner))
            if ours is not None and theirs is not None:
                numbers[f"policy/{adversary}/entropy_gap"] = ours - theirs
        numbers |= {f"policy/{adapter}/loss": loss for adapter, loss in losses.items()}
        numbers |= {f"time/{name}": seconds for name, seconds in clock.seconds.items()}
        for name, value in numbers.items():
            self._metrics["train"][name].append(value)
        if dead := metrics.dead_policies(numbers):
            logger.warning(
                "step %d: %s no longer explores (entropy or the variance of its groups is gone) and will not change "
                "again by itself: raise its entropy bonus, or lower its learning rate",
                self.state.global_step + 1,
                ", ".join(dead),
            )
        self._first_numbers = self._first_numbers or numbers
        if wild := metrics.wild_policies(numbers, self._first_numbers):
            logger.warning(
                "step %d: the entropy of %s has grown more than %g-fold since the start: its replies turn into noise, "
                "for which the entropy bonus pays more than the task does. Lower the bonus or the replies' token limit",
                self.state.global_step + 1,
                ", ".join(wild),
                metrics.WILD_ENTROPY,
            )
        if self.accelerator.is_main_process:
            folder = self.args.run_dir / "episodes"
            metrics.write_episodes(folder, rollout.episodes, self.state.global_step + 1, self.args.log_episodes)

    def _check_backend(self) -> None:
        if self.accelerator.distributed_type in SHARDED and not self.args.allow_untested_backend:
            raise NotImplementedError(
                f"{self.accelerator.distributed_type.value} is untested: no GPU test of it has passed yet. Use "
                "accelerate_configs/multi_gpu.yaml, or go on with --allow_untested_backend true"
            )


def _rewards_come_from_the_task(**kwargs: Any) -> list[float]:
    raise RuntimeError("TRL must not ask for rewards: they come from the task")
