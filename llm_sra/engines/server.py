"""Generation by vLLM's OpenAI-compatible servers, on this or other machines.

Every request is a function of its prompt, its adapter's version and its seed, so asking again after a failure neither
loses nor doubles anything. Adapters are loaded over HTTP when a server says that it does not know them: at their first
use, and after a crash and restart.
"""

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import torch

from llm_sra.engines.base import Completion, EngineError, Request
from llm_sra.engines.replies import Parts, end_of_turn_ids, ended_by_template
from llm_sra.engines.streaming import failed, failures
from llm_sra.engines.versions import Version, Versions
from llm_sra.engines.vllm import LOGPROBS, sampling_options, shortened
from llm_sra.models.adapters import AdapterBank, AdapterError
from llm_sra.models.renderer import Renderer
from llm_sra.models.usable import context_of
from llm_sra.task import Message, Sampling

KEY_VARIABLE = "VLLM_API_KEY"  # vLLM's own name for it
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts
TOLERANCE = 0.5  # nats a token, between a server's log-probabilities and those computed here
BUSY = (408, 425, 429, 500, 502, 503, 504)  # worth another attempt
T = TypeVar("T")


class _TryAgainError(Exception):
    """A request failed that may succeed a moment later."""


class _UnknownModelError(Exception):
    """The server knows no such adapter, or no such address."""


class _RefusedError(EngineError):
    """A request failed that will fail again."""


