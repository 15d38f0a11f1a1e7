"""What sharing beginnings brings: `python -m benchmarks.prefix` prints updates and scoring, shared over plain.

Rows with a common beginning, of an adapter on a random model, go through the reader and the head that training uses:
forward and backward for an update, forward alone for scoring. Plain reads every row by itself. Each variant is a
process of its own with one thread, in turn, in rounds; seconds are those of the processor, the least of a round, and
ratios are taken within a round. Operations are what PyTorch dispatches. The last part is the memory of an update with
the head in pieces, and with as many tokens at once as TRL's head takes.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config
from trl.trainer.utils import add_fused_lm_head

from benchmarks.drivers import LORA
from benchmarks.measure import Job, Result, answer, asked, forget_peak, in_turn, median, peak, ratio, table, target
from benchmarks.models import PUPIL, QWEN
from benchmarks.profile import Operations
from llm_sra.models.adapters import AdapterBank
from llm_sra.trainer import head
from llm_sra.trainer.head import Head
from llm_sra.trainer.reading import Reader
from llm_sra.trainer.rollout import Sample
from llm_sra.trainer.rows import Row, collate, joined

TRL_PIECE = 4096 * 32768  # logits that TRL's head holds at once
# https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/config.json
SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}, "rms_norm_eps": 1e-5, "pad_token_id": 2,
}  # fmt: skip
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "tiny": lambda: AutoModelForCausalLM.from_pretrained(PUPIL),
    "smollm2": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**SMOLLM2)),
    "qwen": lambda: AutoModelForCausalLM.from_config(Qwen2Config(**{**QWEN, "num_hidden_layers": 1})),
}


@dataclass(frozen=True)
class Shape:
    """Rows that are measured.

    Attributes:
        model: One of `MODELS`.
        rows: Of an adapter.
        common: Tokens that all of them begin with.
        group: Further tokens that the rows of a group share.
        groups: How many groups there are.
        reply: Tokens of each row's own that are scored.
        micro_batch: Rows at once, where they are read by themselves.
    """

    model: str
    rows: int
    common: int
    reply: int
    group: int = 0
    groups: int = 1
    micro_batch: int = 64

    def __str__(self) -> str:
        group = f" + {self.group} of {self.groups} groups" if self.group else ""
        return f"{self.model}, {self.rows} rows of {self.common}{group} + {self.reply}"


SHAPES = (
    Shape("tiny", 64, 300, 8),
    Shape("tiny", 64, 600, 24),
    Shape("tiny", 64, 100, 100),
    Shape("smollm2", 24, 163, 3, 12, 3, 8),  # rules and examples for all, a problem for each group
    Shape("smollm2", 24, 60, 3, 115, 3, 8),  # examples that differ by problem
)
LONG = Shape("qwen", 8, 1, 512, 100, 8)


def samples_of(shape: Shape, words: int) -> list[Sample]:
    """Rows of random tokens."""
    rng = random.Random(0)

    def tokens(count: int) -> list[int]:
        return rng.choices(range(3, words), k=count)

    common = tokens(shape.common)
    prompts = [(*common, *tokens(shape.group)) for _ in range(shape.groups)]
    samples = []
    for number in range(shape.rows):
        row = Row(number, "", prompts[number % shape.groups])
        row.extend(tokens(shape.reply), 1, 0, [0.0] * shape.reply)
        samples.append(Sample(row, "agent", None))
    return samples


def measured(job: Mapping[str, Any]) -> Result:
    """Update and score; `share` says whether beginnings are read once, `piece` how many logits are made at once."""
    torch.set_num_threads(1)
    shape = Shape(**job["shape"])
    head.PIECE = job["piece"] or head.PIECE
    base = MODELS[shape.model]()
    add_fused_lm_head(base, outputs=("log_probs", "entropy"))
    AdapterBank.create(base, ["agent"], LoraConfig(task_type="CAUSAL_LM", **LORA), seed=1)
    base.train()
    reader, last = Reader(base, nullcontext, share=job["share"]), Head(base, 1.0, None, nullcontext)
    samples = samples_of(shape, base.config.vocab_size)

    def logprobs() -> Iterator[torch.Tensor]:
        for batch in reader.batches(samples, shape.micro_batch):
            inputs = collate([sample.row for sample in batch], 0, base.device)
            states = reader.states(*joined(inputs))
            found = last.statistics(states, inputs["completion_ids"], inputs["completion_mask"])
            yield found.logprobs + 0.01 * found.entropies

    def update() -> None:
        for values in logprobs():
            values.sum().backward()  # type: ignore[no-untyped-call]
        base.zero_grad(set_to_none=True)

    @torch.no_grad()
    def score() -> None:
        for _ in logprobs():
            pass

    numbers = {}
    forget_peak()
    before = peak()
    for name, run in (("update", update), ("score", score)):
        seconds = []
        for _ in range(job["steps"]):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        numbers[name] = min(seconds)
        numbers[f"{name}, MiB"] = max(peak() - before, 1.0)
        if job["count"]:
            with Operations() as seen:
                run()
            numbers[f"{name}, operations"] = seen.all.total()
    return Result([numbers["update"]], trained=shape.rows * shape.reply, peak=peak(), numbers=numbers)


def jobs(shape: Shape, steps: int, pieces: Sequence[int], count: bool) -> dict[str, Job]:
    """The variants of a shape: plain and shared, or plain with heads of several sizes."""
    variants = [(share, 0) for share in (False, True)] if not pieces else [(False, piece) for piece in pieces]
    settings = {"shape": asdict(shape), "steps": steps, "count": count}
    return {
        f"{shape}, {'shared' if share else 'plain'} {piece}": Job(
            "benchmarks.prefix", {**settings, "share": share, "piece": piece}
        )
        for share, piece in variants
    }


def row_of(shape: Shape, plain: Sequence[Result], shared: Sequence[Result]) -> list[str]:
    """The table's row of a shape."""
    cells = [str(shape)]
    for part in ("update", "score"):
        of: Callable[[Result], float] = partial(_number, part)
        cells += [*(f"{median(runs, of):.2f}" for runs in (plain, shared)), f"{ratio(plain, shared, of):.1f}"]
    counts = [runs[0].numbers.get("update, operations", 0.0) for runs in (plain, shared)]
    mib = [f"{median(runs, partial(_number, 'update, MiB')):,.0f}" for runs in (plain, shared)]
    return [*cells, " / ".join(f"{count:,.0f}" for count in counts) if any(counts) else "-", " / ".join(mib)]


def _number(name: str, run: Result) -> float:
    return run.numbers[name]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("prefix", description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help="updates per measurement, of which the least counts")
    parser.add_argument("--rounds", type=int, default=2, help="how often each variant is measured")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), help="which to measure")
    args = parser.parse_args(argv)
    rows = []
    for shape in SHAPES:
        if shape.model in args.models:
            plain, shared = in_turn(jobs(shape, args.steps, (), shape.model == "tiny"), args.rounds).values()
            rows.append(row_of(shape, plain, shared))
    if rows:
        head_row = ["rows", "update, plain s", "shared s", "times faster", "score, plain s", "shared s", "times faster"]
        print(table([*head_row, "operations of an update", "MiB of an update"], rows), flush=True)
    if "qwen" in args.models:
        before, now = in_turn(jobs(LONG, 1, (TRL_PIECE, head.PIECE), False), args.rounds).values()
        mib = [median(runs, partial(_number, "update, MiB")) for runs in (before, now)]
        print(f"\n{LONG}: an update takes {mib[0]:,.0f} MiB with TRL's pieces, {mib[1]:,.0f} with ours")
        print(target("peak memory of the update over that with TRL's pieces", mib[1] / mib[0], 0.25))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        answer(measured(asked()))
    else:
        main()
