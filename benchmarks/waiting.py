"""How much of an engine's time is waiting for the longest reply: `python -m benchmarks.waiting`.

256 episodes of six replies are played twice by `play` itself: in lock-step, where a turn lasts as long as its longest
reply, and with replies taken as they come. The lengths of replies are those recorded in GSM8K's
`example_model_solutions.jsonl`, drawn by the requests' seeds, so both ways have the same.

The simulated engine holds so many replies at a time, first come first served, and every token step takes it as long,
as on a GPU that reads its weights for one reply as for many: then the share of its places that are taken is the share
of its time that it works. `--vllm` plays on vLLM, too: what a clock says, on the tiny model, with lengths cut to a
quarter.
"""

import argparse
import json
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fixed import SEATS, Fixed, Said
from benchmarks.measure import Job, Result, answer, asked, in_turn, median, table, target
from benchmarks.models import PUPIL, write_tiny
from llm_sra.engines import Completion, Engine, EngineOptions, Request, make_engine
from llm_sra.engines.streaming import Streaming
from llm_sra.models.renderer import Renderer
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match
from llm_sra.task import Message

FILE = "example_model_solutions.jsonl"
DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "gsm8k"
BUSY, SHORTER, PLAYS = 0.9, 4, 5  # the target; what lengths on vLLM for CPUs are divided by; simulated plays
PIECES = re.compile(r"\d|[A-Za-z]+|[^\w\s]|\n")  # about what tokenizers of today make of a solution


class Alternating(Fixed):
    """The seats speak one after the other: a reply a turn."""

    def actors(self, state: Said) -> tuple[str, ...]:
        return (SEATS[len(state.steps) % 2],) if len(state.steps) < self.turns else ()

    def view(self, state: Said, seat: str) -> Sequence[Message]:
        return [Message("user", f"{state.question} {len(state.steps)}")]  # of equal length at each turn


class _Idle:
    """What engines of this file need not do."""

    shares_weights = False

    def sync(self) -> None: ...
    def rest(self) -> None: ...
    def close(self) -> None: ...


class Slots(_Idle):
    """An engine in simulated time.

    Args:
        renderer: Makes prompts, as of every engine.
        lengths: Tokens of replies, which are drawn from these by the requests' seeds.
        slots: Replies that it holds at a time.

    Attributes:
        steps: Token steps so far.
        tokens: Generated so far.
    """

    context_length = 1 << 20

    def __init__(self, renderer: Renderer, lengths: Sequence[int], slots: int) -> None:
        self.renderer, self._lengths, self._slots = renderer, lengths, slots
        self._open: list[list[int]] = []  # of each reply: its tokens, and how many are left
        self._futures: list[Future[Completion]] = []
        self.steps = self.tokens = 0

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Begin replies."""
        lengths = [drawn(self._lengths, request.seed) for request in requests]
        futures = [Future[Completion]() for _ in requests]
        self._open += [[length, length] for length in lengths]
        self._futures += futures
        return futures

    def step(self) -> bool:
        """Go on to where the next reply, or several, end."""
        running = self._open[: self._slots]
        if not running:
            return False
        passed = min(left for _, left in running)
        self.steps += passed
        self.tokens += passed * len(running)
        for one in running:
            one[1] -= passed
        ended = [future for (_, left), future in zip(self._open, self._futures, strict=True) if not left]
        done = [Completion((0,) * length, (0.0,) * length, "hm", "stop") for length, left in self._open if not left]
        still = [i for i, (_, left) in enumerate(self._open) if left]
        self._open, self._futures = [self._open[i] for i in still], [self._futures[i] for i in still]
        for future, completion in zip(ended, done, strict=True):
            future.set_result(completion)
        return True

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, when all are there."""
        futures = self.submit(requests)
        while self.step():
            pass
        return [future.result() for future in futures]


