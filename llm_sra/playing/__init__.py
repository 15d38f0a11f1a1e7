"""Plays many episodes at once: each goes on as soon as its own replies are there, and waits for no other's.

Who answers how is `turns`' part; this module knows neither credit nor training. A task's code is called here alone,
by one thread, in the same order for an episode whatever is played beside it. No global random number is drawn: each
reply's seed is a hash of (run seed, step, problem, episode, match, seat, turn), so an episode does not depend on what
is played beside it, nor on who answers first.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llm_sra.engines.base import Engine
from llm_sra.playing.turns import ContextError, Pending, Turns, heard
from llm_sra.policies.base import EnginePolicy, Match, Policy
from llm_sra.policies.failures import FailedError
from llm_sra.protocol.rules import Rules, at
from llm_sra.task import Episode, Problem, Reply, Reward, Task, Turn

__all__ = ["ContextError", "EpisodeSpec", "play", "reply_seed"]


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
    said: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)


@dataclass
class _Running:
    """An episode in play.

    Attributes:
        acting: Whose replies its next step needs.
        spoken: Those of them that are there.
    """

    spec: EpisodeSpec
    start: Any
    state: Any
    seats: dict[str, _Seat]
    turns: list[Turn] = field(default_factory=list)
    rewards: list[Mapping[str, Reward]] = field(default_factory=list)
    acting: tuple[str, ...] = ()
    spoken: dict[str, Turn] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Problem and step, for an error."""
        return at(self.spec.problem, len(self.rewards))


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
    turns = Turns(task, engines, max_reply_tokens or task.max_reply_tokens, spare=on_lost is not None)
    table = _Table(rules, turns, {place: _start(rules, spec, seed, step) for place, spec in enumerate(specs)}, on_lost)
    ended: dict[int, Episode] = {}
    ready = list(table.running)
    try:
        while ready:
            pending: list[Pending] = []
            over: dict[int, Episode] = {}
            for place in ready:
                episode = table.running[place]
                episode.acting = rules.actors(episode.state, episode.where)
                pending += [_pending(rules, place, episode, seat, seed, step) for seat in episode.acting]
                if not episode.acting:
                    over[place] = _finish(rules, table.running.pop(place))
            if over and on_ended:
                on_ended(over)
            ended |= over
            turns.ask(pending)
            ready = table.listen()
            for place in ready:
                _advance(rules, table.running[place], seed, step, on_turn)
    finally:
        turns.close()
    return [ended[place] for place in sorted(ended)]


@dataclass
class _Table:
    """The episodes in play, by their place among the specs, and the turns that they wait for."""

    rules: Rules
    turns: Turns
    running: dict[int, _Running]
    on_lost: Callable[[Policy, Exception], None] | None

    def listen(self) -> list[int]:
        """Wait until an episode, or several, have all replies of their step; empty if none is in play."""
        ready: list[int] = []
        while answers := self.turns.answers():
            for waiting, turn in answers:
                if waiting.place not in self.running:  # given up a moment ago
                    continue
                if isinstance(turn, FailedError):
                    self._lose(turn)
                    continue
                spoken = self.running[waiting.place].spoken
                spoken[waiting.seat] = turn
                if len(spoken) == len(self.running[waiting.place].acting):
                    ready.append(waiting.place)
            if ready := sorted(place for place in ready if place in self.running):
                break
        return ready

    def _lose(self, failed: FailedError) -> None:
        """Give up the episodes of policies that do not answer."""
        if self.on_lost is None:
            raise failed.error from failed.error.__cause__
        for policy in failed.policies:
            self.on_lost(policy, failed.error)
        lost = [p for p, e in self.running.items() if any(q in failed.policies for q in e.spec.match.seats.values())]
        self.turns.give_up(lost)
        for place in lost:
            del self.running[place]


def reply_seed(seed: int, step: int, spec: EpisodeSpec, seat: str, turn: int) -> int:
    """Seed of one reply, in [0, 2**63)."""
    key = "\x1f".join(map(str, (seed, step, spec.problem.id, spec.index, spec.match.name, seat, turn)))
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _start(rules: Rules, spec: EpisodeSpec, seed: int, step: int) -> _Running:
    task = rules.task
    if missing := [seat for seat in task.seats if seat not in spec.match.seats]:
        raise KeyError(f"match {spec.match.name!r} leaves empty: {', '.join(missing)}")
    rng = random.Random(reply_seed(seed, step, spec, "", -1))
    start = rules.start(spec.problem, rng)
    return _Running(spec, start, start, {seat: _Seat() for seat in task.seats})


def _pending(rules: Rules, place: int, episode: _Running, seat: str, seed: int, step: int) -> Pending:
    policy, spec, own = episode.spec.match.seats[seat], episode.spec, episode.seats[seat]
    if isinstance(policy, EnginePolicy) and policy.fixed_seed is not None:
        spec = replace(spec, index=-policy.fixed_seed)  # no episode has such a number
    rules.end(seat, own.turns, episode.where)
    return Pending(
        place=place,
        problem=spec.problem,
        step=len(episode.rewards),
        seat=seat,
        policy=policy,
        view=rules.view(episode.state, seat, episode.where),
        said=tuple(own.said),
        start=episode.start,
        seed=reply_seed(seed, step, spec, seat, own.turns),
    )


def _advance(rules: Rules, episode: _Running, seed: int, step: int, on_turn: Callable[[Turn], None] | None) -> None:
    """Tell the task what was said, all at once, in the order in which it named the seats."""
    task, replies = rules.task, {seat: episode.spoken[seat].reply for seat in episode.acting}
    for seat, reply in replies.items():
        turn = episode.spoken.pop(seat)
        episode.turns.append(turn)
        episode.seats[seat].turns += 1
        episode.seats[seat].said.append((reply.text, reply.token_ids))
        if on_turn:
            on_turn(turn)
    rng = random.Random(reply_seed(seed, step, episode.spec, "", len(episode.rewards)))
    texts = {seat: heard(task, reply.text) for seat, reply in replies.items()}
    episode.state, rewards = rules.step(episode.state, texts, rng, episode.where)
    episode.rewards.append(_with_token_cost(task.cost_per_token, replies, rewards))


def _with_token_cost(cost: float, replies: Mapping[str, Reply], rewards: Mapping[str, Reward]) -> Mapping[str, Reward]:
    if not cost:
        return rewards
    paid = dict(rewards)
    for seat, reply in replies.items():
        reward = rewards.get(seat, Reward())
        paid[seat] = replace(reward, cost=reward.cost + cost * len(reply.token_ids))
    return paid


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
