"""A server that speaks OpenAI's chat completions by a rule, and fails on demand."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["_Handler"], None]
Rule = Callable[[dict[str, Any]], str]


class FakeEndpoint:
    """Serves at a free port of this machine.

    Args:
        rule: The reply to a request's body.
        faults: What the first requests meet, one each.
        key: That requests must bring.
        usage: Tokens that each reply is said to take; None: nothing is said.
        model: Name that answers bear; None: the asked one.
        seconds: That each reply takes.
    """

    def __init__(
        self,
        rule: Rule = lambda body: "hm",
        faults: Sequence[Fault] = (),
        *,
        key: str | None = None,
        usage: int | None = 10,
        model: str | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.rule, self.faults, self.key, self.usage, self.model = rule, list(faults), key, usage, model
        self.seconds = seconds
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.sent = 0  # bytes, of the last answer
        self.now = self.most = 0  # requests at a time
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        serve = {"poll_interval": 0.01}
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs=serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> "FakeEndpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeEndpoint
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(OSError):  # the other side hung up
            super().handle()

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.fake.paths.append(self.path)
        self.say(200, {})

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with fake.lock:
            fake.asked.append(body)
            fake.times.append(time.monotonic())
            fake.paths.append(self.path)
            fake.headers.append(dict(self.headers))
            fake.now += 1
            fake.most = max(fake.most, fake.now)
            fault = fake.faults.pop(0) if fake.faults else None
        try:
            if fault:
                return fault(self)
            if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
                return self.say(401, {"error": f"wrong key: {self.headers.get('Authorization')}"})
            if self.path != "/v1/chat/completions":
                return self.say(404, {"error": "no such address"})
            time.sleep(fake.seconds)
            self.say(200, answer(fake.rule(body), fake.model or body["model"], fake.usage))
        finally:
            with fake.lock:
                fake.now -= 1

    def say(self, code: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.fake.sent = 0
        for start in range(0, len(data), 1 << 14):
            self.wfile.write(data[start : start + (1 << 14)])
            self.fake.sent = start


def answer(text: str | None, model: str = "m", usage: int | None = 10) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counted = {} if usage is None else {"usage": {"total_tokens": usage}}
    return {"model": model, "choices": [choice], **counted}


def says(code: int, content: Any = None, **headers: str) -> Fault:
    """An answer with this status, content and headers."""
    return lambda handler: handler.say(
        code, {"error": "as the test wants it"} if content is None else content, **headers
    )


def hang(seconds: float) -> Fault:
    """Say nothing for so long, then hang up."""

    def fault(handler: _Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True
        handler.connection.close()

    return fault


def drip(seconds: float) -> Fault:
    """Send a byte now and then, for so long."""

    def fault(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b" ")
            time.sleep(0.05)
        handler.close_connection = True

    return fault


def drip_headers(seconds: float, interval: float = 0.05) -> Fault:
    """Begin the headers and send a byte of them now and then, for so long; then hang up."""

    def fault(handler: _Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        _repeat(handler, b"x", seconds, interval)

    return fault


def interim(seconds: float, interval: float = 0.05) -> Fault:
    """Send interim answers (103 Early Hints) now and then, for so long, and never the answer."""

    def fault(handler: _Handler) -> None:
        _repeat(handler, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", seconds, interval)

    return fault


def drip_status(seconds: float, interval: float = 0.05) -> Fault:
    """Send the first line a byte at a time: before there are any headers."""

    def fault(handler: _Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 ")
        _repeat(handler, b"O", seconds, interval)

    return fault


def _repeat(handler: _Handler, piece: bytes, seconds: float, interval: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        handler.wfile.write(piece)
        handler.wfile.flush()
        time.sleep(interval)
    handler.close_connection = True
