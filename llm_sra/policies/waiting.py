"""Who waits for which reply: futures by key, so that what several wait for is asked once. Thread-safe."""

import threading
from concurrent.futures import Future


class Waiting:
    """The replies that are on their way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[str, list[Future[str]]] = {}

    def add(self, key: str) -> tuple[Future[str], bool]:
        """A future of the reply, and whether it is the first one: then somebody has to ask."""
        future: Future[str] = Future()
        with self._lock:
            others = self._futures.setdefault(key, [])
            others.append(future)
            return future, len(others) == 1

    def over(self, key: str) -> bool:
        """Whether nobody waits for a reply any more; whoever comes later is the first one again."""
        with self._lock:
            over = all(future.cancelled() for future in self._futures[key])
            if over:
                del self._futures[key]
        return over

    def tell(self, key: str, reply: str | Exception) -> None:
        """Give those who wait the reply, or the reason why there is none."""
        with self._lock:
            futures = self._futures.pop(key, [])
        for future in futures:
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
