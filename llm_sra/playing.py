"""Plays a batch of episodes in lock-step.

All seats' pending turns of all matches go to an engine as one batch, and so do those of a partner that answers many at
a time; other partners answer one by one. This module knows neither credit nor training. It draws no global random
number: each reply's seed is a hash of (run seed, step, problem, episode, match, seat, turn), so an episode does not
depend on what is played beside it.
"""

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm_sra.engines.base import Completion, Engine, EngineError, Request
from llm_sra.errors import NumberError
from llm_sra.policies.base import (
    BatchPolicy,
    EnginePolicy,
    Match,
    Policy,
    TextPolicy,
    Wrapper,
    speaker,
)
from llm_sra.policies.failures import FailedError, asking
from llm_sra.protocol.rules import Rules, at
from llm_sra.task import (
    Episode,
    Message,
    Problem,
    Reply,
    Reward,
    Task,
    Turn,
    without_thoughts,
)


class ContextError(ValueError):
    """What a seat sees of a problem, before anything is said, does not fit into its model's context."""


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode to be played.

    Attributes:
        problem: What is played.
        match: Who sits where.
        index: Number of the episode within its group.
    """

    problem: Problem
    match: Match
    index: int = 0


@dataclass
class _Seat:
    """What one seat of one episode said so far."""

    turns: int = 0
    own: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)


@dataclass(eq=False)  # each one is itself alone
class _Running:
    """An episode in play."""

    spec: EpisodeSpec
    start: Any
    state: Any
    seats: dict[str, _Seat]
    turns: list[Turn] = field(default_factory=list)
    rewards: list[Mapping[str, Reward]] = field(default_factory=list)

    @property
    def where(self) -> str:
        """Problem and step, for an error."""
        return at(self.spec.problem, len(self.rewards))


@dataclass(frozen=True)
class _Pending:
    """A turn that waits for its reply."""

    running: _Running
    seat: str
    policy: Policy
    view: tuple[Message, ...]
    seed: int


def play(
    task: Task,
    specs: Sequence[EpisodeSpec],
    engines: Mapping[str, Engine],
    *,
    seed: int,
    step: int = 0,
    max_reply_tokens: int | None = None,
    on_turn: Callable[[Turn], None] | None = None,
    on_lost: Callable[[Policy, Exception], None] | None = None,
    on_ended: Callable[[Mapping[int, Episode]], None] | None = None,
) -> list[Episode]:
    """Play every episode to its end.

    Args:
        task: The rules.
        specs: Problem, match and number within the group of each episode.
        engines: Engines by the names that the policies use.
        seed: Seed of the run.
        step: Distinguishes batches of the same run.
        max_reply_tokens: Token limit of a reply; the task's own if None.
        on_turn: Called after each turn, for showing episodes as they are played.
        on_lost: Called for a policy that does not answer, with what it raised; its episodes are given up, the others
            are played on. None raises the error.
        on_ended: Called with the episodes that have ended, by their place among the specs, as soon as they have.

    Returns:
        The episodes, in the order of the specs; those with a lost policy are left out.

    Raises:
        ContextError: If what a seat sees of a problem, before anything is said, does not fit into its model's
            context. Where it is the replies that do not fit, later turns are empty and end by `context`.
        KeyError: If a match leaves a seat empty or names an unknown engine.
        NumberError: If a model's log-probabilities are not finite.
        PolicyError: If a partner fails.
        TaskError: If the task raises, returns something else than the protocol says, or does not end.
    """
    rules = Rules(task)
    running = [_start(rules, spec, seed, step) for spec in specs]
    places = {episode: place for place, episode in enumerate(running)}
    ended: dict[int, Episode] = {}
    limit = max_reply_tokens or task.max_reply_tokens
    while True:
        acting = {episode: tuple(rules.actors(episode.state, episode.where)) for episode in running}
        over = {places[episode]: _finish(rules, episode) for episode, seats in acting.items() if not seats}
        if over and on_ended:
            on_ended(over)
        ended |= over
        running = [episode for episode, seats in acting.items() if seats]
        pending = [_pending(rules, episode, seat, seed, step) for episode in running for seat in acting[episode]]
        if not pending:
            return [ended[place] for place in sorted(ended)]
        try:
            turns = _answer(task, pending, engines, limit, spare=on_lost is not None)
        except FailedError as failed:
            if on_lost is None:
                raise failed.error from failed.error.__cause__
            for policy in failed.policies:
                on_lost(policy, failed.error)
            running = [e for e in running if not any(p in failed.policies for p in e.spec.match.seats.values())]
            continue
        by_episode: dict[_Running, dict[str, Reply]] = {}
        for waiting, turn in zip(pending, turns, strict=True):
            waiting.running.turns.append(turn)
            seat = waiting.running.seats[turn.seat]
            seat.turns += 1
            seat.own.append((turn.reply.text, turn.reply.token_ids))
            by_episode.setdefault(waiting.running, {})[turn.seat] = turn.reply
            if on_turn:
                on_turn(turn)
        for episode in running:
            if replies := by_episode.get(episode):
                rng = random.Random(reply_seed(seed, step, episode.spec, "", len(episode.rewards)))
                texts = {seat: heard(task, reply.text) for seat, reply in replies.items()}
                episode.state, rewards = rules.step(episode.state, texts, rng, episode.where)
                episode.rewards.append(_with_token_cost(task.cost_per_token, replies, rewards))


def reply_seed(seed: int, step: int, spec: EpisodeSpec, seat: str, turn: int) -> int:
    """Seed of one reply, in [0, 2**63)."""
    key = "\x1f".join(map(str, (seed, step, spec.problem.id, spec.index, spec.match.name, seat, turn)))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def heard(task: Task, text: str) -> str:
    """What the task is told of a reply: what its writer thought stays private, unless the task shows it."""
    return clean_text(text if task.show_thinking else without_thoughts(text), task.max_reply_chars)


def clean_text(text: str, limit: int) -> str:
    """Untrusted text as valid Unicode of at most `limit` characters."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")


