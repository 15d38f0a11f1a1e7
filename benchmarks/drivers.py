"""One whole step of ours, of plain TRL, and of nothing but the model calls: a program for each process measured.

The same prompts, reply lengths, LoRA shape, optimizer and micro-batches for all. Settings: `model` (a folder), `who`,
`problems` and `generations` a step, `turns`, `tokens` of a reply, `micro_batch`, `steps`; for ours `engine`, and for
vLLM `context` and `memory`, its share of a GPU.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import GenerationMixin, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.fixed import Fixed, question, score
from benchmarks.measure import Result, answer, asked, forget_peak, peak
from llm_sra.engines import EngineOptions, make_engine, sends_seeds
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.task import Sampling
from llm_sra.trainer import SRPOTrainer, build_arm
from llm_sra.trainer.bases import ENGINE
from llm_sra.trainer.head import Head
from llm_sra.trainer.parse import parse
from llm_sra.trainer.reading import Reader
from llm_sra.trainer.rollout import Rollout

LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
ON_GPU = torch.cuda.is_available()
SHARED = {
    "learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "loss_type": "dapo",
    "beta": 0.0,
    "temperature": 1.0,
    "use_cpu": not ON_GPU,
    "bf16": ON_GPU,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
    "seed": 1,
}


class Steps(TrainerCallback):  # type: ignore[misc]
    """When each step ended, and what the model took within it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.parts = dict.fromkeys(("generation", "forward", "backward"), 0.0)
        self.counts: list[tuple[int, int, int]] = []
        self._inside = False
        self._began = _now()

    def begin(self) -> None:
        """Everything is loaded."""
        forget_peak()
        self._began = _now()

    def end(self) -> None:
        """A step is over; the first is not counted."""
        now = _now()
        self.seconds.append(now - self._began)
        self._began = now
        if len(self.seconds) == 1:
            self.parts = dict.fromkeys(self.parts, 0.0)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.end()

    def watch(self, owner: type, method: str, part: str) -> None:
        """Count the time that a class spends in a method, the outermost watched one only."""
        inner = getattr(owner, method)

        @wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(part):
                return inner(*args, **kwargs)

        setattr(owner, method, timed)

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Count the block's time, unless it is within another."""
        if self._inside:
            yield
            return
        self._inside, start = True, _now()
        try:
            yield
        finally:
            self._inside = False
            self.parts[part] += _now() - start

    def result(self, **numbers: float) -> Result:
        """What was measured; tokens are those of the last step."""
        return Result(self.seconds[1:], *self.counts[-1], peak(), self.parts, numbers)


def _now() -> float:
    """Seconds on a clock, once the GPU has done what it was given."""
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def watching_model() -> Steps:
    """Count TRL's calls of the model: log-probabilities come out of its forward pass."""
    steps = Steps()
    steps.watch(GenerationMixin, "generate", "generation")
    steps.watch(GRPOTrainer, "_get_per_token_logps_and_entropies", "forward")
    steps.watch(torch.Tensor, "backward", "backward")
    return steps


def make_bank(job: dict[str, Any]) -> tuple[Any, AdapterBank, Renderer]:
    """The arm of two heroes and two adversaries, and the adapters that it wants."""
    base, tokenizer = load_model(job["model"])
    arm = build_arm("srpo", Fixed.seats, "seat", 10.0, Sampling())
    bank = AdapterBank.create(base, arm.adapters, LoraConfig(task_type="CAUSAL_LM", **LORA), seed=1)
    return arm, bank, Renderer(tokenizer)


def ours(job: dict[str, Any], watching: Callable[[], Steps] = watching_model) -> Result:
    """SRPO: two heroes and two adversaries, the tether in the reward."""
    arm, bank, renderer = make_bank(job)
    kind = job.get("engine", "transformers")
    overrides = {
        **SHARED,
        "engine": kind,
        "model_name_or_path": job["model"],
        "output_dir": Path(job["folder"]) / "run",
        "problems_per_step": job["problems"],
        "num_generations": job["generations"],
        "max_completion_length": job["tokens"],
        "per_device_train_batch_size": job["micro_batch"],
        "max_steps": job["steps"],
    }
    _, args = parse(None, overrides=overrides)
    steps = watching()
    steps.watch(type(bank.base), "forward", "generation")  # prompts are read before `generate`
    for part, method in ((Reader, "states"), (Head, "statistics")):
        steps.watch(part, method, "forward")

    class Counted(SRPOTrainer):
        def _play(self) -> Rollout:
            rollout = super()._play()
            turns = [turn for episode in rollout.episodes for turn in episode.turns]
            read, generated = sum(len(t.prompt_ids) for t in turns), sum(len(t.reply.token_ids) for t in turns)
            steps.counts.append((read, generated, sum(sample.row.own_tokens for sample in rollout.samples)))
            return rollout

    options = EngineOptions(
        kind=kind,
        max_model_length=job.get("context"),
        gpu_memory_utilization=job.get("memory", 0.3),
        seeded=sends_seeds(kind, None),
    )
    engine = make_engine(options, bank, renderer)
    try:
        task = Fixed(turns=job["turns"])
        Counted(task, arm, {ENGINE: bank}, {ENGINE: engine}, args, callbacks=[steps]).train()
    finally:
        engine.close()
    one = sum(p.numel() * p.element_size() for p in bank.parameters(bank.names[0]))
    return steps.result(adapter_mib=4 * one / 2**20)  # weights, gradients, and AdamW's two moments


