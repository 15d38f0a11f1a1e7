"""Asks a server for chat completions: concurrently, with retries, within limits, and never twice for the same reply.

Answers are untrusted data: they are read up to a limit, redirects are not followed, and the key appears in no error, no
reply and no file.
"""

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx

from llm_sra.policies.base import UnavailableError
from llm_sra.policies.cut_thoughts import CutThoughts, respelt
from llm_sra.policies.deadline import Deadline, TooLateError
from llm_sra.policies.limits import RateLimit, TokenBudget
from llm_sra.policies.question import Question
from llm_sra.policies.reply_cache import ReplyCache
from llm_sra.policies.waiting import Waiting
from llm_sra.task import without_thoughts

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts
LONGEST_REQUESTED_PAUSE = 300.0  # seconds, by Retry-After
LONGEST_BODY = 1 << 20  # bytes of an answer that are read
LONGEST_REPLY = 100_000  # characters that are kept
BYTES_PER_TOKEN = 3  # where the server does not count; less than is usual, so that a budget is not overrun
SHORTEST_SECRET = 8  # characters; "EMPTY", which vLLM's users send, is an ordinary word
BUSY = (408, 409, 425, 429)  # worth another attempt, as is everything from 500 on
LOCAL = ("localhost", "127.0.0.1", "::1")


class _TryAgainError(Exception):
    """The request failed, and another attempt may succeed.

    Args:
        reason: What the server did.
        pause: Seconds that it asks to wait; None: it names none.
        generated: Whether it may have generated a reply, and count it.
    """

    def __init__(self, reason: str, pause: float | None = None, generated: bool = True) -> None:
        super().__init__(reason)
        self.pause, self.generated = pause, generated


@dataclass(frozen=True)
class _Answer:
    """What a server said.

    Attributes:
        text: The reply.
        tokens: That it used.
        ended: Whether it ended by itself or at a stop string; the protocol does not tell these apart.
    """

    text: str
    tokens: int
    ended: bool


