"""Tools that make the small models of tasks: tokenizers, shapes, supervised learning, and saving.

Each task decides which words are tokens, what its model is taught, and for how long. `make` is the command line of a
module that makes such models.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llm_sra.task import Message

CONTEXT = 1024
INITIAL_SCALE = 0.06  # the usual 0.02 is meant for wider layers and learns far more slowly here
ROLES = ("user", "assistant", "system")
WORDS = r"\p{L}+|\P{L}"
LEARNING_RATE = 3e-3
MATRIX_LEARNING_RATE = 8e-3
WARMUP = 50
IGNORED = -100

# `generation` marks the model's own words, which it is trained on; the rendered text is the same without the marks.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Encoded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Made = tuple[PreTrainedModel, PreTrainedTokenizerFast]


def byte_level_tokenizer(
    texts: Sequence[str], size: int = 512, pieces: str = WORDS, later: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose tokens are the pieces of some texts. ChatML. It takes any text without loss.

    Args:
        texts: Each piece of them becomes one token, if `size` has room for the piece and all its parts.
        size: Most tokens; 259 of them are bytes and control tokens.
        pieces: Regular expression of the pieces, which are never joined with their neighbours. By default runs of
            letters, and all other characters one by one. Do not change it for a Qwen2: transformers replaces what such
            a model's folder says by Qwen2's own pieces.
        later: Words that become tokens after all others, which keep their ids.
    """
    tokenizer = Tokenizer(models.BPE())
    alone = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [alone, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([texts], trainer)
    for word in later:
        tokenizer = _with_word(tokenizer, word)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _with_word(tokenizer: Tokenizer, word: str) -> Tokenizer:
    """The tokenizer, with a word of ASCII letters as its last token: further merges join the word's pieces in order."""
    state = json.loads(tokenizer.to_str())
    joined, *rest = tokenizer.encode(word).tokens
    for piece in rest:
        state["model"]["merges"].append([joined, piece])
        joined += piece
        state["model"]["vocab"].setdefault(joined, len(state["model"]["vocab"]))
    return Tokenizer.from_str(json.dumps(state))


def qwen2(tokenizer: PreTrainedTokenizerFast, hidden: int = 96, layers: int = 3) -> PreTrainedModel:
    """An untrained Qwen2, embeddings tied; of about 0.36 M parameters by default.

    Args:
        tokenizer: Its tokenizer.
        hidden: Width of its layers, a multiple of 32: each attention head has 32 numbers, the fewest that vLLM's CPU
            build takes.
        layers: Number of layers.
    """
    return Qwen2ForCausalLM(_shaped(Qwen2Config, tokenizer, hidden, layers))


def llama(
    tokenizer: PreTrainedTokenizerFast, hidden: int = 64, layers: int = 2, intermediate: int | None = None
) -> PreTrainedModel:
    """An untrained Llama with the shape of `qwen2`'s model. When loaded, it keeps the pieces of its tokenizer.

    Args:
        tokenizer: Its tokenizer.
        hidden: See `qwen2`.
        layers: See `qwen2`.
        intermediate: Width inside its feed-forward layers; None: 8/3 of `hidden`.
    """
    return LlamaForCausalLM(_shaped(LlamaConfig, tokenizer, hidden, layers, intermediate))


def _shaped(
    kind: Callable[..., PretrainedConfig],
    tokenizer: PreTrainedTokenizerFast,
    hidden: int,
    layers: int,
    intermediate: int | None = None,
) -> Any:
    return kind(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate or hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=CONTEXT,
        initializer_range=INITIAL_SCALE,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def encode(
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[Sequence[Message]],
    learned: Sequence[Sequence[bool]] | None = None,
) -> Encoded:
    """Token ids, attention mask and labels, each (conversations, tokens).

    Args:
        tokenizer: Its template marks replies by `generation`, and does not begin with a reply.
        conversations: Only their `assistant` messages can be learned, with their end-of-turn tokens.
        learned: For each conversation and each such message of it, whether it is learned; all conversations have
            equally many. None: all are.
    """
    encoded: Any = tokenizer.apply_chat_template(
        [[message.as_dict() for message in conversation] for conversation in conversations],
        tokenize=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
    )
    ids: torch.Tensor = encoded["input_ids"]
    replies = torch.as_tensor(encoded["assistant_masks"]).bool()
    if learned is not None:
        begins = replies & ~replies.roll(1, dims=1)
        number = (begins.cumsum(dim=1) - 1).clamp(min=0)
        replies &= torch.tensor(learned).gather(1, number)
    return ids, encoded["attention_mask"], ids.masked_fill(~replies, IGNORED)


def optimizers(model: PreTrainedModel) -> list[Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest (embeddings, output, norms, biases)."""
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if ".layers." in name and parameter.ndim == 2]
    rest = [parameter for name, parameter in named if not (".layers." in name and parameter.ndim == 2)]
    return [
        Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def label_loss(model: PreTrainedModel, batch: Encoded) -> torch.Tensor:
    """Cross-entropy of the labels, in nats per token."""
    ids, mask, labels = batch
    loss: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


def learn(
    model: PreTrainedModel,
    steps: int,
    batch: Callable[[int], Any],
    loss_of: Callable[[PreTrainedModel, Any], torch.Tensor] = label_loss,
) -> None:
    """Supervised learning; leaves the model in evaluation mode.

    Args:
        model: The model, which is changed.
        steps: Number of optimizer steps.
        batch: Maps the step (1, 2, ...) to what it learns from.
        loss_of: Loss of a batch; by default that of the batches that `encode` gives.
    """
    model.train()
    steppers = optimizers(model)
    schedules = [LambdaLR(stepper, lambda step: min((step + 1) / WARMUP, 1 - step / steps)) for stepper in steppers]
    for step in range(1, steps + 1):
        loss = loss_of(model, batch(step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper, schedule in zip(steppers, schedules, strict=True):
            stepper.step()
            schedule.step()
        model.zero_grad()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}: loss {loss.item():.4f} nats per token", flush=True)
    model.eval()


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


def make(
    description: str | None,
    makers: Mapping[str, Callable[[int | None, int], Made]],
    arguments: Sequence[str] | None = None,
) -> None:
    """The command line of a module that makes models, on one thread.

    Args:
        description: What `--help` says.
        makers: For each model, a function of the number of optimizer steps (None: the model's own) and of the seed.
        arguments: Arguments of the command line; None: the process's.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="one folder per model is written here")
    parser.add_argument("--model", choices=[*makers, "all"], default="all")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps must be 1 or more, got {options.steps}")
    torch.set_num_threads(1)
    for name in makers if options.model == "all" else [options.model]:
        print(f"{name}:", flush=True)
        save(*makers[name](options.steps, options.seed), options.out / name)
