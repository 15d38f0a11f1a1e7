"""Limits of a client: requests a minute, pauses that a server asks for, and a budget of tokens. Thread-safe."""

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Spaces requests evenly.

    Args:
        per_minute: Requests a minute, failed ones included; None: as fast as they come.
        wait: Sleeps for so many seconds.
    """

    def __init__(self, per_minute: float | None, wait: Callable[[float], object] = time.sleep) -> None:
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._wait = wait
        self._lock = threading.Lock()
        self._next = 0.0  # on the monotonic clock

    def take(self) -> None:
        """Wait for this request's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self._wait(turn - now)

    def hold(self, seconds: float) -> None:
        """Let no request begin for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class TokenBudget:
    """Counts tokens, and refuses a request that could exceed the limit.

    Args:
        limit: Prompts and replies together; None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._reserved = 0
        self.spent = 0

    def reserve(self, tokens: int) -> bool:
        """Set tokens aside for a request, waiting for requests on their way where these might leave room.

        Returns:
            False if there is no room for it and there will be none.
        """
        with self._changed:
            while self._limit is not None and self.spent + self._reserved + tokens > self._limit:
                if not self._reserved:
                    return False
                self._changed.wait()
            self._reserved += tokens
            return True

    def settle(self, reserved: int, used: int) -> None:
        """Count what a request has used, in place of what was set aside for it."""
        with self._changed:
            self._reserved -= reserved
            self.spent += used
            self._changed.notify_all()