def _with_token_cost(cost: float, replies: Mapping[str, Reply], rewards: Mapping[str, Reward]) -> Mapping[str, Reward]:
    if not cost:
        return rewards
    paid = dict(rewards)
    for seat, reply in replies.items():
        reward = rewards.get(seat, Reward())
        paid[seat] = replace(reward, cost=reward.cost + cost * len(reply.token_ids))
    return paid


def _start(rules: Rules, spec: EpisodeSpec, seed: int, step: int) -> _Running:
    task = rules.task
    if missing := [seat for seat in task.seats if seat not in spec.match.seats]:
        raise KeyError(f"match {spec.match.name!r} leaves empty: {', '.join(missing)}")
    rng = random.Random(reply_seed(seed, step, spec, "", -1))
    start = rules.start(spec.problem, rng)
    return _Running(spec, start, start, {seat: _Seat() for seat in task.seats})


def _pending(rules: Rules, episode: _Running, seat: str, seed: int, step: int) -> _Pending:
    policy, spec = episode.spec.match.seats[seat], episode.spec
    if isinstance(policy, EnginePolicy) and policy.fixed_seed is not None:
        spec = replace(spec, index=-policy.fixed_seed)  # no episode has such a number
    rules.end(seat, episode.seats[seat].turns, episode.where)
    return _Pending(
        running=episode,
        seat=seat,
        policy=policy,
        view=rules.view(episode.state, seat, episode.where),
        seed=reply_seed(seed, step, spec, seat, episode.seats[seat].turns),
    )


def _answer(
    task: Task, pending: Sequence[_Pending], engines: Mapping[str, Engine], limit: int, spare: bool
) -> list[Turn]:
    """Every pending turn's reply, in order; one batch per engine, and one per partner that takes batches.

    Args:
        task: The rules.
        pending: The turns.
        engines: By name.
        limit: Most tokens of a reply.
        spare: Whether to find out, where an engine fails, whose turns it fails on.

    Raises:
        FailedError: If a policy does not answer.
    """
    said: dict[int, tuple[tuple[int, ...], Reply]] = {}  # by position: what the engine was sent, and the reply
    batches: dict[str, list[tuple[int, Request]]] = {}
    speakers = [speaker(waiting.policy, waiting.seed) for waiting in pending]
    # Texts come first: where a partner is lost, no engine has worked for nothing.
    for i, text in _texts(pending, speakers).items():
        said[i] = (), Reply(text)
    for i, (waiting, policy) in enumerate(zip(pending, speakers, strict=True)):
        if not isinstance(policy, EnginePolicy):
            continue
        with asking(waiting.policy):
            prompt, room = _prompt(task, waiting, policy, engines)
            choices = engines[policy.engine].renderer.single_tokens(task.choices)
        if room < 1:
            said[i] = prompt, Reply("", finish="context")
            continue
        request = Request(
            prompt_ids=prompt,
            adapter=policy.adapter,
            sampling=policy.sampling,
            max_tokens=1 if choices else min(limit, room),
            stop=task.stop,
            seed=waiting.seed,
            choices=choices,
        )
        batches.setdefault(policy.engine, []).append((i, request))
    for name, batch in batches.items():
        asked = {i: request for i, request in batch}
        completions = _generate(engines[name], asked, pending, spare)
        for i, request in batch:
            done = completions[i]
            with asking(pending[i].policy):
                if not math.isfinite(sum(done.logprobs)):
                    raise _no_number(pending[i], request)
            # A choice is whole, and no part of a thought, whatever the prompt began.
            finish = "stop" if request.choices else done.finish
            text = engines[name].renderer.decode(done.token_ids) if request.choices else done.text
            said[i] = request.prompt_ids, Reply(text, done.token_ids, done.logprobs, finish)
    return [_turn(waiting, *said[i], task) for i, waiting in enumerate(pending)]


