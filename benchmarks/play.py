"""Rollouts by one engine: a program for each process measured.

Settings: `model` (a folder), `engine`, `episodes`, `tokens` of a reply, `steps`. Its seconds are those of four adapters
in one batch; the other ways to play are among its numbers.
"""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import environ
from typing import Any

import httpx
from peft import LoraConfig

from benchmarks.fixed import Fixed
from benchmarks.measure import Result, answer, asked, forget_peak, peak
from llm_sra.engines import Completion, Engine, EngineOptions, Request, make_engine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.playing import play
from llm_sra.task import Sampling
from llm_sra.trainer import build_arm
from llm_sra.trainer.rollout import episode_specs

RANK, CONTEXT, PATIENCE = 8, 512, 400.0  # PATIENCE: seconds for a server to come up
ARMS = {1: ("ippo", "shared"), 2: ("ippo", "seat"), 4: ("srpo", "seat")}


class InTurn:
    """An engine that is given one adapter's requests at a time: the same replies, one adapter after the other."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.renderer, self.context_length = engine, engine.renderer, engine.context_length
        self.shares_weights = engine.shares_weights

    def sync(self) -> None:
        self.engine.sync()

    def rest(self) -> None:
        self.engine.rest()

    def close(self) -> None:
        self.engine.close()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order."""
        completions: dict[int, Completion] = {}
        for adapter in dict.fromkeys(request.adapter for request in requests):
            mine = [i for i, request in enumerate(requests) if request.adapter == adapter]
            completions.update(zip(mine, self.engine.generate([requests[i] for i in mine]), strict=True))
        return [completions[i] for i in range(len(requests))]


@contextmanager
def served(model: str) -> Iterator[str]:
    """The address of a server of a model, up while the block runs."""
    from recipes.commands.serve import RUNTIME_UPDATES, server_command

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = {"model_name_or_path": model, "task": "worksheet", "arm": "srpo", "lora_r": RANK, "bf16": "false"}
    flags["vllm_max_model_length"] = CONTEXT
    words = [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    command = server_command(None, words, "127.0.0.1", port)
    process = subprocess.Popen(
        command,
        env={"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "WARNING", **environ, RUNTIME_UPDATES: "1"},
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server at {url} after {PATIENCE:.0f} s, or it ended: {process.poll()}")
            try:
                if httpx.get(f"{url}/health", timeout=5).is_success:
                    break
            except httpx.TransportError:
                time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def rollouts(job: dict[str, Any], servers: tuple[str, ...]) -> Result:
    """Play the same number of episodes with one, two and four adapters, and with four of them in turn."""
    base, tokenizer = load_model(job["model"])
    most = build_arm(*ARMS[4][:1], Fixed.seats, ARMS[4][1], 10.0, Sampling())
    names = (*most.adapters, "hero")
    bank = AdapterBank.create(base, names, LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules="all-linear"), 1)
    options = EngineOptions(kind=job["engine"], max_model_length=CONTEXT, servers=servers)
    engine = make_engine(options, bank, Renderer(tokenizer))
    try:
        engine.sync()
        forget_peak()
        ways = {f"{count} in a batch": (count, engine) for count in ARMS} | {"4 in turn": (4, InTurn(engine))}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        read = said = 0
        for step in range(job["steps"]):
            for way, (count, plays) in ways.items():
                arm_name, sharing = ARMS[count]
                arm = build_arm(arm_name, Fixed.seats, sharing, 10.0, Sampling())
                task = Fixed(turns=job["turns"])
                specs = [spec for spec, _ in episode_specs(arm, task.problems("train", job["episodes"] // 4), 4, 0, 1)]
                start = time.perf_counter()
                episodes = play(task, specs, {"main": plays}, seed=1, step=step, max_reply_tokens=job["tokens"])
                seconds[way].append(time.perf_counter() - start)
                turns = [turn for episode in episodes for turn in episode.turns]
                read, said = sum(len(t.prompt_ids) for t in turns), sum(len(t.reply.token_ids) for t in turns)
    finally:
        engine.close()
    numbers = {way: statistics.median(each[1:]) for way, each in seconds.items()}
    return Result(seconds["4 in a batch"][1:], read, said, 0, peak(), {}, numbers)


def main() -> None:
    """Measure the engine that was asked for."""
    job = asked()
    if job["engine"] == "server":
        with served(job["model"]) as url:
            answer(rollouts(job, (url,)))
    else:
        answer(rollouts(job, ()))


if __name__ == "__main__":
    main()
