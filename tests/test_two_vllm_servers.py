"""Two models that learn together, each on a real vLLM server of its own, as `llm-sra serve` starts it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from support import RANK, ROOT, llama_tokenizer, published_shape, qwen2_tokenizer, save_model
from training_support import TASK, flat, steps_of, train_tiny, weights
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from llm_sra.engines.base import Completion, Request
from llm_sra.engines.server import ServerEngine
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.runs import Run

pytestmark = pytest.mark.vllm
SRPO: dict[str, Any] = {"arm": "srpo", "tau": 1.0, "num_iterations": 2, "save_strategy": "steps", "save_steps": 1}
TOLERANCE = 1e-4  # nats, in float32
TURNS = 12 * 4  # of a step: episodes, and turns of each


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A random Qwen2 and a random Llama with another tokenizer; vLLM's CPU attention takes no heads below 32 wide."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    wide = {"initializer_range": 0.2, "max_position_embeddings": 256}  # their choices are far from even
    qwen, llama = qwen2_tokenizer(), llama_tokenizer()
    left = Qwen2ForCausalLM(Qwen2Config(**{**published_shape(qwen), **wide}))
    right = LlamaForCausalLM(LlamaConfig(**{**published_shape(llama), **wide}))
    return {
        "left": str(save_model(left, qwen, folder / "wide-qwen2")),
        "right": str(save_model(right, llama, folder / "wide-llama")),
    }


@pytest.fixture(scope="module")
def addresses(models: dict[str, str]) -> Iterator[str]:
    """Both servers, once they answer."""
    servers = {seat: _serve(models, seat) for seat in models}
    try:
        for process, url in servers.values():
            _await(process, url)
        yield ",".join(f"{seat}={url}" for seat, (_, url) in servers.items())
    finally:
        for process, _ in servers.values():
            process.terminate()
        for process, _ in servers.values():
            process.wait(120)


def _serve(models: dict[str, str], seat: str) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = {"task": TASK, "seat_models": json.dumps(models), "arm": "srpo", "tau": 1.0, "lora_r": RANK}
    flags |= {"use_cpu": "true", "bf16": "false"}
    command = [sys.executable, "-m", "recipes.cli", "serve", "--seat", seat, "--port", str(port)]
    command += [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])  # the task's file imports others of the tests
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}), f"http://127.0.0.1:{port}"


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 1500
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with exit code {process.returncode}"
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        time.sleep(1)
    raise AssertionError(f"{url} does not answer")


def moved(run: Run) -> dict[str, torch.Tensor]:
    """Where each adapter has gone: of the matrices that begin with zeros."""
    return {
        name: flat({key: value for key, value in state.items() if "lora_B" in key})
        for name, state in weights(run.adapters).items()
    }


def test_two_models_train_on_two_servers_as_on_transformers(
    models: dict[str, str], addresses: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM draws other replies than transformers: there the same replies are said again, and all else is computed."""
    said: dict[Request, Completion] = {}
    differences: list[float] = []
    complete = ServerEngine._complete

    def record(engine: ServerEngine, request: Request) -> Completion:
        assert request not in said  # a request is a function of its seed, so its reply can be found again
        said[request] = complete(engine, request)
        return said[request]

    @torch.no_grad()
    def say_again(engine: TransformersEngine, requests: list[Request]) -> list[Completion]:
        training = engine.bank.model.training
        engine.bank.model.eval()
        done = [said.pop(request) for request in requests]
        for request, reply in zip(requests, done, strict=True):
            with engine.bank.using(request.adapter):
                logits = engine.bank.base(torch.tensor([[*request.prompt_ids, *reply.token_ids]])).logits
            logprobs = logits[0, len(request.prompt_ids) - 1 : -1].log_softmax(-1)
            mine = logprobs[torch.arange(len(reply.token_ids)), torch.tensor(reply.token_ids)]
            differences.append((mine - torch.tensor(reply.logprobs)).abs().max().item())
        engine.bank.model.train(training)
        return done

    monkeypatch.setattr(ServerEngine, "_complete", record)
    monkeypatch.setattr(TransformersEngine, "generate", say_again)
    of_both: dict[str, Any] = {"model_name_or_path": None, "seat_models": models, **SRPO}
    there = {**of_both, "engine": "server", "vllm_server_base_url": addresses, "vllm_server_timeout": 600}
    train_tiny(tmp_path / "there", **there, max_steps=2)
    theirs = train_tiny(tmp_path / "there", **there, max_steps=3, resume_from_checkpoint=True)
    ours = train_tiny(tmp_path / "here", **of_both, max_steps=3)

    here, at_servers = moved(ours), moved(theirs)
    apart = {name: ((way - at_servers[name]).norm() / way.norm()).item() for name, way in here.items()}
    print("log-probabilities differ by at most", [max(differences[i : i + TURNS]) for i in range(0, 3 * TURNS, TURNS)])
    print("ways differ, as a share of their length, by", apart)
    assert not said and len(differences) == 3 * TURNS  # every reply was said again
    assert max(differences[:TURNS]) < TOLERANCE  # later the weights differ, too, by what the optimizer makes of it
    for line in steps_of(theirs):
        assert all(line[f"policy/{name}/engine_logprob_difference"] < TOLERANCE for name in theirs.models)
    for mine, other in zip(steps_of(ours), steps_of(theirs), strict=True):
        returns = [key for key in mine if key.endswith("/return")]
        assert len(returns) == 4 and all(mine[key] == pytest.approx(other[key]) for key in returns)
    assert apart.keys() == {"left", "right", "adversary-of-left", "adversary-of-right"}
    assert max(apart.values()) < 0.01  # 1.4 between ways that have nothing in common
