"""Where a step's operations go: `python -m benchmarks.profile` prints tensor operations and seconds by part.

A step of ours and of TRL's GRPOTrainer at the same shape, by part (generate, score, train), and a token step of
generation with one adapter and with four. Operations are what PyTorch dispatches, backward pass included; those that
are no views are about what a GPU would have to launch. They are counted in runs of their own, as counting takes time.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig
from trl import GRPOTrainer

from benchmarks.drivers import Steps, make_bank, ours, trl
from benchmarks.measure import Job, Result, answer, asked, forget_peak, in_turn, peak, ratio, table
from benchmarks.models import write_tiny
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.mixed_adapters import MixedAdapters
from llm_sra.trainer import SRPOTrainer
from llm_sra.trainer.scorer import Scorer

PARTS = ("generate", "score", "train")
OURS = {(SRPOTrainer, "_play"): "generate", (Scorer, "score"): "score", (SRPOTrainer, "_update"): "train"}
THEIRS = {
    (GRPOTrainer, "_generate"): "generate",
    (GRPOTrainer, "_generate_and_score_completions"): "score",
    (GRPOTrainer, "training_step"): "train",
}
NO_KERNEL = ("aten::_unsafe_view", "aten::lift_fresh", "aten::detach")  # views but for their name
PROMPT, SHORT, LONG = 20, 8, 40  # tokens; a token step is the difference of a long and a short reply
ALONE, LOOP, MIXED, ONE = "1 adapter, PEFT", "4 adapters, PEFT's loop", "4 adapters, ours", "1 adapter, ours"


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts tensor operations by part, and those of them that are no views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = ""
        self.all: Counter[str] = Counter()
        self.launched: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.all[self.part] += 1
        self.launched[self.part] += not (func.is_view or func.name() in NO_KERNEL)
        return func(*args, **(kwargs or {}))


class Parts(Steps):
    """Seconds or operations of a step's parts; what one part does for another is counted with the inner one."""

    def __init__(self, count: bool) -> None:
        super().__init__()
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.operations = Operations() if count else None
        self._open: list[str] = []
        self._since = 0.0

    @classmethod
    def watching(cls, count: bool) -> "Parts":
        """Watch both trainers; for a process of its own, as their classes are changed."""
        parts = cls(count)
        for (owner, method), part in {**OURS, **THEIRS}.items():
            parts.watch(owner, method, part)
        parts.watch(torch.optim.AdamW, "step", "train")
        return parts

    def end(self) -> None:
        super().end()
        if self.operations and len(self.seconds) == 1:
            self.operations.all.clear()
            self.operations.launched.clear()

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Count the block with this part, and with no part around it."""
        if part not in PARTS or (self._open and self._open[-1] == part):
            yield
            return
        with self.operations if self.operations and not self._open else nullcontext():
            self._turn(self._open[-1] if self._open else None)
            self._open.append(part)
            self._name()
            try:
                yield
            finally:
                self._turn(self._open.pop())
                self._name()

    def _turn(self, part: str | None) -> None:
        now = time.perf_counter()
        if part:
            self.parts[part] += now - self._since
        self._since = now

    def _name(self) -> None:
        if self.operations:
            self.operations.part = self._open[-1] if self._open else ""

    def result(self, **numbers: float) -> Result:
        """What was measured, operations a step among the numbers."""
        if self.operations:
            steps = len(self.seconds) - 1
            for part in PARTS:
                numbers[part] = self.operations.all[part] / steps
                numbers[f"{part}, no views"] = self.operations.launched[part] / steps
        return super().result(**numbers)


def token_steps(job: dict[str, Any]) -> Result:
    """Operations and seconds of the processor for one more token of all rows, by way; least of so many rounds."""
    _, bank, renderer = make_bank(job)
    bank.model.eval()
    names = [bank.names[i % 4] for i in range(job["rows"])]
    ids = torch.arange(PROMPT).repeat(job["rows"], 1) + 20
    numbers: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    for way, run in ways(bank, names).items():
        totals = []
        for tokens in (SHORT, LONG):
            with Operations() as seen:
                said(run, ids, tokens, renderer.tokenizer.pad_token_id)
            totals.append((seen.all.total(), seen.launched.total()))
        for kind, (few, many) in zip(("operations", "no views"), zip(*totals, strict=True), strict=True):
            numbers[f"{way}, {kind}"] = (many - few) / (LONG - SHORT)
    forget_peak()
    for _ in range(job["steps"]):
        for way, run in ways(bank, names).items():
            start = time.process_time()
            said(run, ids, LONG, renderer.tokenizer.pad_token_id)
            seconds.setdefault(way, []).append((time.process_time() - start) / LONG)
    numbers |= {f"{way}, seconds": min(each) for way, each in seconds.items()}
    return Result(seconds[MIXED], peak=peak(), numbers=numbers)


Way = tuple[Any, Callable[[], AbstractContextManager[None]], dict[str, Any]]


def ways(bank: AdapterBank, names: Sequence[str]) -> dict[str, Way]:
    """The ways to run rows with adapters: what generates, within what, and with what."""
    mixed, first = MixedAdapters(bank.model), names[0]
    return {
        ALONE: (bank.base, partial(bank.using, first), {}),
        ONE: (bank.base, lambda: mixed.gather([first]).rows([first] * len(names)), {}),
        LOOP: (bank.model, nullcontext, {"adapter_names": list(names)}),
        MIXED: (bank.base, lambda: mixed.gather(bank.names).rows(names), {}),
    }


@torch.no_grad()
def said(way: Way, ids: torch.Tensor, tokens: int, pad: int) -> None:
    """Generate so many tokens greedily."""
    model, within, options = way
    config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=pad)
    with within():
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, **options)


def describe_parts(results: dict[str, list[Result]]) -> str:
    """The table of a step's parts: operations from the runs that count, seconds from the others."""
    rows = []
    for who in ("ours", "TRL"):
        counted, timed = results[f"{who}, counted"][-1].numbers, results[who]
        steps = len(timed[0].seconds)
        for part in PARTS:
            seconds = min(run.parts[part] for run in timed) / steps
            rows.append([who, part, f"{counted[part]:,.0f}", f"{counted[f'{part}, no views']:,.0f}", f"{seconds:.3f}"])
        rest = min(sum(run.seconds) - sum(run.parts.values()) for run in timed) / steps
        rows.append([who, "the rest", "", "", f"{rest:.3f}"])
    whole = ratio(results["ours"], results["TRL"], lambda run: run.per_trained)
    head = ["", "part", "operations a step", "of them no views", "s a step, least"]
    return table(head, rows) + f"\n\nSeconds a trained token, ours over TRL's: {whole:.2f}"


