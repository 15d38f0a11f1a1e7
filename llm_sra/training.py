"""`train`: from a configuration to a finished run folder."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import ProgressCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback
from trl import get_peft_config

from llm_sra import runs
from llm_sra.engines import EngineError, EngineOptions, make_engine, sends_seeds
from llm_sra.evaluation.development import DevEvaluation
from llm_sra.models.adapters import AdapterBank, AdapterError
from llm_sra.models.loading import ModelError, load_model, quantization_of, read_config
from llm_sra.models.renderer import Renderer
from llm_sra.models.targets import check_targets
from llm_sra.partners.loader import PolicyLoader, Team
from llm_sra.partners.rosters import Entry, read_playable
from llm_sra.policies import EnginePolicy, decoded
from llm_sra.protocol.check import require_task
from llm_sra.registry import load_task, models_named
from llm_sra.runs import Run, RunError
from llm_sra.runs.trust import keep_task
from llm_sra.runs.writer import RunWriter
from llm_sra.task import Sampling, Task
from llm_sra.trainer import Arm, ModelArguments, SRPOConfig, SRPOTrainer, build_arm
from llm_sra.trainer.arms import Partners, Roles, assign_roles
from llm_sra.trainer.bases import engine_names, models_of, seat_models
from llm_sra.trainer.checkpoints import resolve_resume, wants_resume
from llm_sra.trainer.critic import critic_of
from llm_sra.trainer.explain import options_for
from llm_sra.trainer.launcher import Launcher, check_peers
from llm_sra.trainer.metrics import MetricsFile
from llm_sra.trainer.parse import parse
from llm_sra.trainer.preferences import check_preferences
from llm_sra.trainer.progress import Progress, TensorBoard
from llm_sra.trainer.reply_limit import ReplyLimitError, check_reply_limit
from llm_sra.trainer.resuming import check_options
from llm_sra.trainer.rollout import check_divides
from llm_sra.trainer.speed import SpeedFile


def train(recipe: str | Path | None = None, *, callbacks: Sequence[TrainerCallback] = (), **overrides: Any) -> Run:
    """Train the agents of a task.

    Args:
        recipe: YAML file, or the name of a shipped recipe such as `worksheet/srpo`.
        callbacks: transformers callbacks.
        **overrides: Values that replace the recipe's, under the same keys; of `task_args`, only the options named.

    Returns:
        The finished run.

    Raises:
        ConfigError: If a key is unknown or a value cannot be used.
        RunError: If the run folder is in use.
    """
    return run_training(*parse(recipe, overrides=overrides), callbacks=callbacks)


def run_training(model_args: ModelArguments, args: SRPOConfig, callbacks: Sequence[TrainerCallback] = ()) -> Run:
    """Train with parsed configurations; see `train`."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != args.world_size:
        raise RunError(
            f"{launched} processes were launched, but this one sees {args.world_size}: each would train alone. On a "
            "machine without a GPU set `use_cpu: true`"
        )
    launcher = Launcher.find()
    resume = wants_resume(args.resume_from_checkpoint)
    with ExitStack() as stack:
        writer = None
        with _refused_together(args):
            if args.process_index == 0:
                writer = stack.enter_context(RunWriter(args.run_dir, args.overwrite_output_dir, resume))
        try:
            _train(model_args, args, [*callbacks, _Steps(writer, launcher)], writer)
        except RuntimeError as error:
            launcher.check(error)  # the other processes of a launcher that died are gone too
            if launched > 1:
                check_peers(error)
            raise
    return Run.open(args.run_dir)


