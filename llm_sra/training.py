"""`train`: from a configuration to a finished run folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import ProgressCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback
from trl import get_peft_config

from llm_sra import runs
from llm_sra.engines import EngineOptions, make_engine
from llm_sra.evaluation.development import DevEvaluation
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.chat_templates import Renderer
from llm_sra.models.loading import load_model, quantization_of, read_config
from llm_sra.models.targets import check_targets
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry, read_roster
from llm_sra.policies import EnginePolicy, decoded
from llm_sra.registry import load_task
from llm_sra.runs import Run, RunError
from llm_sra.task import Sampling, Task
from llm_sra.trainer import Arm, ModelArguments, SRPOConfig, SRPOTrainer, build_arm
from llm_sra.trainer.arms import Partners, assign_roles
from llm_sra.trainer.checkpoints import resolve_resume, wants_resume
from llm_sra.trainer.critic import critic_of
from llm_sra.trainer.metrics import MetricsFile
from llm_sra.trainer.parse import parse
from llm_sra.trainer.progress import Progress, TensorBoard
from llm_sra.trainer.rollout import check_divides
from llm_sra.trainer.trainer import ENGINE


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
    assert not isinstance(args.task_args, str)
    task = load_task(args.task, args.task_args)
    if args.choices_coef and not task.choices:
        raise RunError(
            f"choices_coef is {args.choices_coef:g}, but the replies of task {args.task} are not chosen from words: "
            "leave it out"
        )
    partners = read_roster(args.partners) if args.partners else None
    roles = assign_roles(args.arm, task.seats, args.sharing, args.tau, partners is not None)
    if partners is None:
        check_divides(args.problems_per_step, args.num_generations, _arm(args, task), args.world_size)
    resume = wants_resume(args.resume_from_checkpoint)
    checkpoint = resolve_resume(args.resume_from_checkpoint, args.run_dir / "checkpoints") if resume else None
    if args.process_index == 0:
        runs.check_free(args.run_dir, args.overwrite_output_dir, resume)

    lora = get_peft_config(model_args)
    check_targets(
        read_config(model_args.model_name_or_path, model_args.model_revision, args.trust_remote_code),
        lora,
        served=args.engine != "transformers",
        trust_remote_code=args.trust_remote_code,
    )
    quantization = quantization_of(vars(model_args))
    base, tokenizer = load_model(
        model_args.model_name_or_path,
        dtype=model_args.dtype,
        revision=model_args.model_revision,
        trust_remote_code=args.trust_remote_code,
        attn_implementation=model_args.attn_implementation,
        quantization=quantization,
        device=args.device if quantization else "cpu",
    )
    critics = [critic_of(adapter) for adapter in roles.adapters] if args.estimator.needs_critic else []
    bank = AdapterBank.create(base, roles.adapters, lora, args.seed, critics)
    for adversary, partner in roles.adversaries.items():
        bank.copy(partner, adversary)
    engine = make_engine(EngineOptions.of(vars(args)), bank, Renderer.of(tokenizer, vars(args)))
    sampling = Sampling(args.temperature)
    live = {seat: EnginePolicy(name, ENGINE, name, sampling) for seat, name in roles.heroes.items()}
    loader = PolicyLoader(task, max_reply_tokens=args.max_completion_length, live=live)
    loader.add_engine(ENGINE, engine, bank)
    try:
        seated = None if partners is None else _seat_partners(loader, partners, sampling)
        arm = _arm(args, task, seated)
        check_divides(args.problems_per_step, args.num_generations, arm, args.world_size, args.partners_per_step)
        on_dev = None
        if args.dev_roster:
            on_dev = DevEvaluation(
                task, arm.heroes, engine, args.dev_roster, args.dev_problems, args.seed, args.max_completion_length
            )
        args.run_name = args.run_name or "/".join(args.run_dir.resolve().parts[-2:])  # its name in results
        if args.process_index == 0:  # only now: unusable input must not delete an earlier run
            runs.prepare(args.run_dir, args.overwrite_output_dir, resume)
            runs.write_config(args.run_dir, {**vars(model_args), **args.to_dict()}, arm.heroes)
        trainer = SRPOTrainer(
            task,
            arm,
            bank,
            tokenizer,
            engine,
            args,
            evaluate_heroes=on_dev,
            callbacks=[MetricsFile(args.run_dir / "metrics.jsonl"), *callbacks],
            other_engines=loader.engines,
        )
        if not args.disable_tqdm:
            trainer.remove_callback(ProgressCallback)
            trainer.add_callback(Progress())
        if "tensorboard" in args.report_to:
            trainer.remove_callback(TensorBoardCallback)
            trainer.add_callback(TensorBoard())
        args.report_to = []  # the callbacks are there; TRL would send wandb and trackio a line for each forward pass
        if args.arm != "untrained":
            trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model(str(args.run_dir / "adapters"))
    finally:
        loader.close()
        engine.close()
    return Run.open(args.run_dir)


def _seat_partners(loader: PolicyLoader, entries: Sequence[Entry], sampling: Sampling) -> Partners:
    """The policies of a roster, whose tokens are sampled like those of the agents under training."""
    return {
        entry.name: {seat: decoded(policy, sampling) for seat, policy in loader.partner(entry).items()}
        for entry in entries
    }


def _arm(args: SRPOConfig, task: Task, partners: Partners | None = None) -> Arm:
    sampling = Sampling(args.temperature)
    return build_arm(args.arm, task.seats, args.sharing, args.tau, sampling, partners, args.adversary_mix)
