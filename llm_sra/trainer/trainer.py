"""The trainer: TRL's GRPOTrainer with another rollout and another order of updates.

One step is one rollout and all optimizer updates on it:

    sync      bring the adapters to the engine
    generate  play the step's episodes, all matches at once
    score     log-probabilities, and critics' values, that the credit or the loss needs
    credit    returns, tether, risk over partners, advantages
    train     for each update, each adapter: micro-batches, clip, optimizer step

Each of these is a part of its own, which does not know the trainer. The trainer makes the parts, runs the step, and is
what TRL and transformers call: those methods delegate. The policy term of the loss is TRL's.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import GRPOTrainer

from llm_sra.engines import Engine
from llm_sra.episodes import write_training_episodes
from llm_sra.errors import NumberError, TaskError
from llm_sra.models.adapters import AdapterBank
from llm_sra.objectives import Tether
from llm_sra.objectives.partner_returns import PartnerReturns
from llm_sra.objectives.risk import RISKS
from llm_sra.objectives.tau_schedule import TauSchedule
from llm_sra.playing import play
from llm_sra.protocol.rules import Rules
from llm_sra.task import Task
from llm_sra.trainer import metrics
from llm_sra.trainer.adapter_loss import AdapterLoss, Reported
from llm_sra.trainer.arms import Arm, tether_strength
from llm_sra.trainer.bases import Base, Bases, pad_of, prepare_as_first
from llm_sra.trainer.checkpoints import Checkpoints
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.credit import assign_credit
from llm_sra.trainer.critic import Critics
from llm_sra.trainer.estimators import EstimatorOptions
from llm_sra.trainer.forward import Forward, choice_ids
from llm_sra.trainer.influence import add_influence, measure_influence
from llm_sra.trainer.memory import return_large_blocks
from llm_sra.trainer.player_episodes import player_episodes
from llm_sra.trainer.preferences import with_preferences
from llm_sra.trainer.reading import Reader
from llm_sra.trainer.resuming import load_with_present_options, reading_state
from llm_sra.trainer.rollout import Rollout, collect, episode_specs, group_sizes, problem_order
from llm_sra.trainer.scorer import Scorer
from llm_sra.trainer.step_report import StepReport
from llm_sra.trainer.updates import SHARDED, Updater, check_backend, parameter_groups


class SRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """Trains the heroes of a task, and their adversaries.

    Args:
        task: The rules.
        arm: Who plays with whom, and for what.
        banks: The base models under training, by the names of their engines; together they have one adapter for each of
            `arm.adapters`.
        engines: Those of `banks`, and those of partners that are other models, by the names that policies use.
        args: See `SRPOConfig`.
        evaluate_heroes: Called every `eval_steps`; its numbers are logged as `eval_<name>`.
        callbacks: transformers callbacks.
    """

    args: Any
    optimizer: Any  # set by transformers
    control: Any

    def __init__(
        self,
        task: Task,
        arm: Arm,
        banks: Mapping[str, AdapterBank],
        engines: Mapping[str, Engine],
        args: SRPOConfig,
        evaluate_heroes: Callable[[], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        if args.device.type == "cpu":
            return_large_blocks()
        self.task, self.arm, self._engines = task, arm, engines
        first, *others = banks
        tokenizer = engines[first].renderer.tokenizer
        if args.eval_strategy != "no" and evaluate_heroes is None:
            raise ValueError("eval_strategy asks for evaluations: name the roster to play in dev_roster")
        self.problems = Rules(task).problems("train", seed=args.seed)
        if not self.problems:
            raise ValueError(f"task {type(task).__name__} has no problems in its train split")
        self._evaluate_heroes = evaluate_heroes
        self._reply_limit = args.max_completion_length or task.max_reply_tokens
        beta, args.beta = args.beta, 0.0  # TRL would copy an adapter named "default"
        router_coef, args.router_aux_loss_coef = args.router_aux_loss_coef, 0.0  # routers are frozen
        entropy_coef, args.entropy_coef = args.entropy_coef, 0.0  # TRL's bonus depends on the number of micro-batches
        completion_length, args.max_completion_length = args.max_completion_length, self._reply_limit
        super().__init__(
            model=banks[first].model,
            reward_funcs=_rewards_come_from_the_task,
            args=args,
            train_dataset=Dataset.from_dict({"prompt": [problem.id for problem in self.problems]}),
            eval_dataset=Dataset.from_dict({"prompt": [""]}) if args.eval_strategy != "no" else None,
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        args.beta, args.entropy_coef, args.max_completion_length = beta, entropy_coef, completion_length
        args.router_aux_loss_coef = router_coef
        self.beta = beta
        if others and self.accelerator.distributed_type in SHARDED:
            raise NotImplementedError("FSDP and DeepSpeed shard one model: leave seat_models out, or use multi_gpu")
        for name in others:
            prepare_as_first(banks[name].model, args, pad_of(engines[name].renderer.tokenizer))
        self._make_parts(banks)
        # Only now: in `__init__` TRL would start a vLLM of its own. From here on it says whether losses are corrected.
        self.use_vllm = not self.bases.share_weights
        check_backend(self.accelerator, args.allow_untested_backend)

    def _make_parts(self, banks: Mapping[str, AdapterBank]) -> None:
        args, arm = self.args, self.arm
        strength = tether_strength(args.arm, args.tau)
        steps = args.tau_schedule_steps or max(args.max_steps, 1)
        self._schedule = TauSchedule(args.tau_schedule, strength, args.tau_start, steps, args.target_kl)
        heroes = [match_set.hero for match_set in arm.match_sets if match_set.sampled]
        self._earned = {hero: PartnerReturns(args.risk_smoothing) for hero in heroes}
        self.bases = Bases([self._base(bank, self._engines[name]) for name, bank in banks.items()])
        self.critics = Critics(self.bases, arm.adapters) if args.estimator.needs_critic else None
        self.checkpoints = Checkpoints(
            args.run_dir, self.bases, arm.adapters, self.critics, self._schedule, self._earned
        )
        self.means = metrics.TokenMeans()
        statistics = self._get_per_token_logps_and_entropies
        self.scorer = Scorer(args, self.bases, self.critics, statistics, self.means)
        loss = AdapterLoss(args, arm, self.bases, self._trl_loss, self.means, self._reply_limit)
        self.updater = Updater(args, arm, self.bases, self.critics, self.accelerator, loss, self.means, self._record)
        self.report = StepReport(arm, self.means)

    def _base(self, bank: AdapterBank, engine: Engine) -> Base:
        autocast, whole = self.accelerator.autocast, self.accelerator.distributed_type not in SHARDED
        reader = Reader(bank.base, autocast, share=whole)
        of_adapters = self.arm.seats
        here = {seat for name in bank.names for seat in of_adapters.get(name, ())}
        seats = [seat for seat in self.task.seats if seat in here]
        choices = choice_ids(self.task, seats, engine.renderer, self.args.device)
        forward = Forward(bank, self.temperature, choices, autocast, reader, seats)
        return Base(bank, engine, reader, forward, pad_of(engine.renderer.tokenizer))

    # -- the step ------------------------------------------------------------------------------------------------

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One rollout and all its updates; returns the mean loss of the last update."""
        self.bases.train()
        clock = metrics.Clock()
        with clock("sync"):
            self._reset_adversaries()
            for base in self.bases:
                base.engine.sync()
        with clock("generate"):
            rollout = self._play()
            self._rest()
        with clock("score"):
            self.scorer.score(rollout, self.arm.adapters, self.updater.reuses_rollouts, self.arm.peers)
            if self.args.influence_coef:
                measure_influence(rollout, self.scorer, self.bases)
        self._credit(rollout)
        with clock("train"):
            losses = self._update(model, rollout)
        self._log_step(rollout, losses, clock.seconds)
        self._step += 1
        return torch.tensor(sum(losses.values()) / max(len(losses), 1), device=self.args.device)

    @property
    def tether(self) -> Tether:
        """The adversaries' tether in this step."""
        tether: Tether = self.args.tether(self._schedule.at(self.state.global_step))
        return tether

    def _reset_adversaries(self) -> None:
        """Make adversaries copies of their partners again, where `adversary_reset_steps` says so."""
        every, step = self.args.adversary_reset_steps, self.state.global_step
        if every and step and step % every == 0:
            for adversary, partner in self.arm.adversaries.items():
                self.bases.of(adversary).bank.copy(partner, adversary)
                for parameter in self.bases.parameters(adversary):
                    self.optimizer.state.pop(parameter, None)

    def _rest(self) -> None:
        for base in self.bases:
            base.engine.rest()

    def _play(self) -> Rollout:
        args, step = self.args, self.state.global_step
        specs = episode_specs(
            self.arm,
            problem_order(self.problems, step, args.problems_per_step, args.seed),
            args.num_generations,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            args.partners_per_step,
            f"{args.seed}/{step}",
        )
        with self._naming_step():
            episodes = play(
                self.task,
                [spec for spec, _ in specs],
                self._engines,
                seed=args.seed,
                step=step,
                max_reply_tokens=self._reply_limit,
            )
        return collect(episodes, [training for _, training in specs], args.mask_truncated_completions)

    def _credit(self, rollout: Rollout) -> None:
        args = self.args
        rollout = with_preferences(rollout, args.preferences)
        assign_credit(
            rollout,
            self.arm,
            group_sizes(self.arm, args.num_generations, args.partners_per_step),
            self.tether,
            args.estimator,
            EstimatorOptions.of(args),
            lambda returns: RISKS[args.risk].of(returns, args),
            self._earned,
        )
        if args.influence_coef:
            add_influence(rollout, player_episodes(rollout), args.influence_coef)

    def _update(self, model: torch.nn.Module, rollout: Rollout) -> dict[str, float]:
        with self._naming_step():
            return self.updater.update(model, rollout, self.optimizer, self.tether)

    @contextmanager
    def _naming_step(self) -> Iterator[None]:
        """Say of errors in which step they arose, and of numbers what there is to resume from."""
        try:
            yield
        except NumberError as error:
            raise NumberError(f"step {self.state.global_step}: {error}. {self.checkpoints.newest()}") from error
        except TaskError as error:
            raise TaskError(f"{error}. In training step {self.state.global_step}") from error

    def _log_step(self, rollout: Rollout, losses: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        step = self.state.global_step + 1
        numbers = self.report.numbers(rollout, losses, seconds, self.tether.tau)
        if self.arm.adversaries:
            self._schedule.observe(self.report.divergence(numbers))
        for name, value in numbers.items():
            self._record(name, value)
        self.report.warn(numbers, step)
        contexts = {adapter: self.bases.of(adapter).engine.context_length for adapter in self.arm.adapters}
        self.report.warn_of_room(rollout.episodes, contexts, self._reply_limit)
        if step == 1:
            self.report.warn_of_pay(self.task, rollout.episodes)
        if self.accelerator.is_main_process:
            folder = self.args.run_dir / "episodes"
            write_training_episodes(folder, rollout.episodes, step, self.args.log_episodes)

    def _record(self, name: str, value: float) -> None:
        """Log a number; TRL logs the mean of all that came since it last logged."""
        self._metrics["train"][name].append(value)

    def _trl_loss(self, model: torch.nn.Module, inputs: dict[str, Any], scale: float) -> tuple[torch.Tensor, Reported]:
        """TRL's loss divided by a scale, and what TRL reports of it: that would mix the adapters in the log."""
        self.current_gradient_accumulation_steps = scale
        everything = self._metrics["train"]
        self._metrics["train"] = reported = type(everything)(list)
        try:
            return self._compute_loss(model, inputs), reported
        finally:
            self._metrics["train"] = everything

    # -- what TRL and transformers call --------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        return self.bases.of_model(model).forward.statistics(model, input_ids, attention_mask, logits_to_keep)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> float:
        """The norm of all gradients, each adapter's before clipping."""
        return math.hypot(*self.updater.grad_norms.values())

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """One optimizer with a parameter group per adapter."""
        if self.optimizer is None:
            cls, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = cls(parameter_groups(self.args, self.arm, self.bases, self.critics), **options)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

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
        self._rest()
        logs = {f"{metric_key_prefix}_{name}": value for name, value in numbers.items()}
        with self.bases.evaluation_mode():  # else TRL would write the training's numbers onto this line
            self.log(dict(logs))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Cards are written by the export, with results."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpoints.folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        self.checkpoints.save(Path(output_dir) if output_dir else None)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        with self.checkpoints.staging():
            super()._save_checkpoint(model, trial)
        args, resumable = self.args, not self.args.save_only_model
        self.checkpoints.publish(self.state, self.accelerator, args.should_save, args.save_total_limit, resumable)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self.checkpoints.load(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        load = super()._load_optimizer_and_scheduler
        load_with_present_options(self.optimizer, self.lr_scheduler, lambda: load(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Take the states of random numbers from a checkpoint."""
        with reading_state("the state of random numbers"):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        self.checkpoints.load(Path(self.state.best_model_checkpoint))


def _rewards_come_from_the_task(**kwargs: Any) -> list[float]:
    raise RuntimeError("TRL must not ask for rewards: they come from the task")
