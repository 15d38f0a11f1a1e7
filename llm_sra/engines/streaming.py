"""Engines that give each reply as soon as it is there, and the adapter that makes one of any other engine.

Who waits for which reply is `turns`' part. Futures carry replies, and failures of single requests.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from llm_sra.engines.base import Completion, Engine, EngineError, Request
from llm_sra.models.adapters import AdapterError


@runtime_checkable
class Streaming(Protocol):
    """What an engine offers beside `generate` where no reply need wait for another."""

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Begin replies, beside those that were begun before.

        Returns:
            A future per request, in order. A request that fails has the error in its future, and harms no other; one
            whose future is cancelled is given up.

        Raises:
            EngineError: If the engine does not answer.
        """

    def step(self) -> bool:
        """Work on what was submitted for a moment, where that is done in the caller's thread.

        Returns:
            Whether it did; False: replies come by themselves, or there are none to come.

        Raises:
            EngineError: If the engine does not answer.
        """


def failures(bring: Callable[[str | None], None], requests: Sequence[Request]) -> dict[str | None, AdapterError]:
    """Bring the adapters that requests name; why those cannot be used that cannot, by their name."""
    broken: dict[str | None, AdapterError] = {}
    for adapter in dict.fromkeys(request.adapter for request in requests):
        try:
            bring(adapter)
        except AdapterError as error:
            broken[adapter] = error
    return broken


def failed(error: Exception) -> Future[Completion]:
    """A future of what failed already."""
    future: Future[Completion] = Future()
    future.set_exception(error)
    return future


class LockStep:
    """An engine without `submit`: what was submitted is generated at once, as one batch, by the next step.

    Args:
        engine: Has `generate`.
        spare: Whether to find out, where a batch fails, which requests it fails on.
    """

    def __init__(self, engine: Engine, spare: bool) -> None:
        self._engine, self._spare = engine, spare
        self._waiting: list[tuple[Request, Future[Completion]]] = []

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """See `Streaming.submit`."""
        futures: list[Future[Completion]] = [Future() for _ in requests]
        self._waiting += zip(requests, futures, strict=True)
        return futures

    def step(self) -> bool:
        """See `Streaming.step`; returns when all replies are there."""
        batch, self._waiting = [one for one in self._waiting if not one[1].cancelled()], []
        if not batch:
            return False
        try:
            self._generate(batch)
        except Exception as error:
            if not self._spare or isinstance(error, EngineError):
                raise
            self._generate_apart(batch)
        return True

    def _generate(self, batch: Sequence[tuple[Request, Future[Completion]]]) -> None:
        completions = self._engine.generate([request for request, _ in batch])
        for (_, future), done in zip(batch, completions, strict=True):
            future.set_result(done)

    def _generate_apart(self, batch: Sequence[tuple[Request, Future[Completion]]]) -> None:
        """Each adapter's requests by themselves, and of these each kind of sampling: what fails is theirs."""
        groups: dict[object, list[tuple[Request, Future[Completion]]]] = {}
        for request, future in batch:
            groups.setdefault((request.adapter, request.sampling), []).append((request, future))
        for group in groups.values():
            try:
                self._generate(group)
            except EngineError:
                raise
            except Exception as error:
                for _, future in group:
                    future.set_exception(error)