class Batches(_Idle):
    """An engine that is asked for whole batches alone, whatever else it can do."""

    def __init__(self, engine: Engine) -> None:
        self.renderer, self.context_length = engine.renderer, engine.context_length
        self._engine = engine

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, when all are there."""
        return self._engine.generate(requests)


class Cut(_Idle):
    """A streaming engine whose replies end at lengths drawn by the requests' seeds: its model's never end."""

    def __init__(self, engine: Engine, lengths: Sequence[int]) -> None:
        self.renderer, self.context_length = engine.renderer, engine.context_length
        assert isinstance(engine, Streaming)
        self._engine, self._stream, self._lengths = engine, engine, lengths

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Begin replies."""
        return self._stream.submit([self._cut(request) for request in requests])

    def step(self) -> bool:
        """Work for a moment."""
        return self._stream.step()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, when all are there."""
        return self._engine.generate([self._cut(request) for request in requests])

    def _cut(self, request: Request) -> Request:
        return replace(request, max_tokens=drawn(self._lengths, request.seed))


@dataclass(frozen=True)
class Share:
    """Of an engine's time in one way of playing.

    Attributes:
        busy: Share of its places that were taken, over time.
        steps: Token steps.
        most: What `busy` would be if only the longest episode, or the number of places, set the time.
    """

    busy: float
    steps: int
    most: float


def drawn(lengths: Sequence[int], seed: int) -> int:
    """The length of the reply with this seed."""
    return lengths[random.Random(seed).randrange(len(lengths))]


def recorded(path: Path, limit: int) -> list[int]:
    """The lengths of the solutions in a file, cut to a limit: a line a problem, each with several models' solutions."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [value["solution"] for line in lines for value in line.values() if isinstance(value, Mapping)]
    return [min(max(len(PIECES.findall(text)), 1), limit) for text in texts]


def specs(episodes: int) -> list[EpisodeSpec]:
    """Episodes of one problem each, between two adapters."""
    match = Match("both", {seat: EnginePolicy(seat, adapter=seat) for seat in SEATS})
    return [EpisodeSpec(problem, match) for problem in Fixed(count=episodes).problems("train")]


def simulated(
    lengths: Sequence[int], episodes: int, turns: int, slots: int, renderer: Renderer, seed: int = 1
) -> dict[str, Share]:
    """Play in lock-step and with replies as they come, on an engine of so many places."""
    shares = {}
    for way in ("lock-step", "as they come"):
        engine = Slots(renderer, lengths, slots)
        plays: Engine = engine if way == "as they come" else Batches(engine)
        played = play(Alternating(turns=turns), specs(episodes), {"main": plays}, seed=seed)
        longest = max(sum(len(turn.reply.token_ids) for turn in episode.turns) for episode in played)
        full = engine.tokens / slots
        shares[way] = Share(full / engine.steps, engine.steps, full / max(longest, full))
    return shares


def report(lengths: Sequence[int], episodes: int, turns: int, places: Sequence[int]) -> None:
    """Print what was simulated."""
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(PUPIL))
    print(
        f"\n## {episodes} episodes of {turns} replies, simulated\n\nReplies of {statistics.mean(lengths):.0f} tokens "
        f"on average, standard deviation {statistics.pstdev(lengths):.0f}, longest {max(lengths)}\n"
    )
    rows, verdicts = [], []
    for slots in places:
        each = [simulated(lengths, episodes, turns, slots, renderer, seed) for seed in range(PLAYS)]
        before, now = ([shares[way] for shares in each] for way in ("lock-step", "as they come"))
        busy = statistics.mean(share.busy for share in now)
        numbers = (
            statistics.mean(share.busy for share in before),
            statistics.mean(1 - share.busy for share in before),
            busy,
            statistics.mean(share.most for share in now),
            statistics.mean(a.steps / b.steps for a, b in zip(before, now, strict=True)),
        )
        rows.append([str(slots), *(f"{number:.2f}" for number in numbers)])
        verdicts.append(target(f"engine of {slots} places, share of its time that it works", busy, BUSY, True))
    head = ["places", "busy in lock-step", "wasted in lock-step", "busy as they come", "at most", "times faster"]
    print(table(head, rows) + "\n\n" + "\n".join(verdicts), flush=True)