@contextmanager
def _refused_together(args: SRPOConfig) -> Iterator[None]:
    """If the block fails in the first process, which says why, the others end with exit code 2."""
    refused: BaseException | None = None
    try:
        yield
    except BaseException as error:
        refused = error
        raise
    finally:
        if args.world_size > 1 and (refused is None or isinstance(refused, Exception)):
            told = [refused is None]
            torch.distributed.broadcast_object_list(told, device=args.device)
            if not told[0] and args.process_index > 0:
                raise SystemExit(2)


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Watches the launcher from step to step, and says when the first one is done."""

    def __init__(self, writer: RunWriter | None, launcher: Launcher) -> None:
        self._writer, self._launcher = writer, launcher

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop if nobody would end this process."""
        self._launcher.check()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From now on there is something to resume."""
        if self._writer:
            self._writer.started()


def _train(
    model_args: ModelArguments, args: SRPOConfig, callbacks: Sequence[TrainerCallback], writer: RunWriter | None
) -> None:
    """Load everything, and train."""
    plan = _plan(model_args, args)
    checkpoint = _checkpoint(model_args, args, writer is not None)
    sampling = Sampling(args.temperature)
    live = {seat: EnginePolicy(name, plan.engines[name], name, sampling) for seat, name in plan.roles.heroes.items()}
    loader = PolicyLoader(plan.task, max_reply_tokens=args.max_completion_length, live=live)
    with ExitStack() as stack:
        stack.enter_context(closing(loader))
        banks = _load_engines(loader, plan, model_args, args, warm=checkpoint is None, stack=stack)
        arm = _arm(args, plan, None if plan.partners is None else _seat_partners(loader, plan.partners, sampling))
        check_divides(args.problems_per_step, args.num_generations, arm, args.world_size, args.partners_per_step)
        on_dev = _on_dev_roster(loader, plan, arm, args) if args.dev_roster else None
        args.run_name = args.run_name or "/".join(args.run_dir.resolve().parts[-2:])  # its name in results
        config = {**vars(model_args), **args.to_dict()}
        trainer = SRPOTrainer(
            plan.task,
            arm,
            banks,
            loader.engines,
            args,
            evaluate_heroes=on_dev,
            callbacks=[MetricsFile(args.run_dir / "metrics.jsonl"), SpeedFile(args.run_dir), *callbacks],
        )
        _show_progress(trainer, args)
        if writer:  # only now: unusable input must not touch an earlier run
            writer.begin(Path(checkpoint) if checkpoint else None)
            of_adapters = plan.models if model_args.seat_models else None
            kept = keep_task(args.run_dir, plan.task, args.task)
            runs.write_config(args.run_dir, config, arm.heroes, kept, of_adapters)
        if args.arm != "untrained":
            trainer.train(resume_from_checkpoint=checkpoint)
        if writer:
            writer.started()
        trainer.save_model(str(args.run_dir / "adapters"))


@dataclass(frozen=True)
class _Plan:
    """What is known before anything is loaded.

    Attributes:
        task: The rules.
        partners: Entries of the roster of partners; None without one.
        roles: Which adapters there are, and in which seats.
        models: By adapter, its base model.
        engines: By adapter, the name of the engine that serves it.
    """

    task: Task
    partners: Sequence[Entry] | None
    roles: Roles
    models: Mapping[str, str]
    engines: Mapping[str, str]


def _plan(model_args: ModelArguments, args: SRPOConfig) -> _Plan:
    """See that what is asked for can be trained, as far as that can be seen without loading anything."""
    assert not isinstance(args.task_args, str)
    args.task_args = options_for(args.task, args.task_args, models_named(vars(model_args)), _begun_with(args))
    task = load_task(args.task, args.task_args)
    require_task(task, args.seed, quiet=args.process_index > 0)
    assert not isinstance(args.preferences, str)  # the configuration has read it
    check_preferences(task, args.preferences, args.seed)
    if args.choices_coef and not task.choices:
        raise RunError(
            f"choices_coef is {args.choices_coef:g}, but the replies of task {args.task} are not chosen from words: "
            "leave it out"
        )
    allowed = {"trust_scripts": args.trust_scripts, "trust_remote_code": args.trust_remote_code}
    partners = read_playable(args.partners, **allowed) if args.partners else None
    if args.dev_roster:
        read_playable(args.dev_roster, **allowed)
    roles = assign_roles(args.arm, task.seats, args.sharing, args.tau, partners is not None, args.population)
    assert not isinstance(model_args.seat_models, str)
    models = models_of(roles, seat_models(model_args.seat_models, model_args.model_name_or_path, task.seats))
    plan = _Plan(task, partners, roles, models, engine_names(models))
    if partners is None:
        check_divides(args.problems_per_step, args.num_generations, _arm(args, plan), args.world_size)
    return plan


def _load_engines(
    loader: PolicyLoader, plan: _Plan, model_args: ModelArguments, args: SRPOConfig, warm: bool, stack: ExitStack
) -> dict[str, AdapterBank]:
    """Load each base model with its adapters, and give the loader an engine for it, which the stack closes.

    Returns:
        By the engine's name, the adapters that it serves.
    """
    banks: dict[str, AdapterBank] = {}
    options = EngineOptions.of(vars(args))
    options = replace(options, seeded=sends_seeds(args.engine, args.seeded_rollouts))
    of_models = {
        model: [adapter for adapter in plan.roles.adapters if plan.models[adapter] == model]
        for model in dict.fromkeys(plan.models.values())
    }
    seats_of = {model: {seat: None for a in mine for seat in plan.roles.seats[a]} for model, mine in of_models.items()}
    options.check_servers(seats_of)
    for model, mine in of_models.items():
        with _of_seats(seats_of[model] if len(of_models) > 1 else ()):
            bank, tokenizer = _load_bank(model, model_args, args, plan.roles, mine, warm)
            renderer = Renderer.of(tokenizer, {**vars(args), "seat_models": model_args.seat_models})
            for seat in seats_of[model]:
                renderer.single_tokens(plan.task.choices_of(seat))  # raises where it could not choose
            check_reply_limit(plan.task, renderer, args.max_completion_length)
            engine = stack.enter_context(closing(make_engine(options.serving(seats_of[model]), bank, renderer)))
        banks[plan.engines[mine[0]]] = bank
        loader.add_engine(plan.engines[mine[0]], engine, bank)
    taken = {name for base in banks for name in loader.engines[base].renderer.template.given}
    if lost := sorted(set(args.chat_template_kwargs or {}) - taken):
        raise RunError(f"chat_template_kwargs sets {', '.join(lost)}, which no model's chat template takes: correct it")
    return banks


@contextmanager
def _of_seats(seats: Iterable[str]) -> Iterator[None]:
    """Say of errors in the block whose model they are about; without seats it is everybody's."""
    try:
        yield
    except (ModelError, EngineError, AdapterError, ReplyLimitError) as error:
        if whose := " and ".join(seats):
            raise type(error)(f"the model of seat {whose}: {error}") from error
        raise