def _generate(
    engine: Engine, asked: Mapping[int, Request], pending: Sequence[_Pending], spare: bool
) -> dict[int, Completion]:
    """An engine's completions, by position; where it fails and others are to be spared, each policy's by itself."""
    try:
        return dict(zip(asked, engine.generate(list(asked.values())), strict=True))
    except Exception as error:
        if not spare or isinstance(error, EngineError):
            raise
    completions: dict[int, Completion] = {}
    for policy in dict.fromkeys(pending[i].policy for i in asked):
        own = {i: request for i, request in asked.items() if pending[i].policy == policy}
        with asking(policy):
            completions |= zip(own, engine.generate(list(own.values())), strict=True)
    return completions


def _no_number(waiting: _Pending, request: Request) -> NumberError:
    """The error for a reply whose log-probabilities are not finite."""
    whose = f"adapter {request.adapter!r} or its base model" if request.adapter else "the base model"
    return NumberError(
        f"the log-probabilities of policy {waiting.policy.name!r} in seat {waiting.seat!r} are not finite "
        f"{waiting.running.where}: the weights of {whose} hold NaN or infinity, or overflow in their dtype. Take an "
        "earlier checkpoint, or load the model in bfloat16 or float32"
    )


def _texts(pending: Sequence[_Pending], speakers: Sequence[EnginePolicy | TextPolicy]) -> dict[int, str]:
    """What the policies that speak text say, by position."""
    texts: dict[int, str] = {}
    batches: dict[BatchPolicy, list[int]] = {}
    for i, (waiting, policy) in enumerate(zip(pending, speakers, strict=True)):
        if isinstance(policy, BatchPolicy):
            batches.setdefault(policy, []).append(i)
        elif isinstance(policy, TextPolicy):
            with asking(waiting.policy):
                texts[i] = policy.reply(waiting.view, random.Random(waiting.seed))
    for policy, places in batches.items():
        with asking(*dict.fromkeys(pending[i].policy for i in places)):
            replies = policy.replies([(pending[i].view, random.Random(pending[i].seed)) for i in places])
            texts |= zip(places, replies, strict=True)
    return texts


def _prompt(
    task: Task, waiting: _Pending, policy: EnginePolicy, engines: Mapping[str, Engine]
) -> tuple[tuple[int, ...], int]:
    """The prompt of a turn, and how many tokens the reply may have."""
    if policy.engine not in engines:
        raise KeyError(f"policy {policy.name!r} wants engine {policy.engine!r}; there are: {', '.join(engines)}")
    engine = engines[policy.engine]
    said = waiting.running.seats[waiting.seat].own
    # A reply of which the task could see only a part (a stop string, a cut) is history as text, not as tokens.
    own = [(text, ids if engine.renderer.decode(ids) == text else ()) for text, ids in said]
    prompt = engine.renderer.render(waiting.view, own)
    room = engine.context_length - len(prompt)
    if room < 1 and not said:  # is it the problem that is too long, or what a partner wrote?
        opening = engine.renderer.render(task.view(waiting.running.start, waiting.seat))
        if len(opening) >= engine.context_length:
            raise ContextError(
                f"problem {waiting.running.spec.problem.id!r}: before anything is said seat {waiting.seat!r} sees "
                f"{len(opening)} tokens, but the context of policy {policy.name!r} holds {engine.context_length}. "
                "Leave out long problems (the task's length filter), or take a model with a longer context"
            )
    return prompt, room


def _turn(waiting: _Pending, prompt_ids: tuple[int, ...], reply: Reply, task: Task) -> Turn:
    reply = _cut(reply, task)
    if isinstance(waiting.policy, Wrapper):
        said = heard(task, reply.text)
        text = clean_text(waiting.policy.perturb(said, waiting.view, waiting.seed), task.max_reply_chars)
        if text != said:  # then nobody sampled it
            reply = Reply(text, finish=reply.finish)
    return Turn(
        seat=waiting.seat,
        policy=waiting.policy.name,
        step=len(waiting.running.rewards),
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


def _finish(rules: Rules, episode: _Running) -> Episode:
    nothing, seats = Reward(), rules.task.seats
    return Episode(
        problem=episode.spec.problem,
        match=episode.spec.match.name,
        index=episode.spec.index,
        policies={seat: policy.name for seat, policy in episode.spec.match.seats.items()},
        turns=tuple(episode.turns),
        rewards={seat: tuple(rewards.get(seat, nothing) for rewards in episode.rewards) for seat in seats},
        outcome=rules.outcome(episode.state, episode.where),
    )
