"""A server that speaks vLLM's HTTP on the transformers engine, and fails on demand."""

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support import lora, make_bank

from llm_sra.engines.base import Request
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.adapters import AdapterError
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.task import Sampling

Fault = Callable[["_Handler"], None]


class FakeVllm:
    """Serves a model folder at a port of this machine.

    Args:
        folder: The model.
        port: 0 takes a free one.
        key: That requests must bring.
        updates: Whether adapters can be loaded, as VLLM_ALLOW_RUNTIME_LORA_UPDATING says.
        temperature_first: False gives log-probabilities as they are before the temperature (`raw_logprobs`).

    Attributes:
        root: The model that it says it serves.
        length: Its `--max-model-len`.
    """

    def __init__(
        self, folder: Path, port: int = 0, key: str | None = None, updates: bool = True, temperature_first: bool = True
    ) -> None:
        self.root = str(folder)
        self.bank = make_bank(folder, ("unused",), lora())
        self.engine = TransformersEngine(self.bank, Renderer(load_model(str(folder))[1]))
        self.length = self.engine.context_length
        self.key, self.updates, self.temperature_first = key, updates, temperature_first
        self.loaded: dict[str, str] = {}  # name in the bank, by the name it was loaded under
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[Fault] = []
        self.connections: list[socket.socket] = []
        self.lock = threading.Lock()
        self._number = 0
        self._start(port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def completions(self) -> list[dict[str, Any]]:
        """Bodies of all that was asked for."""
        return [body for path, body in self.asked if path == "/v1/completions"]

    def stop(self) -> None:
        """Die: connections are refused, adapters are forgotten."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def start_again(self) -> None:
        """Come back at the same port, with the base alone."""
        self.loaded.clear()
        self._start(self.port)

    def models(self) -> tuple[int, Any]:
        """Status and body of what it says it serves."""
        adapters = [{"id": name, "parent": "base"} for name in self.loaded]
        base = {"id": "base", "parent": None, "root": self.root, "max_model_len": self.length}
        return 200, {"data": [*adapters, base]}

    def load(self, name: str, path: str) -> None:
        self._number += 1
        self.bank.load(Path(path), f"served-{self._number}")
        self.loaded[name] = f"served-{self._number}"

    def _start(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeVllm
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.fake.connections.append(self.connection)

    def handle(self) -> None:
        with suppress(OSError):  # the other side, or `stop`, hung up
            super().handle()

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        with self.fake.lock:
            self.fake.asked.append((self.path, body))
            fault = self.fake.faults.pop(0) if self.fake.faults and self.path == "/v1/completions" else None
        if fault:
            return fault(self)
        if self.fake.key and self.headers.get("Authorization") != f"Bearer {self.fake.key}":
            return self.say(401, {"error": "Unauthorized"})
        with self.fake.lock:
            code, answer = self._do(body)
        self.say(code, answer)

    def _do(self, body: dict[str, Any]) -> tuple[int, Any]:
        fake = self.fake
        if self.path == "/v1/models":
            return fake.models()
        if self.path == "/v1/load_lora_adapter" and fake.updates:
            if body["lora_name"] in fake.loaded:
                return 400, {"error": f"The lora adapter '{body['lora_name']}' has already been loaded."}
            try:
                fake.load(body["lora_name"], body["lora_path"])
            except AdapterError as error:
                return 500, {"error": f"LoRA: {error}"}
            return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
        if self.path == "/v1/unload_lora_adapter" and fake.updates:
            known = fake.loaded.pop(body["lora_name"], None)
            return (200, "Success") if known else (404, {"error": "not found"})
        if self.path != "/v1/completions":
            return 404, {"detail": "Not Found"}
        if body["model"] not in ("base", *fake.loaded):
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if len(body["prompt"]) + body["max_tokens"] > fake.length:
            return 400, {"error": {"message": f"maximum context length is {fake.length} tokens"}}
        request = Request(
            tuple(body["prompt"]),
            fake.loaded.get(body["model"]),
            Sampling(body["temperature"], body["top_p"], max(body["top_k"], 0)),
            body["max_tokens"],
            (),
            body.get("seed", 0),
        )
        done = fake.engine.generate([request])[0]
        length = length_in_vllm(fake.engine.renderer, done.token_ids, body["stop"])
        ids, scale = list(done.token_ids[:length]), 1 if fake.temperature_first else body["temperature"]
        logprobs = [value * scale for value in done.logprobs[:length]]
        return 200, {"choices": [{"token_ids": ids, "logprobs": {"token_logprobs": logprobs}}]}

    def say(self, code: int, answer: Any) -> None:
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def length_in_vllm(renderer: Renderer, ids: Sequence[int], stop: Sequence[str]) -> int:
    """After how many tokens vLLM ends a reply: at the first stop string, wherever it is."""
    texts = ((length, renderer.decode(ids[:length])) for length in range(1, len(ids) + 1))
    return next((length for length, text in texts if any(string in text for string in stop)), len(ids))


def status(code: int) -> Fault:
    """An answer with this status."""
    return lambda handler: handler.say(code, {"error": "as the test wants it"})


def cut_off(handler: _Handler) -> None:
    """JSON that stops in the middle."""
    handler.say(200, '{"choices": [{"token_ids": [1, 2')


def no_choices(handler: _Handler) -> None:
    """An answer without a choice."""
    handler.say(200, {"choices": []})


def hang_up(handler: _Handler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.close()


def hang(seconds: float) -> Fault:
    """Say nothing for so long, then hang up."""

    def fault(handler: _Handler) -> None:
        time.sleep(seconds)
        hang_up(handler)

    return fault