def _on_dev_roster(loader: PolicyLoader, plan: _Plan, arm: Arm, args: SRPOConfig) -> DevEvaluation:
    """Evaluates the heroes on the development roster."""
    assert args.dev_roster is not None
    team = Team("training", args.arm, arm.heroes, {seat: plan.engines[name] for seat, name in arm.heroes.items()})
    return DevEvaluation(
        plan.task, team, loader.engines, args.dev_roster, args.dev_problems, args.seed, args.max_completion_length
    )


def _begun_with(args: SRPOConfig) -> Mapping[str, Any] | None:
    """The arguments that the run was begun with, if it is resumed."""
    if not (wants_resume(args.resume_from_checkpoint) and (args.run_dir / "config.yaml").is_file()):
        return None
    with suppress(RunError):  # if it is needed, opening it says what is wrong
        return Run.open(args.run_dir).config
    return None


def _checkpoint(model_args: ModelArguments, args: SRPOConfig, main: bool) -> str | None:
    """The checkpoint to go on from, if any; see that the configuration fits the run's."""
    if not wants_resume(args.resume_from_checkpoint):
        return None
    checkpoint = resolve_resume(args.resume_from_checkpoint, args.run_dir / "checkpoints", main)
    if checkpoint and main:
        of_checkpoint = Path(checkpoint).resolve().parent.parent  # it may be another run's
        for run in dict.fromkeys((of_checkpoint, args.run_dir.resolve())):
            if (run / "config.yaml").is_file():
                check_options(Run.open(run).config, {**vars(model_args), **args.to_dict()})
    return checkpoint


def _load_bank(
    model: str, model_args: ModelArguments, args: SRPOConfig, roles: Roles, mine: Sequence[str], warm: bool
) -> tuple[AdapterBank, Any]:
    """A base model with an adapter for each agent of its seats, adversaries as copies of their partners; its tokenizer.

    Agents start from `initial_adapter`, if `warm` is on and there is one; else a checkpoint has their weights.
    """
    lora, trust = get_peft_config(model_args), args.trust_remote_code
    shape = read_config(model, model_args.model_revision, trust)
    check_targets(shape, lora, served=args.engine != "transformers", trust_remote_code=trust)
    quantization = quantization_of(vars(model_args))
    base, tokenizer = load_model(
        model,
        dtype=model_args.dtype,
        revision=model_args.model_revision,
        trust_remote_code=trust,
        attn_implementation=model_args.attn_implementation,
        quantization=quantization,
        device=args.device if quantization else "cpu",
    )
    critics = [critic_of(adapter) for adapter in mine] if args.estimator.needs_critic else []
    bank = AdapterBank.create(base, mine, lora, args.seed, critics)
    for adapter in mine:
        if adapter in roles.adversaries:  # behind all learners
            bank.copy(roles.adversaries[adapter], adapter)
        elif warm and model_args.initial_adapter:
            bank.load(Path(model_args.initial_adapter.replace("{seat}", roles.seats[adapter][0])), adapter)
    return bank, tokenizer


def _show_progress(trainer: SRPOTrainer, args: SRPOConfig) -> None:
    if not args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(Progress())
    if "tensorboard" in args.report_to:
        trainer.remove_callback(TensorBoardCallback)
        trainer.add_callback(TensorBoard())
    args.report_to = []  # the callbacks are there; TRL would send wandb and trackio a line for each forward pass


def _seat_partners(loader: PolicyLoader, entries: Sequence[Entry], sampling: Sampling) -> Partners:
    """The policies of a roster, whose tokens are sampled like those of the agents under training."""
    return {
        entry.name: {seat: decoded(policy, sampling) for seat, policy in loader.partner(entry).items()}
        for entry in entries
    }


def _arm(args: SRPOConfig, plan: _Plan, partners: Partners | None = None) -> Arm:
    return build_arm(
        args.arm, plan.task.seats, args.sharing, args.tau, Sampling(args.temperature), partners, args.adversary_mix,
        args.population, plan.engines,
    )  # fmt: skip
