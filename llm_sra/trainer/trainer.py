"""The trainer: TRL's GRPOTrainer with another rollout and another order of updates.

One step is one rollout and all optimizer updates on it:

    sync      bring the adapters to the engine
    generate  play the step's episodes, all matches at once
    score     log-probabilities, and critics' values, that the credit or the loss needs
    credit    returns, tether, risk over partners, advantages
    train     for each update, each adapter: micro-batches, clip, optimizer step

The loss is TRL's. What is ours here: which adapter is active, that a loss does not depend on how its rows are cut into
micro-batches, one gradient norm per adapter, gradients averaged over processes. The parts do not know the trainer.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback

from llm_sra.engines import Engine
from llm_sra.models.adapters import AdapterBank
from llm_sra.objectives import exact_tether, risk, value_loss
from llm_sra.objectives.tau_schedule import TauSchedule
from llm_sra.playing import play
from llm_sra.task import Task
from llm_sra.trainer import checkpoints, crediting, metrics
from llm_sra.trainer.arms import Arm, tether_strength
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.critic import Critics, critic_of
from llm_sra.trainer.loss import Share, accumulation_scale, by_length, loss_inputs, micro_batches, reduce_tokens
from llm_sra.trainer.rollout import Rollout, Sample, collect, episode_specs, group_sizes, problem_order
from llm_sra.trainer.scorer import RowScorer

logger = logging.getLogger(__name__)
ENGINE = "main"
FROM_TRL = {"clip_ratio/region_mean": "clip_fraction", "cispo_clip_ratio": "clip_fraction", "kl": "kl_to_base"}
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class SRPOTrainer(RowScorer):
    """Trains the heroes of a task, and their adversaries.

    Args:
        task: The rules.
        arm: Who plays with whom, and for what.
        bank: One adapter for each of `arm.adapters`.
        tokenizer: Of the base model.
        engine: Generates the replies.
        args: See `SRPOConfig`.
        other_engines: Those of partners that are other models, by the names that their policies use.
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
        other_engines: Mapping[str, Engine] | None = None,
    ) -> None:
        self.task, self.arm, self.bank, self.engine = task, arm, bank, engine
        self._engines = {**(other_engines or {}), ENGINE: engine}
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
        self._entropies = None
        chosen = engine.renderer.single_tokens(task.choices)
        self._choices = torch.tensor(chosen, device=self.args.device) if chosen else None
        self.critics = Critics(bank, arm.adapters) if args.algorithm == "ppo" else None
        steps = args.tau_schedule_steps or max(args.max_steps, 1)
        self._schedule = TauSchedule(
            args.tau_schedule, tether_strength(args.arm, args.tau), args.tau_start, steps, args.target_kl
        )
        heroes = [match_set.hero for match_set in arm.match_sets if match_set.sampled]
        self._smoothed = {hero: risk.SmoothedWeights(args.risk_smoothing) for hero in heroes if args.risk_smoothing}
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
            self._reset_adversaries()
            self.engine.sync()
        with clock("generate"):
            rollout = self._play()
            self.engine.rest()
        with clock("score"):
            self._score(rollout, self._reused)
        self._credit(rollout)
        with clock("train"):
            losses = self._update(model, rollout)
        self._log_step(rollout, losses, clock)
        self._step += 1
        return torch.tensor(sum(losses.values()) / max(len(losses), 1), device=self.args.device)

    def _play(self) -> Rollout:
        args, step = self.args, self.state.global_step
        seated = episode_specs(
            self.arm,
            problem_order(self.problems, step, args.problems_per_step, args.seed),
            args.num_generations,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            args.partners_per_step,
            f"{args.seed}/{step}",
        )
        episodes = play(
            self.task,
            [table for table, _ in seated],
            self._engines,
            seed=args.seed,
            step=step,
            max_reply_tokens=self._reply_limit,
        )
        return collect(episodes, [training for _, training in seated], args.mask_truncated_completions)

    def _credit(self, rollout: Rollout) -> None:
        args, parts = self.args, crediting.parts_of(rollout)
        tether = self.tau, self._tether_in_reward
        returns = crediting.player_returns(parts, *tether)
        sizes = group_sizes(self.arm, args.num_generations, args.partners_per_step)
        if args.algorithm == "ppo":
            crediting.credit_with_critic(rollout, parts, *tether, args.gamma, args.gae_lambda, args.level)
            if args.whiten_advantages:
                crediting.whiten(rollout)
        elif args.level == "turn":
            crediting.credit_turns(rollout, parts, returns, sizes, *tether, args.advantage_baseline)
        else:
            batch_std = {}
            if args.scale_rewards == "batch":
                batch_std = metrics.batch_std(crediting.by_adapter(parts, returns))
            crediting.credit_groups(
                rollout, parts, returns, sizes, args.scale_rewards, args.advantage_baseline, batch_std
            )
        if any(match_set.sampled for match_set in self.arm.match_sets):
            crediting.weigh_partners(rollout, self.arm, parts, returns, self._risk, self._smoothed)

    def _risk(self, returns: torch.Tensor) -> risk.Risk:
        """The risk measure over partners of (Z,) mean returns."""
        args = self.args
        if args.risk == "entropic":
            return risk.entropic(returns, args.tau)
        if args.risk == "cvar":
            return risk.cvar(returns, args.risk_alpha)
        return risk.worst_case(returns) if args.risk == "worst_case" else risk.expectation(returns)

    def _reset_adversaries(self) -> None:
        """Make adversaries copies of their partners again, where that is asked for and due."""
        every, step = self.args.adversary_reset_steps, self.state.global_step
        if every and step and step % every == 0:
            for adversary, partner in self.arm.adversaries.items():
                self.bank.copy(partner, adversary)
                for parameter in self.bank.parameters(adversary):
                    self.optimizer.state.pop(parameter, None)

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
                self._grad_norms[adapter] = self._reduce_and_clip(adapter, self.bank.parameters(adapter))
                if self.critics:
                    self._fit_critic(self.critics, adapter, samples, share)
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
        return float(self.accelerator.reduce(total, "mean").item())

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
        with self._reported_by_trl() as reported, self._keeping_logits(partner is not None) as kept:
            loss: torch.Tensor = self._compute_loss(model, inputs)
        entropies = self._entropies
        assert entropies is not None
        tokens = mask.sum()
        metrics.add_entropies(self._means, adapter, entropies, mask, [sample.row.turns for sample in batch])
        for theirs, ours in FROM_TRL.items():
            for value in reported.get(theirs, ()):
                self._means.add(f"policy/{adapter}/{ours}", value * tokens, tokens)
        coef = args.adversary_entropy_coef if adversary else args.entropy_coef
        mean = args.entropy_reduction == "mean"
        loss = loss - coef * reduce_tokens(entropies, mask, share, self.loss_type, self._reply_limit, mean)
        if partner is not None:
            kl = exact_tether(partner, kept[0])
            loss = loss + reduce_tokens(kl, mask, share, self.loss_type, self._reply_limit) / self.tau
        return loss

    def _fit_critic(self, critics: Critics, adapter: str, samples: Sequence[Sample], share: Share) -> None:
        """Gradients of a critic's loss, the mean over all the decisions that it is to value."""
        args, name = self.args, critic_of(adapter)
        known = torch.tensor([sum(int((~s.targets.isnan()).sum()) for s in samples if s.targets is not None)])
        count = self.accelerator.reduce(known.to(args.device), "sum").item()
        for batch in micro_batches(samples, args.per_device_train_batch_size, share):
            inputs = loss_inputs(batch, share, self._tokenizer.pad_token_id, args.device)
            there = ~inputs["targets"].isnan()
            values, old, targets = critics.values(adapter, inputs), inputs["values"], inputs["targets"].nan_to_num()
            losses = value_loss(values, old, targets, args.value_clip)[there]
            self._means.add(f"policy/{adapter}/value_loss", losses.sum(), there.sum())
            self.accelerator.backward(losses.sum() * share.processes / max(count, 1))
        self._grad_norms[name] = self._reduce_and_clip(name, critics.parameters(adapter))

    def _reduce_and_clip(self, name: str, parameters: Sequence[torch.nn.Parameter]) -> float:
        """Average gradients over processes and clip their norm; returns the norm before clipping."""
        if self.accelerator.num_processes > 1 and self.accelerator.distributed_type not in SHARDED:
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            flat = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
            for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = gradient.view_as(parameter).clone()
        limit = self.args.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"step {self.state.global_step}: the gradient of adapter {name!r} is {norm}. Nothing was updated; "
                "the last checkpoint is whole. Lower learning_rate or max_grad_norm, or train in float32"
            )
        self._metrics["train"][f"policy/{name}/grad_norm"].append(norm)
        return norm

    # -- hooks of TRL and transformers ----------------------------------------------------------------------------

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
            if self.critics:
                rate = self.args.critic_learning_rate
                groups += [
                    {
                        "params": self.critics.parameters(adapter),
                        "lr": slow if rate is None else rate,
                        "weight_decay": self.args.weight_decay,
                    }
                    for adapter in self.arm.adapters
                ]
            self.optimizer = cls(groups, **options)
        made: torch.optim.Optimizer = self.optimizer
        return made

    def get_train_dataloader(self) -> DataLoader[Any]:
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
    def tau(self) -> float:
        """The degree of risk aversion of this step."""
        return self._schedule.at(self.state.global_step)

    @property
    def _tether_in_reward(self) -> bool:
        return bool(self.args.kl_direction == "adversary_partner")

    @property
    def _reused(self) -> bool:
        """Whether a rollout is used for more than one update of an adapter."""
        return self.args.num_iterations > 1 or self._extra_updates > 0

    @property
    def _extra_updates(self) -> int:
        """Updates of the adversaries beside those of the heroes."""
        return self.args.adversary_updates - 1 if self.arm.adversaries else 0

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
        numbers |= self._means.reduce()
        for adversary, partner in self.arm.adversaries.items():
            numbers |= metrics.entropy_gaps(numbers, adversary, partner)
        if self.arm.adversaries:
            numbers["tau"] = self.tau
            nats = [numbers.get(f"policy/{adversary}/kl_to_partner", 0.0) for adversary in self.arm.adversaries]
            self._schedule.observe(sum(nats) / len(nats))
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
                f"{self.accelerator.distributed_type.value} is untested: no GPU test of it has passed yet. Use the "
                "configuration multi_gpu (`llm-sra list accelerate_configs --path multi_gpu` prints its file), or pass "
                "--allow_untested_backend true"
            )


def _rewards_come_from_the_task(**kwargs: Any) -> list[float]:
    raise RuntimeError("TRL must not ask for rewards: they come from the task")
