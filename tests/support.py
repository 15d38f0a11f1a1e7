"""What several test files build on: tiny models made on the spot, a toy task, and runs that were never trained."""

import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llm_sra import runs
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.runs import Run
from llm_sra.task import Message, Outcome, Problem, Reward, Task, merge_roles

ROOT = Path(__file__).resolve().parent.parent
PUPIL = ROOT / "tasks" / "worksheet" / "models" / "pupil"
SEATS = ("first", "second")
SPLITS = ("train", "dev", "test")
TEXTS = ("user", "assistant", "system", "pass", "word", "apple pear plum", "1+2=3")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
RANK, ALPHA = 4, 8


def lora(rank: int = RANK, alpha: int = ALPHA) -> LoraConfig:
    """The shape of the tests' adapters."""
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def qwen2_tokenizer(texts: Iterable[str] = TEXTS, vocab_size: int = 320) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `texts`, ChatML: `<|endoftext|>` pads, `<|im_end|>` ends a turn."""
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHATML}
    return _byte_level_tokenizer(texts, vocab_size, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], names)


def llama_tokenizer(texts: Iterable[str] = TEXTS, vocab_size: int = 320) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `texts`, Llama 3's headers; it has no token for padding."""
    control = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    names = {"bos_token": control[0], "eos_token": control[-1], "chat_template": LLAMA3}
    return _byte_level_tokenizer(texts, vocab_size, control, names)