def describe_token_steps(runs: Sequence[Result]) -> str:
    """The table of the ways to generate."""
    numbers, rows = runs[-1].numbers, []
    for way in (ALONE, ONE, LOOP, MIXED):
        seconds = min(run.numbers[f"{way}, seconds"] for run in runs)
        cells = [numbers[f"{way}, operations"], numbers[f"{way}, no views"]]
        over = numbers[f"{way}, operations"] / numbers[f"{ALONE}, operations"]
        rows.append([way, *(f"{cell:.0f}" for cell in cells), f"{over:.2f}", f"{1000 * seconds:.2f}"])
    head = ["way", "operations a token step", "of them no views", "operations over the first", "ms of the processor"]
    return table(head, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("profile", description=__doc__)
    parser.add_argument("--steps", type=int, default=4, help="steps per measurement, the first one left out")
    parser.add_argument("--rounds", type=int, default=3, help="how often each variant is measured")
    parser.add_argument("--problems", type=int, default=8, help="of 16 replies")
    parser.add_argument("--tokens", type=int, default=32, help="of a reply")
    parser.add_argument("--micro_batch", type=int, default=32, help="replies in one forward pass")
    parser.add_argument("--rows", type=int, default=128, help="rows of a token step")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="llm-sra-bench-") as folder:
        model = Path(folder) / "tiny"
        write_tiny(model)
        shape = {**vars(args), "model": str(model), "generations": 8, "turns": 1}

        def job(who: str, count: bool = False) -> Job:
            return Job("benchmarks.profile", {**shape, "who": who, "count": count})

        print("# Where a step's operations go\n\n## A step\n", flush=True)
        counted = {"ours, counted": job("ours", True), "TRL, counted": job("trl", True)}
        steps = in_turn(counted, 1) | in_turn({"ours": job("ours"), "TRL": job("trl")}, args.rounds)
        print(describe_parts(steps) + f"\n\n## A token step of {args.rows} rows\n", flush=True)
        print(describe_token_steps(in_turn({"ways": job("ways")}, args.rounds)["ways"]))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("{"):  # a process that is measured
        settings = asked()
        watching = partial(Parts.watching, settings["count"])
        programs: dict[str, Callable[[dict[str, Any]], Result]] = {"ways": token_steps}
        programs |= {"ours": partial(ours, watching=watching), "trl": partial(trl, watching=watching)}
        answer(programs[settings["who"]](settings))
    else:
        main()
