"""Asks the policies whose turn it is, and gives each turn as soon as its reply is there.

Scripts answer at once; servers and engines answer while others are asked. This module plays nothing: it does not know
what a turn does to an episode.
"""

import math
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from llm_sra.engines.base import Completion, Engine, EngineError, Request
from llm_sra.engines.streaming import LockStep, Streaming
from llm_sra.errors import NumberError
from llm_sra.policies.base import (
    BatchPolicy,
    EnginePolicy,
    Place,
    PlacedPolicy,
    Policy,
    TextPolicy,
    Wrapper,
    speaker,
)
from llm_sra.policies.failures import FailedError, asking
from llm_sra.protocol.rules import at
from llm_sra.task import Message, Problem, Reply, Task, Turn, without_thoughts


class ContextError(ValueError):
    """What a seat sees of a problem, before anything is said, does not fit into its model's context."""


@dataclass(frozen=True, eq=False)  # each one is itself alone
class Pending:
    """A turn that waits for its reply.

    Attributes:
        place: Of its episode among those that are played.
        problem: What is played.
        step: Number of the turn's step in the episode.
        seat: Who speaks.
        policy: Who has the seat.
        view: What the seat sees.
        said: Text and sampled tokens of its replies so far.
        start: The episode's first state.
        seed: Of the reply.
    """

    place: int
    problem: Problem
    step: int
    seat: str
    policy: Policy
    view: tuple[Message, ...]
    said: tuple[tuple[str, tuple[int, ...]], ...]
    start: Any
    seed: int

    @property
    def where(self) -> str:
        """Problem and step, for an error."""
        return at(self.problem, self.step)


Answer = tuple[Pending, Turn | FailedError]


@dataclass(frozen=True)
class _Asked:
    """What a future is the reply to: a partner's text, or tokens after a prompt."""

    waiting: Pending
    engine: str | None = None
    request: Request | None = None