class ChatClient:
    """Asks one server.

    A reply that says nothing but for thoughts, where stop strings were sent, is asked for again without them: servers
    end a reply at a line break that it begins with. What comes after a stop string is then the caller's to cut.

    Args:
        base_url: What comes before `/chat/completions`, such as `http://127.0.0.1:8000/v1`.
        key_env: Environment variable that holds the key; None: the server wants none.
        requests_per_minute: At most so many, retries included; None: as many as `concurrency` allows.
        concurrency: Requests on their way at a time.
        timeout: Seconds that an answer may take, headers and all.
        retries: Further attempts at each reply.
        token_budget: Tokens of prompts and replies that may be used up; cached replies use none. None: no limit.
        cache: File that keeps the replies; None: they are kept in memory.
        served_as: Name that the server's answers give the model, where it neither begins with the asked name nor ends
            with it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key_env: str | None = None,
        requests_per_minute: float | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        token_budget: int | None = None,
        cache: str | Path | None = None,
        served_as: str | None = None,
    ) -> None:
        self.url = base_url.rstrip("/")
        self._timeout, self._retries = timeout, retries
        self._served_as = served_as
        self._key_env, self._key = key_env, _key(key_env)
        self._cache = ReplyCache(cache)
        self._stopped = threading.Event()  # wakes those who wait
        self._gone: str | None = None  # why no more requests are sent
        self._rate = RateLimit(requests_per_minute, self._stopped.wait)
        self._budget = TokenBudget(token_budget)
        self._limit = token_budget
        self._waiting = Waiting()
        self._thoughts = CutThoughts(self.url)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="llm-sra-endpoint")
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        self._http = httpx.Client(
            timeout=timeout,
            headers=headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            follow_redirects=False,
            trust_env=httpx.URL(self.url).host not in LOCAL,  # a proxy serves the way out
        )
        self._deadline = Deadline(self._http)

    @property
    def spent(self) -> int:
        """Tokens used up so far."""
        return self._budget.spent

    def submit(self, questions: Sequence[Question]) -> list[Future[str]]:
        """Begin to ask. Equal questions are asked once; each reply is in the cache as soon as it is there.

        Returns:
            A future per question, in order. It holds an UnavailableError if the reply cannot be had: no more are asked
            then, and never again by this client. A question whose futures are all cancelled is not asked again.
        """
        futures: list[Future[str]] = []
        for question in questions:
            key = question.key(self.url)
            future, first = self._waiting.add(key)
            if first:
                self._pool.submit(self._answer, key, question)
            futures.append(future)
        return futures

    def close(self) -> None:
        """Close the connections."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()
        self._cache.close()

    def _answer(self, key: str, question: Question) -> None:
        """Ask, unless the reply is known, and tell all who wait for it."""
        try:
            if key in self._cache or self._persist(key, question):
                self._waiting.tell(key, self._cache[key])
        except Exception as error:
            self._waiting.tell(key, error)

    def _persist(self, key: str, question: Question) -> bool:
        """Ask until there is a reply, and keep it; False if nobody waits for it any more."""
        answer, used = self._ask(key, question), 0
        if answer and question.stop and answer.ended and not without_thoughts(respelt(answer.text)).strip():
            used, answer = answer.tokens, self._ask(key, replace(question, stop=()))
        if not answer:
            return False
        try:
            self._cache.put(key, answer.text, model=question.model, tokens=used + answer.tokens)
        except OSError as error:
            self._give_up(f"cannot keep its replies: {error}")
        return True

    def _ask(self, key: str, question: Question) -> _Answer | None:
        """Ask until there is an answer; None if nobody waits for it any more."""
        if self._key_env and not self._key:
            self._give_up(f"the environment variable {self._key_env}, which should hold the key, is not set")
        body = question.body()
        most = len(body) // BYTES_PER_TOKEN + question.max_tokens
        for attempt in range(self._retries + 1):
            if self._waiting.over(key):
                return None
            if self._gone:
                raise UnavailableError(self._gone)
            if not self._budget.reserve(most):
                self._give_up(
                    f"the budget of {self._limit} tokens is spent: {self.spent} were used, and the next reply may take "
                    f"{most}. Raise token_budget; replies in a cache are not asked for again"
                )
            used = 0
            try:
                self._rate.take()
                if self._stopped.is_set():
                    raise UnavailableError(self._gone or f"{self.url}: stopped")
                used = most
                answer = self._post(question, body)
                used = answer.tokens
                return answer
            except _TryAgainError as error:
                used = most if error.generated else 0
                if attempt == self._retries:
                    self._give_up(f"{error} ({attempt + 1} attempts)")
                self._pause(error, attempt)
            finally:
                self._budget.settle(most, used)
        raise AssertionError("the last attempt ends the loop")

    def _pause(self, error: _TryAgainError, attempt: int) -> None:
        if error.pause is None:
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
            self._stopped.wait(pause * random.Random().uniform(0.5, 1.0))
        elif error.pause > LONGEST_REQUESTED_PAUSE:
            self._give_up(f"{error}: it asks to wait {error.pause:.0f} s")
        else:
            self._rate.hold(error.pause)  # for all requests: the server is busy with any of them

    def _post(self, question: Question, body: bytes) -> _Answer:
        """One attempt."""
        late = time.monotonic() + self._timeout
        try:
            with (
                self._deadline.within(self._timeout),
                self._http.stream("POST", f"{self.url}/chat/completions", content=body) as response,
            ):
                content = self._read(response)
        except TooLateError:
            raise self._too_late() from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _TryAgainError(f"no connection to {self.url}: {error}", generated=False) from None
        except httpx.TransportError as error:
            if isinstance(error, httpx.TimeoutException) and time.monotonic() >= late:
                raise self._too_late() from None
            raise _TryAgainError(f"{self.url} broke off: {type(error).__name__}: {error}") from None
        if response.status_code != 200:
            self._refused(response, content)
        return self._understood(question, body, content)

    def _too_late(self) -> _TryAgainError:
        return _TryAgainError(f"{self.url} took more than {self._timeout:g} s for an answer")

    def _read(self, response: httpx.Response) -> bytes:
        """The body, as far as it is worth reading."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            self._give_up(f"{self.url} compresses its answers although it was asked not to")
        parts, size = [], 0
        for part in response.iter_raw():
            size += len(part)
            parts.append(part)
            if size > LONGEST_BODY:
                raise _TryAgainError(f"{self.url} answered with more than {LONGEST_BODY} bytes")
        return b"".join(parts)

    def _refused(self, response: httpx.Response, content: bytes) -> NoReturn:
        code = response.status_code
        said = f"{code} from {self.url}/chat/completions: {self._short(content.decode('utf-8', 'replace'))}"
        if code in BUSY or code >= 500:
            raise _TryAgainError(said, _retry_after(response.headers.get("Retry-After")), generated=False)
        if response.is_redirect:
            self._give_up(f"{code} from {self.url}: it redirects, which is not followed. Give the final base_url")
        if code in (401, 403):
            where = f"the environment variable {self._key_env}" if self._key_env else "an environment variable, key_env"
            self._give_up(f"{said}. The server's key belongs into {where}")
        if code == 404:
            self._give_up(f"{said}. Either it has no such model, or base_url lacks its last part, often /v1")
        self._give_up(said)

    def _understood(self, question: Question, body: bytes, content: bytes) -> _Answer:
        try:
            answer = json.loads(content)
            choice = answer["choices"][0]
            text = _said(choice["message"])
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            said = self._short(content[:2000].decode("utf-8", "replace"))
            raise _TryAgainError(
                f"{self.url} answered without a reply ({type(error).__name__}: {error}): {said!r}"
            ) from None
        name = answer.get("model")
        if isinstance(name, str) and name and not self._is(name, question.model):
            self._give_up(
                f"{self.url} answered as the model {self._short(name)!r}, asked for {question.model!r}. If that is "
                "another name of it, give it as served_as"
            )
        usage = answer.get("usage")
        used = usage.get("total_tokens") if isinstance(usage, dict) else None
        text = self._redacted(text)[:LONGEST_REPLY]
        self._thoughts.saw(question.model, text, choice.get("finish_reason") == "length")
        if type(used) is not int or used < 0:
            used = (len(body) + len(text.encode("utf-8", "replace"))) // BYTES_PER_TOKEN
        return _Answer(text, used, choice.get("finish_reason") == "stop")

    def _is(self, name: str, asked: str) -> bool:
        """Whether an answer's model is the one asked for: `gpt-x-2026-01-01` for `gpt-x`, `llama` for `meta/llama`."""
        if self._served_as is not None:
            return name == self._served_as
        name, asked = name.lower(), asked.lower()
        return name.startswith(asked) or name.endswith(f"/{asked}") or asked.endswith(f"/{name}")

    def _give_up(self, reason: str) -> NoReturn:
        """Raises, now and at every later request."""
        self._gone = self._gone or self._redacted(reason)
        self._stopped.set()
        raise UnavailableError(self._gone)

    def _short(self, text: str) -> str:
        text = "".join(c if c.isprintable() else " " for c in self._redacted(text))
        return text if len(text) <= 300 else f"{text[:300]}..."

    def _redacted(self, text: str) -> str:
        secret = self._key and len(self._key) >= SHORTEST_SECRET
        return text.replace(self._key, "[key]") if self._key and secret else text


def _said(message: Any) -> str:
    """The words of a message: text, or parts of which some are; none where a model refused, or thought until its limit.

    Some servers then repeat the thought as the words.

    Raises:
        TypeError: If they are something else.
    """
    content = message["content"]
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    if not isinstance(content, str | None):
        raise TypeError(f"content is {type(content).__name__}")
    thoughts = (message.get(key) for key in ("reasoning_content", "reasoning"))
    said = content or ""
    return "" if any(isinstance(one, str) and one.strip() == said.strip() for one in thoughts) else said


def _key(variable: str | None) -> str | None:
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key.isascii() or any(not c.isprintable() or c == " " for c in key):
        raise UnavailableError(f"the environment variable {variable} holds characters that no key has")
    return key or None


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number of them or a date; None if it is neither."""
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds == seconds else None