def clocked(job: dict[str, object]) -> Result:
    """Play in both ways on vLLM, in turn; the seconds are those of replies as they come."""
    from peft import LoraConfig

    from llm_sra.models.adapters import AdapterBank
    from llm_sra.models.loading import load_model

    base, tokenizer = load_model(str(job["model"]))
    bank = AdapterBank.create(base, SEATS, LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"), 1)
    engine = make_engine(EngineOptions(kind="vllm", max_model_length=512), bank, Renderer(tokenizer))
    seconds: dict[str, list[float]] = {"lock-step": [], "as they come": []}
    tokens = 0
    try:
        engine.sync()
        cut = Cut(engine, job["lengths"])  # type: ignore[arg-type]
        for step in range(int(str(job["steps"]))):
            ways: dict[str, Engine] = {"lock-step": Batches(cut), "as they come": cut}
            for way, plays in ways.items():
                task, start = Alternating(turns=int(str(job["turns"]))), time.perf_counter()
                played = play(task, specs(int(str(job["episodes"]))), {"main": plays}, seed=1, step=step)
                seconds[way].append(time.perf_counter() - start)
                tokens = sum(len(turn.reply.token_ids) for episode in played for turn in episode.turns)
    finally:
        engine.close()
    numbers = {way: statistics.median(each[1:]) for way, each in seconds.items()}
    return Result(seconds["as they come"][1:], generated=tokens, numbers=numbers)


def on_vllm(lengths: Sequence[int], episodes: int, turns: int, steps: int, rounds: int) -> None:
    """Print what a clock says."""
    with tempfile.TemporaryDirectory(prefix="llm-sra-bench-") as folder:
        write_tiny(Path(folder) / "tiny")
        short = [max(length // SHORTER, 1) for length in lengths]
        shape = {"lengths": short, "episodes": episodes, "turns": turns, "steps": steps}
        job = Job("benchmarks.waiting", {**shape, "model": str(Path(folder) / "tiny")}, "vllm")
        for runs in in_turn({"vllm": job}, rounds).values():
            faster = median(runs, lambda run: run.numbers["lock-step"] / run.numbers["as they come"])
            rows = [[way, f"{median(runs, lambda r, w=way: r.numbers[w]):.1f}"] for way in runs[0].numbers]  # type: ignore[misc]
            print(f"\n## On vLLM, {episodes} episodes of {turns} replies, {runs[0].generated} tokens\n")
            print(table(["way", "seconds"], rows) + f"\n\n- times faster as they come: {faster:.2f}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, and measure where that is asked for."""
    parser = argparse.ArgumentParser("waiting", description=__doc__)
    folder = Path(os.environ.get("LLM_SRA_GSM8K", DATA))
    parser.add_argument("--lengths", type=Path, default=folder / FILE, help=f"GSM8K's {FILE}")
    parser.add_argument("--limit", type=int, default=512, help="tokens of the longest reply, as in GSM8K's recipes")
    parser.add_argument("--episodes", type=int, default=256, help="played at a time")
    parser.add_argument("--turns", type=int, default=6, help="replies of an episode")
    parser.add_argument("--places", default="256,128,64", help="replies that the engine holds, separated by commas")
    parser.add_argument("--vllm", action="store_true", help="play on vLLM, too")
    parser.add_argument("--steps", type=int, default=3, help="plays on vLLM, the first left out")
    parser.add_argument("--rounds", type=int, default=1, help="how often vLLM is started")
    args = parser.parse_args(argv)
    if not args.lengths.is_file():
        print(f"left out, there is no {args.lengths}: name GSM8K's folder in LLM_SRA_GSM8K")
        return
    lengths = recorded(args.lengths, args.limit)
    report(lengths, args.episodes, args.turns, [int(number) for number in args.places.split(",")])
    if args.vllm:
        on_vllm(lengths, args.episodes, args.turns, args.steps, args.rounds)


if __name__ == "__main__":
    import sys

    if len(sys.argv) == 3 and sys.argv[1].startswith("{"):  # a process that `measure` started
        answer(clocked(asked()))
    else:
        main()