class Turns:
    """The turns of a play.

    Engines that generate whole batches are asked when no other reply is to come: their batches, and with them their
    numbers, then do not depend on how quickly others answer.

    Args:
        task: The rules.
        engines: By name.
        limit: Most tokens of a reply.
        spare: Whether to find out, where an engine fails, whose turns it fails on.
    """

    def __init__(self, task: Task, engines: Mapping[str, Engine], limit: int, spare: bool) -> None:
        self._task, self._engines, self._limit = task, engines, limit
        self._streams: dict[str, Streaming] = {
            name: engine if isinstance(engine, Streaming) else LockStep(engine, spare)
            for name, engine in engines.items()
        }
        self._answered: list[Answer] = []
        self._asked: dict[Future[Any], _Asked] = {}
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()

    def ask(self, pending: Sequence[Pending]) -> None:
        """Ask for these turns. What a policy raises is its answer.

        Raises:
            EngineError: If an engine does not answer.
        """
        speakers = [speaker(waiting.policy, waiting.seed) for waiting in pending]
        self._ask_for_texts(pending, speakers)
        requests: dict[str, list[tuple[Pending, Request]]] = {}
        for waiting, policy in zip(pending, speakers, strict=True):
            if not isinstance(policy, EnginePolicy):
                continue
            try:
                with asking(waiting.policy):
                    request = self._request(waiting, policy)
            except FailedError as failed:
                self._answered.append((waiting, failed))
                continue
            if request.max_tokens < 1:
                self._say(waiting, Reply("", finish="context"), request.prompt_ids)
            else:
                requests.setdefault(policy.engine, []).append((waiting, request))
        for name, batch in requests.items():
            futures = self._streams[name].submit([request for _, request in batch])
            for future, (waiting, request) in zip(futures, batch, strict=True):
                self._expect(future, _Asked(waiting, name, request))

    def answers(self) -> list[Answer]:
        """Wait until a turn that was asked for has its reply, or the policy has failed.

        Returns:
            All that have by then; empty if nothing is to come.

        Raises:
            EngineError: If an engine does not answer.
        """
        while not self._answered and self._asked:
            self._receive()
        answered, self._answered = self._answered, []
        return answered

    def give_up(self, places: Sequence[int]) -> None:
        """Want no more turns of these episodes."""
        for future, asked in list(self._asked.items()):
            if asked.waiting.place in places:
                del self._asked[future]
                future.cancel()
        self._answered = [(waiting, turn) for waiting, turn in self._answered if waiting.place not in places]

    def close(self) -> None:
        """Want no more turns."""
        while self._asked:
            self._asked.popitem()[0].cancel()

    def _expect(self, future: Future[Any], asked: _Asked) -> None:
        self._asked[future] = asked
        future.add_done_callback(self._done.put)  # from whichever thread it is done in

    def _receive(self) -> None:
        """Let the engines that run in this thread work for a moment, and take in what has come; or wait for it."""
        if self._done.empty() and not self._work():
            self._understand(self._done.get())
        while not self._done.empty():
            self._understand(self._done.get())

    def _work(self) -> bool:
        """Whether an engine of this thread has worked; those that want whole batches go last."""
        engines = {asked.engine for asked in self._asked.values()}
        streams = [self._streams[name] for name in self._engines if name in engines]
        early = [stream for stream in streams if not isinstance(stream, LockStep)]
        if early or None in engines:
            return any([stream.step() for stream in early])
        return any([stream.step() for stream in streams])

    def _understand(self, future: Future[Any]) -> None:
        """Turn what a future holds into an answer; one that was given up holds none."""
        asked = self._asked.pop(future, None)
        if asked is None or future.cancelled():
            return
        waiting, request = asked.waiting, asked.request
        try:
            with asking(waiting.policy):
                said = future.result()
                reply = Reply(said) if request is None else self._sampled(asked, request, said)
        except FailedError as failed:
            if isinstance(failed.error, EngineError):  # nobody's fault
                raise failed.error from failed.error.__cause__
            self._answered.append((waiting, failed))
            return
        self._say(waiting, reply, () if request is None else request.prompt_ids)

    def _sampled(self, asked: _Asked, request: Request, done: Completion) -> Reply:
        """The reply that an engine's completion is."""
        if not math.isfinite(sum(done.logprobs)):
            raise _no_number(asked.waiting, request)
        # A choice is whole, and no part of a thought, whatever the prompt began.
        finish = "stop" if request.choices else done.finish
        text = self._engines[str(asked.engine)].renderer.decode(done.token_ids) if request.choices else done.text
        return Reply(text, done.token_ids, done.logprobs, finish)

    def _say(self, waiting: Pending, reply: Reply, prompt_ids: tuple[int, ...] = ()) -> None:
        self._answered.append((waiting, _turn(waiting, prompt_ids, reply, self._task)))

    def _ask_for_texts(self, pending: Sequence[Pending], speakers: Sequence[EnginePolicy | TextPolicy]) -> None:
        """Ask the policies that speak text: those that take many turns at a time first, the others at once."""
        batches: dict[BatchPolicy, list[Pending]] = {}
        for waiting, policy in zip(pending, speakers, strict=True):
            if isinstance(policy, BatchPolicy):
                batches.setdefault(policy, []).append(waiting)
        for policy, batch in batches.items():
            try:
                with asking(*dict.fromkeys(waiting.policy for waiting in batch)):
                    turns = [(waiting.view, random.Random(waiting.seed)) for waiting in batch]
                    futures = policy.submit(turns)
            except FailedError as failed:
                self._answered += [(waiting, failed) for waiting in batch]
                continue
            for future, waiting in zip(futures, batch, strict=True):
                self._expect(future, _Asked(waiting))
        for waiting, policy in zip(pending, speakers, strict=True):
            if isinstance(policy, TextPolicy) and not isinstance(policy, BatchPolicy):
                try:
                    with asking(waiting.policy):
                        text = _text(policy, waiting)
                except FailedError as failed:
                    self._answered.append((waiting, failed))
                else:
                    self._say(waiting, Reply(text))

    def _request(self, waiting: Pending, policy: EnginePolicy) -> Request:
        """What an engine is asked for; no tokens, where the context has no room for a reply."""
        if policy.engine not in self._engines:
            raise KeyError(
                f"policy {policy.name!r} wants engine {policy.engine!r}; there are: {', '.join(self._engines)}"
            )
        engine = self._engines[policy.engine]
        prompt = _prompt(self._task, waiting, policy, engine)
        room = max(engine.context_length - len(prompt), 0)
        choices = engine.renderer.single_tokens(self._task.choices_of(waiting.seat))
        return Request(
            prompt_ids=prompt,
            adapter=policy.adapter,
            sampling=policy.sampling,
            max_tokens=min(1 if choices else self._limit, room),
            stop=self._task.stop,
            seed=waiting.seed,
            choices=choices,
            repeats=policy.fixed_seed is not None,
        )


