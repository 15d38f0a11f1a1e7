"""Makes the engine that a run's configuration asks for."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from llm_sra.engines.base import Engine, EngineError
from llm_sra.engines.replies import end_of_turn_ids
from llm_sra.errors import did_you_mean
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import ModelError
from llm_sra.models.renderer import Renderer
from llm_sra.models.usable import why_not_asked

# What an evaluation takes of a run's configuration: sizes alone. Where to connect and where to write is the caller's.
SIZES = (
    "rollout_batch_size",
    "vllm_gpu_memory_utilization",
    "vllm_tensor_parallel_size",
    "vllm_enable_sleep_mode",
    "vllm_server_timeout",
)
_SEAT = re.compile(r"[^/:=]+=")
EngineKind = Literal["transformers", "vllm", "server"]
ENGINES: tuple[str, ...] = get_args(EngineKind)


@dataclass(frozen=True)
class EngineOptions:
    """Options of engines; each engine takes those that concern it.

    Attributes:
        kind: See `EngineKind`.
        batch_size: Most replies in one forward pass of transformers.
        max_model_length: Tokens of prompt and reply together in vLLM; None: the model's context.
        gpu_memory_utilization: Share of each GPU's memory that vLLM may take.
        tensor_parallel_size: GPUs that share the model in vLLM.
        sleep: Whether vLLM frees its GPU memory between rollouts.
        servers: Addresses of servers.
        timeout: Seconds without an answer after which to give up on servers.
        adapter_dir: Folder in which vLLM finds adapters.
        seeded: Whether vLLM and servers are sent the seeds of requests.
    """

    kind: str = "transformers"
    batch_size: int = 256
    max_model_length: int | None = None
    gpu_memory_utilization: float = 0.3
    tensor_parallel_size: int = 1
    sleep: bool = False
    servers: tuple[str, ...] = ()
    timeout: float = 240.0
    adapter_dir: Path | None = None
    seeded: bool = True

    def serving(self, seats: Collection[str]) -> "EngineOptions":
        """The options of an engine for the model of some seats: of servers, those for these seats and those for all.

        A server for one seat's model is written `SEAT=URL`.
        """
        return replace(self, servers=tuple(url for seat, url in self._addresses if not seat or seat in seats))

    def check_servers(self, seats_of: Mapping[str, Collection[str]]) -> None:
        """See that every model has a server, and that servers are named for seats that there are.

        Args:
            seats_of: By model, the seats whose agents live on it.

        Raises:
            EngineError: If an address cannot be used.
        """
        if self.kind != "server":
            return
        seats = [seat for of_model in seats_of.values() for seat in of_model]
        for seat, url in self._addresses:
            if seat and seat not in seats:
                raise EngineError(
                    f"a server is given for {seat!r}, which is no seat of the task{did_you_mean(seat, seats)}"
                )
            if not url.startswith(("http://", "https://")):
                raise EngineError(f"the address of a server must begin with http:// or https://, got {url!r}")
        for model, of_model in seats_of.items():
            if not self.serving(of_model).servers:
                raise EngineError(
                    f"no server is given for {model}, the model of seat {' and '.join(of_model)}: where seats have "
                    "different models give each one's address, SEAT=URL,SEAT=URL"
                )

    @property
    def _addresses(self) -> list[tuple[str, str]]:
        """Of each server, its seat, which is empty if it serves all, and its address."""
        named = [url.partition("=") if _SEAT.match(url) else ("", "", url) for url in self.servers]
        return [(seat, url) for seat, _, url in named]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "EngineOptions":
        """From the configuration of one's own training; fields that it lacks have the defaults above."""
        keys = {
            "engine": "kind",
            "rollout_batch_size": "batch_size",
            "vllm_max_model_length": "max_model_length",
            "vllm_gpu_memory_utilization": "gpu_memory_utilization",
            "vllm_tensor_parallel_size": "tensor_parallel_size",
            "vllm_enable_sleep_mode": "sleep",
            "vllm_server_timeout": "timeout",
        }
        said: dict[str, Any] = {ours: config[key] for key, ours in keys.items() if config.get(key) is not None}
        if config.get("engine_adapter_dir"):
            said["adapter_dir"] = Path(config["engine_adapter_dir"])
        host, port = config.get("vllm_server_host") or "127.0.0.1", config.get("vllm_server_port") or 8000
        urls = str(config.get("vllm_server_base_url") or f"http://{host}:{port}")
        return cls(**said, servers=tuple(url.strip() for url in urls.split(",") if url.strip()))

    @classmethod
    def of_run(cls, config: Mapping[str, Any], given: Mapping[str, Any]) -> "EngineOptions":
        """For playing a run that somebody else may have made.

        Args:
            config: The run's configuration, of which sizes are taken: never a host, an address or a folder.
            given: Fields that the caller gives, with the names of a configuration.
        """
        return cls.of({**{key: config[key] for key in SIZES if key in config}, **given})


def make_engine(options: EngineOptions, bank: AdapterBank, renderer: Renderer) -> Engine:
    """Make an engine; vLLM is imported only if it is asked for.

    Raises:
        EngineError: If it cannot be made.
        ModelError: If the model lacks a token that its template writes, or never ends a reply.
    """
    rows = bank.base.get_input_embeddings().weight.shape[0]
    if reason := why_not_asked(renderer, rows, end_of_turn_ids(bank.base, renderer)):
        raise ModelError(f"the model {bank.base.name_or_path!r} cannot be asked: {reason}")
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if options.kind == "vllm":
        if processes > 1 and options.tensor_parallel_size > 1:
            raise EngineError(
                f"vllm_tensor_parallel_size {options.tensor_parallel_size} with {processes} training processes: each "
                "has a vLLM of its own on its own GPU. Launch one process, or serve the model with `llm-sra serve` "
                "and set engine to server"
            )
        from llm_sra.engines.vllm import VllmEngine

        return VllmEngine(
            bank,
            renderer,
            max_model_length=options.max_model_length,
            gpu_memory_utilization=options.gpu_memory_utilization,
            tensor_parallel_size=options.tensor_parallel_size,
            sleep=options.sleep,
            adapter_dir=options.adapter_dir,
            seeded=options.seeded,
        )
    if options.kind == "server":
        from llm_sra.engines.server import ServerEngine

        return ServerEngine(
            bank,
            renderer,
            share_of(options.servers, rank, processes),
            timeout=options.timeout,
            max_model_length=options.max_model_length,
            adapter_dir=options.adapter_dir,
            seeded=options.seeded,
        )
    from llm_sra.engines.transformers import TransformersEngine

    return TransformersEngine(bank, renderer, options.batch_size)


def sends_seeds(kind: str, wanted: bool | None) -> bool:
    """Whether rollouts are drawn by seeds; None: where numbers repeat, which vLLM's do not on a GPU."""
    return wanted if wanted is not None else kind != "vllm" or not torch.cuda.is_available()


def share_of(servers: tuple[str, ...], rank: int, processes: int) -> tuple[str, ...]:
    """The servers of one training process: its share of them, or one that it shares with other processes."""
    return servers[rank::processes] or servers[rank % max(len(servers), 1) :][:1]
