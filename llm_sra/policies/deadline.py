"""A deadline for a whole exchange with a server: connecting, the request, the headers and the body together.

httpx limits each read alone, so a server that sends a byte of its headers now and then, or interim answers without
end, would hold a request for as long as it likes. What is asked, and what becomes of a request that is too late, is
`chat_client`'s part.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

PIECE = 1 << 14  # bytes that are sent at a time, so that a server that takes them slowly is noticed


class TooLateError(Exception):
    """The deadline has passed."""


class Deadline:
    """Limits the exchanges of a client, each in the thread that makes it.

    Args:
        client: Its connections are watched from now on.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._of_thread = threading.local()
        # httpx has no public way to give its connections another backend and keep the environment's proxies.
        for transport in (client._transport, *client._mounts.values()):
            pool: Any = getattr(transport, "_pool", None)
            if transport is not None:
                pool._network_backend = _Backend(pool._network_backend, self)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Inside the block, this thread's exchanges end within so many seconds.

        Raises:
            TooLateError: From the client, if they do not.
        """
        self._of_thread.end = time.monotonic() + seconds
        try:
            yield
        finally:
            del self._of_thread.end

    def left(self, timeout: float | None) -> float | None:
        """Seconds that a step may take; as it is outside `within`.

        Raises:
            TooLateError: If there are none.
        """
        end = getattr(self._of_thread, "end", None)
        if end is None:
            return timeout
        left: float = end - time.monotonic()
        if left <= 0:
            raise TooLateError
        return left if timeout is None else min(timeout, left)


class _Backend:
    """Opens connections that keep to a deadline."""

    def __init__(self, inner: Any, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def connect_tcp(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> "_Stream":
        timeout = self._deadline.left(timeout)
        return _Stream(self._inner.connect_tcp(*args, timeout=timeout, **kwargs), self._deadline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Stream:
    """A connection that keeps to a deadline."""

    def __init__(self, inner: Any, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        content: bytes = self._inner.read(max_bytes, timeout=self._deadline.left(timeout))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE):
            self._inner.write(buffer[start : start + PIECE], timeout=self._deadline.left(timeout))

    def start_tls(self, ssl_context: Any, server_hostname: Any = None, timeout: float | None = None) -> "_Stream":
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, self._deadline.left(timeout)), self._deadline
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