def _text(policy: TextPolicy, waiting: Pending) -> str:
    rng = random.Random(waiting.seed)
    if isinstance(policy, PlacedPolicy):
        place = Place(waiting.problem.id, waiting.seat, len(waiting.said))
        return policy.reply_at(place, waiting.view, rng)
    return policy.reply(waiting.view, rng)


def heard(task: Task, text: str) -> str:
    """What the task is told of a reply: what its writer thought stays private, unless the task shows it."""
    return clean_text(text if task.show_thinking else without_thoughts(text), task.max_reply_chars)


def clean_text(text: str, limit: int) -> str:
    """Untrusted text as valid Unicode of at most `limit` characters."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")


def _no_number(waiting: Pending, request: Request) -> NumberError:
    """The error for a reply whose log-probabilities are not finite."""
    whose = f"adapter {request.adapter!r} or its base model" if request.adapter else "the base model"
    return NumberError(
        f"the log-probabilities of policy {waiting.policy.name!r} in seat {waiting.seat!r} are not finite "
        f"{waiting.where}: the weights of {whose} hold NaN or infinity, or overflow in their dtype. Take an "
        "earlier checkpoint, or load the model in bfloat16 or float32"
    )


def _prompt(task: Task, waiting: Pending, policy: EnginePolicy, engine: Engine) -> tuple[int, ...]:
    """The prompt of a turn.

    Raises:
        ContextError: If the problem alone leaves no room for a reply.
    """
    # A reply of which the task could see only a part (a stop string, a cut) is history as text, not as tokens.
    own = [(text, ids if engine.renderer.decode(ids) == text else ()) for text, ids in waiting.said]
    prompt = engine.renderer.render(waiting.view, own)
    if len(prompt) >= engine.context_length and not own:  # is it the problem that is too long, or what a partner wrote?
        opening = engine.renderer.render(task.view(waiting.start, waiting.seat))
        if len(opening) >= engine.context_length:
            raise ContextError(
                f"problem {waiting.problem.id!r}: before anything is said seat {waiting.seat!r} sees "
                f"{len(opening)} tokens, but the context of policy {policy.name!r} holds {engine.context_length}. "
                "Leave out long problems (the task's length filter), or take a model with a longer context; with vLLM "
                "neither vllm_max_model_length nor the --max-model-len of a server may be less"
            )
    return prompt


def _turn(waiting: Pending, prompt_ids: tuple[int, ...], reply: Reply, task: Task) -> Turn:
    reply = _cut(reply, task)
    if isinstance(waiting.policy, Wrapper):
        said = heard(task, reply.text)
        text = clean_text(waiting.policy.perturb(said, waiting.view, waiting.seed), task.max_reply_chars)
        if text != said:  # then nobody sampled it
            reply = Reply(text, finish=reply.finish)
    return Turn(
        seat=waiting.seat,
        policy=waiting.policy.name,
        step=waiting.step,
        view=waiting.view,
        prompt_ids=prompt_ids,
        reply=reply,
    )


def _cut(reply: Reply, task: Task) -> Reply:
    """A reply within the task's limit, which is for what the task is told: generated thoughts may be longer."""
    limit = task.max_reply_chars
    said = reply.text if task.show_thinking else without_thoughts(reply.text)
    whole = len(reply.text) <= limit or (len(said) <= limit and reply.token_ids)
    text = clean_text(reply.text, len(reply.text)) if whole else clean_text(said, limit)
    finish = "length" if len(said) > limit else reply.finish
    return Reply(text, reply.token_ids, reply.logprobs, finish)