def _byte_level_tokenizer(
    texts: Iterable[str], vocab_size: int, control: list[str], names: Mapping[str, str]
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=control,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def qwen2(tokenizer: PreTrainedTokenizerFast, context: int = 256, seed: int = 0) -> PreTrainedModel:
    """A random Qwen2 of some 25,000 parameters; its weights are wide, so that its choices are far from even."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**_shape(tokenizer, context), tie_word_embeddings=True)).eval()


def llama(tokenizer: PreTrainedTokenizerFast, context: int = 256, seed: int = 0) -> PreTrainedModel:
    """A random Llama of some 35,000 parameters."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_shape(tokenizer, context), tie_word_embeddings=False)).eval()


def _shape(tokenizer: PreTrainedTokenizerFast, context: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def published_shape(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """A small model in the proportions of Qwen2.5's and Qwen3's: keys shared by heads, embeddings tied."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a model folder in the Hugging Face format."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def _session_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="llm-sra-tests-")  # removed when the interpreter ends


def session_folder() -> Path:
    """Where models are that tests make once."""
    return Path(_session_folder().name)


@cache
def qwen2_folder() -> Path:
    """A random Qwen2 with its tokenizer, made once a session."""
    tokenizer = qwen2_tokenizer()
    return save_model(qwen2(tokenizer), tokenizer, session_folder() / "qwen2")


@cache
def llama_folder() -> Path:
    """A random Llama with another tokenizer and template, made once a session."""
    tokenizer = llama_tokenizer()
    return save_model(llama(tokenizer), tokenizer, session_folder() / "llama")


def make_bank(folder: Path, names: Sequence[str] = ("left", "right"), config: LoraConfig | None = None) -> AdapterBank:
    """Adapters with random weights on a model, as if they had been trained: each changes what the base says."""
    bank = AdapterBank.create(load_model(str(folder))[0], names, config or lora(), seed=0)
    for number, name in enumerate(names):
        scramble(bank, name, seed=number)
    return bank


def tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A copy of all weights of a model, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def scramble(bank: AdapterBank, name: str, seed: int) -> None:
    """Give an adapter random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in bank.parameters(name):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    bank.touch(name)


def make_engine(folder: Path, names: Sequence[str] = ("left", "right"), batch_size: int = 256) -> TransformersEngine:
    """An engine with random adapters."""
    return TransformersEngine(make_bank(folder, names), Renderer(load_model(str(folder))[1]), batch_size)


def make_run(path: Path, *, base: Path | None = None, task: str = "worksheet", seed: int = 0, **config: Any) -> Run:
    """A run folder as a training leaves it, but for a training: one random adapter for each seat.

    Args:
        path: The folder.
        base: The model's folder; the random Qwen2 if None.
        task: As a recipe names it.
        seed: Of the adapters' weights.
        config: Values that differ from what the run would have written.
    """
    from llm_sra.registry import load_task
    from llm_sra.runs.trust import keep_task
    from llm_sra.trainer.parse import parse

    base = base or qwen2_folder()
    made = load_task(task, config.get("task_args"))
    seats = made.seats
    flags = {"model_name_or_path": base, "output_dir": path, "task": task, "arm": "ippo", "bf16": "false"}
    model_args, args = parse(None, [part for key, value in flags.items() for part in (f"--{key}", str(value))])
    path.mkdir(parents=True)
    bank = AdapterBank.create(load_model(str(base))[0], seats, lora(), seed)
    for number, seat in enumerate(seats):
        scramble(bank, seat, seed=100 * seed + number)
    bank.save(path / "adapters")
    arguments = {**vars(model_args), **args.to_dict(), "lora_r": RANK, "lora_alpha": ALPHA, **config}
    runs.write_config(path, arguments, {seat: seat for seat in seats}, keep_task(path, made, arguments["task"]))
    return Run.open(path)


@dataclass(frozen=True)
class Talk:
    """State of `Toy`: the word, and who said what."""

    word: str
    said: tuple[tuple[str, str], ...] = ()


class Toy(Task[Talk]):
    """Two seats talk in turns; the team gets 1 when somebody says the word, and each reply costs its writer 0.25.

    Args:
        turns: Of an episode, both seats together.
        together: Whether both seats speak at once.
        stop: Ends a reply.
        window: A seat sees only so many of the last things said; all if None.
        reply_tokens: Token limit of a reply.
        reply_chars: Character limit of a reply.
    """

    seats: ClassVar[tuple[str, ...]] = ("left", "right")

    def __init__(
        self,
        *,
        turns: int = 4,
        together: bool = False,
        stop: Sequence[str] = (),
        window: int | None = None,
        reply_tokens: int = 6,
        reply_chars: int = 200,
    ) -> None:
        self.turns, self.together, self.stop, self.window = turns, together, tuple(stop), window
        self.max_reply_tokens, self.max_reply_chars = reply_tokens, reply_chars

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        words = {"train": ("apple", "pear", "plum", "fig"), "dev": ("lime", "kiwi"), "test": ("date", "lemon", "sloe")}
        chosen = [Problem(word, {"word": word}) for word in words[split]]
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> Talk:
        return Talk(problem.data["word"])

    def actors(self, state: Talk) -> tuple[str, ...]:
        if len(state.said) >= self.turns:
            return ()
        return self.seats if self.together else (self.seats[len(state.said) % 2],)

    def view(self, state: Talk, seat: str) -> Sequence[Message]:
        said = state.said if self.window is None else state.said[max(len(state.said) - self.window, 0) :]
        messages = [Message("assistant" if who == seat else "user", text) for who, text in said]
        messages = [Message("user", f"word: {state.word}"), *messages]
        if messages[-1].role == "assistant":
            messages.append(Message("user", "go on"))
        return merge_roles(messages)

    def step(self, state: Talk, replies: Mapping[str, str], rng: random.Random) -> tuple[Talk, Mapping[str, Reward]]:
        team = float(state.word in replies.values())
        state = replace(state, said=(*state.said, *replies.items()))
        return state, {seat: Reward(team=team, cost=0.25 if seat in replies else 0.0) for seat in self.seats}

    def outcome(self, state: Talk) -> Outcome:
        effort = {seat: float(sum(who == seat for who, _ in state.said)) for seat in self.seats}
        return Outcome(any(text == state.word for _, text in state.said), effort)


class Says:
    """A partner that says the same at every turn."""

    def __init__(self, text: str) -> None:
        self.text = text

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return self.text


def play_replies(
    task: Task, problem: Problem, replies: Sequence[str], rng: random.Random
) -> tuple[Outcome, dict[str, list[Reward]]]:
    """Play a problem with these replies, all of which must be asked for; outcome, and each seat's rewards by step."""
    state = task.start(problem, rng)
    rewards: dict[str, list[Reward]] = {seat: [] for seat in task.seats}
    for reply in replies:
        (seat,) = task.actors(state)
        state, paid = task.step(state, {seat: reply}, rng)
        for name in task.seats:
            rewards[name].append(paid[name])
    assert task.actors(state) == ()
    return task.outcome(state), rewards
