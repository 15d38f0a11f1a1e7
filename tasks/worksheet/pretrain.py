"""Makes the two embedded models from nothing on a CPU: `python -m tasks.worksheet.pretrain --out DIR`.

Supervised learning on what one seat says on simulated worksheets, the end-of-turn token included. At first only on
its lines that a diligent seat would have written, which teaches it to read the sheet and to add up; then on all of
them, which teaches it the habits that it is to have. Only problems of the train split are used.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from tasks.worksheet.blueprints import BLUEPRINTS, Blueprint
from tasks.worksheet.lessons import Habit, Lesson, lessons
from tasks.worksheet.task import Worksheet

BATCH = 48
LEARNING_RATE = 3e-3
MATRIX_LEARNING_RATE = 8e-3
WARMUP = 50
EXEMPLARY = 0.7  # share of the steps that learn from exemplary lines only
DILIGENT = Habit(right=0.75, rest=0.15)  # of the learner meanwhile
IGNORED = -100


def encode(
    tokenizer: PreTrainedTokenizerFast, batch: Sequence[Lesson], only_exemplary: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and labels, each (batch, tokens); labels only on what is to be learned."""
    encoded: Any = tokenizer.apply_chat_template(
        [[message.as_dict() for message in lesson.conversation] for lesson in batch],
        tokenize=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
    )
    ids: torch.Tensor = encoded["input_ids"]
    learned = torch.as_tensor(encoded["assistant_masks"]).bool()
    if only_exemplary:
        begins = learned & ~learned.roll(1, dims=1)  # no template begins with a reply
        line = (begins.cumsum(dim=1) - 1).clamp(min=0)
        learned &= torch.tensor([lesson.exemplary for lesson in batch]).gather(1, line)
    return ids, encoded["attention_mask"], ids.masked_fill(~learned, IGNORED)


def optimizers(model: PreTrainedModel) -> list[Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest (embeddings, output, norms, biases)."""
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if ".layers." in name and parameter.ndim == 2]
    rest = [parameter for name, parameter in named if not (".layers." in name and parameter.ndim == 2)]
    return [
        Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def pretrain(
    blueprint: Blueprint, steps: int | None = None, seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Make and train one model, for the blueprint's number of steps if None is given.

    The same seed and number of threads give the same model.
    """
    steps = steps or blueprint.steps
    torch.manual_seed(seed + blueprint.seed)
    rng = random.Random(seed + blueprint.seed)
    task = Worksheet()
    problems = task.problems("train")
    tokenizer = blueprint.tokenizer()
    model = blueprint.model(tokenizer).train()
    steppers = optimizers(model)
    schedules = [LambdaLR(stepper, lambda step: min((step + 1) / WARMUP, 1 - step / steps)) for stepper in steppers]
    for step in range(1, steps + 1):
        first = step <= EXEMPLARY * steps
        batch = lessons(task, problems, DILIGENT if first else blueprint.habit, BATCH, rng)
        ids, mask, labels = encode(tokenizer, batch, only_exemplary=first)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper, schedule in zip(steppers, schedules, strict=True):
            stepper.step()
            schedule.step()
        model.zero_grad()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}: loss {loss.item():.4f} nats per token", flush=True)
    return model.eval(), tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a model folder that `from_pretrained` loads."""
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="one folder per model is written here")
    parser.add_argument("--model", choices=[*BLUEPRINTS, "all"], default="all")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps must be 1 or more, got {options.steps}")
    torch.set_num_threads(1)
    for name in BLUEPRINTS if options.model == "all" else [options.model]:
        print(f"{name}:", flush=True)
        save(*pretrain(BLUEPRINTS[name], options.steps, options.seed), options.out / name)


if __name__ == "__main__":
    main()