class ServerEngine:
    """Generates with one or several servers that serve the bank's base model.

    Args:
        bank: The adapters, and the base model that the servers have, too.
        renderer: How messages become prompts.
        urls: The servers, such as `http://127.0.0.1:8000`; requests are spread over them.
        timeout: Seconds without any answer from any server after which to give up.
        max_model_length: Tokens of prompt and reply together, for which every server must have room, as far as the
            model has; None: what the servers say.
        adapter_dir: Folder that this process and the servers see under the same path; in memory if None, which serves
            servers on this machine.
        concurrency: Requests at a time, for each server.
        seeded: Whether to send the requests' seeds; without them a request that is asked again draws anew.

    Raises:
        EngineError: If no server answers in time, or one serves another model, or a shorter context.
    """

    shares_weights = False

    def __init__(
        self,
        bank: AdapterBank,
        renderer: Renderer,
        urls: Sequence[str],
        *,
        timeout: float = 240.0,
        max_model_length: int | None = None,
        adapter_dir: Path | None = None,
        concurrency: int = 256,
        seeded: bool = True,
    ) -> None:
        self.bank = bank
        self.renderer = renderer
        self._ends = end_of_turn_ids(bank.base, renderer)
        self._timeout, self._seeded = timeout, seeded
        self._versions = Versions(bank, adapter_dir)
        self._servers = [_Server(url, timeout) for url in urls]
        if not self._servers:
            raise EngineError(
                "no server to generate with: set vllm_server_base_url, such as http://127.0.0.1:8000; where seats have "
                "different models each model needs one, SEAT=URL,SEAT=URL"
            )
        self._pool = ThreadPoolExecutor(concurrency * len(self._servers), thread_name_prefix="llm-sra-server")
        self._turn = itertools.count()
        self._answered = time.monotonic()
        self._current: dict[str | None, Version] = {}
        lengths = {server: self._persist(_Server.describe, [server]) for server in self._servers}
        own = context_of(bank.base.config)
        wanted = min(own, max_model_length or own)
        self.context_length = min(wanted, *lengths.values())
        for server, length in lengths.items():
            if max_model_length and length < wanted:
                raise EngineError(
                    f"{server.url} serves {bank.base.name_or_path!r} with a context of {length} tokens, where "
                    f"vllm_max_model_length asks for {wanted}: start it with `llm-sra serve` and the same "
                    "vllm_max_model_length, or lower that of the training"
                )
            self._check_base(server)

    def sync(self) -> None:
        """Load the current version of every adapter into every server, and unload the previous ones."""
        for adapter in self.bank.served:
            self._bring(adapter)

    def rest(self) -> None:
        """Nothing to do: servers keep their memory."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. See `Engine.generate`."""
        futures = self.submit(requests)
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Send requests. See `Streaming.submit`."""
        broken = failures(self._bring, requests) if self.bank.names else {}
        self._answered = time.monotonic()
        return [
            failed(broken[one.adapter]) if one.adapter in broken else self._pool.submit(self._complete, one)
            for one in ended_by_template(self.renderer, requests)
        ]

    def step(self) -> bool:
        """Nothing to do: the servers work by themselves. See `Streaming.step`."""
        return False

    def close(self) -> None:
        """Unload the adapters and close the connections."""
        for server in self._servers:
            for version in self._current.values():
                server.unload(version)
            server.close()
        self._current.clear()
        self._versions.close()
        self._pool.shutdown(cancel_futures=True)

    def _bring(self, adapter: str | None) -> None:
        """Load the current version of an adapter into every server, and unload the previous one."""
        version = self._versions.current(adapter)
        before = self._current.get(adapter)
        if before == version:
            return
        self._answered = time.monotonic()
        for server in self._servers:
            self._persist(partial(_Server.load, version=version), [server])
            if before is not None:
                server.unload(before)
        self._current[adapter] = version

    def _complete(self, request: Request) -> Completion:
        version = self._current.get(request.adapter)
        first = next(self._turn) % len(self._servers)
        order = self._servers[first:] + self._servers[:first]
        ask = partial(_Server.complete, version=version, ends=self._ends, seeded=self._seeded)
        reply = Parts(self.renderer, self._ends, request)
        while reply.next is not None:
            reply.add(*self._persist(partial(ask, request=reply.next), order))
        return reply.completion()

    def _persist(self, ask: Callable[["_Server"], T], servers: Sequence["_Server"]) -> T:
        """Ask one server after the other, again and again, until one answers."""
        pause = FIRST_PAUSE
        for attempt in itertools.count(1):
            server = servers[attempt % len(servers) - 1]
            try:
                answer = ask(server)
            except (_TryAgainError, httpx.TransportError) as error:
                waited = time.monotonic() - self._answered
                if waited > self._timeout:
                    raise EngineError(
                        f"no server answered for {waited:.0f} s ({', '.join(s.url for s in self._servers)}, for "
                        f"{self.bank.base.name_or_path!r}); last: {type(error).__name__}: {error}. Start one with "
                        "`llm-sra serve` (where seats have different models, --seat SEAT), or wait longer with "
                        "vllm_server_timeout; `--resume_from_checkpoint true` resumes from the last checkpoint"
                    ) from error
                if attempt % len(servers) == 0:  # all of them were tried
                    time.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._answered = time.monotonic()
                return answer
        raise AssertionError("the loop above has no end")

    @torch.no_grad()
    def _check_base(self, server: "_Server") -> None:
        """Compare the log-probabilities of some improbable tokens on a server with those computed here."""
        prompt = self.renderer.render([Message("user", "1 2 3")])
        sampling = Sampling(temperature=2.0)  # far from 1: log-probabilities before and after it are far apart
        if (room := self.context_length - len(prompt)) < 1:
            raise EngineError(
                f"{server.url} serves {self.bank.base.name_or_path!r}: a context of {self.context_length} tokens has "
                f"no room for a prompt of {len(prompt)} and a reply. Start it with a longer one (--max-model-len, "
                "vllm_max_model_length), or take a model with a longer context"
            )
        request = Request(prompt, None, sampling, max_tokens=min(8, room), stop=(), seed=0)
        ask = partial(_Server.complete, request=request, version=None, ends=self._ends, seeded=True)
        try:
            tokens, logprobs = self._persist(ask, [server])
        except _RefusedError as error:
            raise self._other_model(server, f"refuses a request made for it: {error}") from error
        if max(tokens, default=0) >= (rows := self.bank.base.get_input_embeddings().weight.shape[0]):
            raise self._other_model(server, f"answered with token {max(tokens)}, where it has {rows} tokens here")
        with self.bank.using(None):
            ids = torch.tensor([[*prompt, *tokens]], device=self.bank.base.device)
            logits = self.bank.base(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        mine = (logits.float() / sampling.temperature).log_softmax(-1).cpu()
        differ = (mine[torch.arange(len(tokens)), torch.tensor(tokens)] - torch.tensor(logprobs)).abs().mean().item()
        if not differ < TOLERANCE:
            raise self._other_model(server, f"says other log-probabilities than here, by {differ:.2f} nats a token")

    def _other_model(self, server: "_Server", sign: str) -> EngineError:
        return EngineError(
            f"{server.url} was asked for {self.bank.base.name_or_path!r} and {sign}. It serves another model or "
            f"revision, or was started without --logprobs-mode {LOGPROBS}. Start it with `llm-sra serve --config "
            "RECIPE`; where seats have different models, each seat's server is the one that was started with its --seat"
        )


class _Server:
    """One server: its connections, and which adapters it has."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        key = os.environ.get(KEY_VARIABLE)
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=False,
        )
        self._base = ""
        self._first: tuple[str, int] | None = None  # the model and its context, as they were first
        self._loading = threading.Lock()
        self._generation = 0  # grows with every load, so that threads that saw the same lack load once

    def describe(self) -> int:
        """Ask for the base model's name and its context, in tokens.

        Raises:
            EngineError: If it was started again meanwhile, with another model or a shorter context.
        """
        said: Any = "404"
        try:
            said = self._ask("GET", "/v1/models")
            base = next(model for model in said["data"] if not model.get("parent"))
            model, length, name = str(base.get("root")), int(base["max_model_len"]), base["id"]
        except (_UnknownModelError, StopIteration, KeyError, TypeError, AttributeError) as error:
            raise EngineError(
                f"{self.url} does not list a model as vLLM's server does; it says: {shortened(str(said))}"
            ) from error
        self._first = self._first or (model, length)
        if model != self._first[0] or length < self._first[1]:
            raise EngineError(
                f"{self.url} was started again as another server: it served {self._first[0]} with a context of "
                f"{self._first[1]} tokens, and now serves {model} with {length}. Start it as before; `--resume_from_"
                "checkpoint true` resumes from the last checkpoint"
            )
        self._base = name
        return length

    def complete(
        self, request: Request, version: Version | None, ends: Sequence[int], seeded: bool
    ) -> tuple[list[int], list[float]]:
        """Tokens and log-probabilities of one reply; an adapter that the server lacks is loaded first."""
        body = {
            "model": version.name if version else self._base,
            "prompt": list(request.prompt_ids),
            "return_token_ids": True,
            "min_p": 0.0,  # what is not said would be taken from the model's generation config
            "repetition_penalty": 1.0,
            **sampling_options(request, ends, seeded),
        }
        seen = self._generation
        try:
            choice = self._ask("POST", "/v1/completions", body)["choices"][0]
            tokens, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        except _UnknownModelError as error:
            if version is None:
                self.describe()  # it came back with another name for its base
            else:
                with self._loading:
                    if self._generation == seen:
                        self.load(version)
            raise _TryAgainError(str(error)) from error
        except (KeyError, IndexError, TypeError) as error:
            raise EngineError(
                f"{self.url} answered without token ids and log-probabilities ({type(error).__name__}: {error}): "
                "expected vLLM 0.22 or newer"
            ) from error
        return tokens, logprobs

    def load(self, version: Version) -> None:
        """Load a version of an adapter; nothing happens if it is there.

        Raises:
            AdapterError: If the server cannot use it.
            EngineError: If the server cannot load any, or was started again as another one.
        """
        self.describe()  # adapters of two models of one family fit either of them
        body = {"lora_name": version.name, "lora_path": str(version.folder)}
        try:
            self._ask("POST", "/v1/load_lora_adapter", body)
        except _UnknownModelError as error:
            raise EngineError(
                f"{self.url} cannot load adapter {version.name} from {version.folder}: {error}. It must have been "
                "started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora (`llm-sra serve` does both), and "
                "see that folder: set engine_adapter_dir to a folder that both machines share"
            ) from error
        except _RefusedError as error:
            if "already been loaded" not in str(error):
                raise
        except _TryAgainError as error:
            if "LoRA" in str(error):  # vLLM says 500 for an adapter that it cannot use, too
                raise AdapterError(f"{self.url} cannot use adapter {version.name}: {error}") from error
            raise
        self._generation += 1

    def unload(self, version: Version) -> None:
        """Unload a version; it does not matter whether the server still has it."""
        with suppress(EngineError, _TryAgainError, _UnknownModelError, httpx.TransportError):
            self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": version.name})

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        response = self._http.request(method, path, json=body)
        if response.is_success:
            try:
                return response.json()
            except ValueError:
                if response.text.startswith("Success"):  # how vLLM answers about adapters
                    return {}
                raise _TryAgainError(f"{self.url}{path} answered {shortened(response.text)!r}, not JSON") from None
        said = f"{response.status_code} from {self.url}{path}: {shortened(response.text)}"
        if response.status_code in BUSY:
            raise _TryAgainError(said)
        if response.status_code == 404:
            raise _UnknownModelError(said)
        if response.status_code in (401, 403):
            raise EngineError(f"{said}. Put the server's key into the environment variable {KEY_VARIABLE}")
        raise _RefusedError(said)