def trl(job: dict[str, Any], watching: Callable[[], Steps] = watching_model) -> Result:
    """TRL's GRPOTrainer with one adapter: as many replies as ours, all to one agent; one update a step, as ours."""
    base, tokenizer = load_model(job["model"])
    replies = 2 * job["problems"] * job["generations"]
    args = GRPOConfig(
        **SHARED,
        output_dir=str(Path(job["folder"]) / "run"),
        num_generations=job["generations"],
        max_completion_length=job["tokens"],
        per_device_train_batch_size=job["micro_batch"],
        gradient_accumulation_steps=replies // job["micro_batch"],
        steps_per_generation=replies // job["micro_batch"],
        max_steps=job["steps"],
        scale_rewards="none",
    )
    steps = watching()

    class Counted(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batch = super()._generate_and_score_completions(inputs)
            read, said = int(batch["prompt_mask"].sum()), int(batch["completion_mask"].sum())
            steps.counts.append((read, said, said))
            return batch

    prompts = [[{"role": "user", "content": question(number)}] for number in range(64)]
    Counted(
        model=base,
        reward_funcs=lambda completions, **_: [score([said[0]["content"]]) for said in completions],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA),
        callbacks=[steps],
    ).train()
    return steps.result()


def pure(job: dict[str, Any]) -> Result:
    """Nothing but the calls of the model that ours makes on one turn: generate, the tether's forwards, the gradients.

    No rewards, no credit, no optimizer, no bookkeeping; sampling by `generate` itself.
    """
    arm, bank, renderer = make_bank(job)
    task = Fixed(count=64)
    prompts = [renderer.render(task.view(task.start(p, random.Random()), "left")) for p in task.problems("train")]
    replies = job["problems"] * job["generations"] // 2  # of each of four adapters
    steps, device = Steps(), bank.base.device

    def loss(ids: torch.Tensor) -> torch.Tensor:
        logits = bank.model(input_ids=ids, use_cache=False, logits_to_keep=job["tokens"] + 1).logits[:, :-1]
        said = ids[:, -job["tokens"] :]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), said.flatten(), reduction="sum")

    steps.begin()
    for step in range(job["steps"]):
        rows = {}
        for adapter in arm.adapters:
            chosen = [prompts[(step * replies + i) % 64] for i in range(replies)]
            with bank.using(adapter), steps.within("generation"), torch.no_grad():
                bank.base.eval()
                ids = torch.tensor(chosen, device=device)
                options = {"do_sample": True, "top_k": 0, "max_new_tokens": job["tokens"]}
                rows[adapter] = bank.base.generate(ids, attention_mask=torch.ones_like(ids), **options)
                bank.base.train()
        for adapter, partner in arm.adversaries.items():
            for batch in rows[adapter].split(job["micro_batch"]):
                for scored in (adapter, partner):
                    with bank.using(scored), steps.within("forward"), torch.no_grad():
                        loss(batch)
        for adapter in arm.adapters:
            bank.activate(adapter)
            for batch in rows[adapter].split(job["micro_batch"]):
                with steps.within("forward"):
                    value = loss(batch)
                with steps.within("backward"):
                    value.backward()  # type: ignore[no-untyped-call]
        bank.model.zero_grad(set_to_none=True)
        said = 4 * replies * job["tokens"]
        steps.counts.append((sum(ids.numel() for ids in rows.values()) - said, said, said))
        steps.end()
    return steps.result()


if __name__ == "__main__":
    settings = asked()
    answer({"ours": ours, "trl": trl, "pure": pure}[settings["who"]](settings))
