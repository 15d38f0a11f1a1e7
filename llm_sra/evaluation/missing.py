"""Plays the episodes that are wanted and not there yet: in chunks that are kept as they end, shared by processes.

Who plays with whom, what an episode is kept under and what comes of it are decided elsewhere.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from llm_sra.engines import Engine
from llm_sra.evaluation.store import EpisodeRecord, Store
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Endpoint, EnginePolicy, Match, Policy, UnavailableError, innermost
from llm_sra.task import Episode, Task

CHUNK = 1024  # episodes that are played at a time: full batches for an engine, minutes for a kill to lose
PATIENCE = timedelta(days=30)  # with which processes wait for the slowest
Key = TypeVar("Key")
Lost = Callable[[Policy, UnavailableError], None]
Measure = Callable[[Sequence[str], Sequence[Episode]], Sequence[Mapping[str, float]]]


class Processes:
    """The processes that `accelerate launch` started; one if it did not.

    Attributes:
        rank: Of this one.
        count: How many.
    """

    def __init__(self) -> None:
        self.rank, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1:
            state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
            self.rank, joined = state.process_index, state.num_processes
            if joined != self.count:
                raise RuntimeError(f"{self.count} processes were launched, but this one counts {joined}")

    def plays(self, key: str, spec: EpisodeSpec) -> bool:
        """Whether an episode is this process's: by its key alone, so that all agree, whatever each finds there.

        Hosted partners are the first process's: their limits and budgets hold for one client.
        """
        if any(isinstance(innermost(policy), Endpoint) for policy in spec.match.seats.values()):
            return self.rank == 0
        return int(key, 16) % self.count == self.rank

    def joined(self, mine: Mapping[str, str]) -> dict[str, str]:
        """Every process's mapping in one; waits for all of them."""
        everyone: list[Mapping[str, str]] = gather_object([dict(mine)]) if self.count > 1 else [mine]
        return {key: value for each in everyone for key, value in each.items()}


def fill(
    task: Task,
    wanted: Mapping[str, EpisodeSpec],
    kept: dict[str, EpisodeRecord],
    engines: Mapping[str, Engine],
    *,
    seed: int,
    max_reply_tokens: int | None,
    chunk: int,
    processes: Processes,
    on_lost: Lost,
    measure: Measure | None = None,
    store: Store | None = None,
    disable_tqdm: bool | None = None,
) -> None:
    """Play this process's share of what is wanted and not kept.

    Args:
        task: The rules.
        wanted: Tables by the keys of their episodes.
        kept: Episodes by key; those that are played join them.
        engines: By name.
        seed: Of every reply's chance.
        max_reply_tokens: Token limit of a reply; the task's own if None.
        chunk: Most episodes at a time.
        processes: That share the work.
        on_lost: Called for a partner that cannot be had any longer; its episodes are left out.
        measure: Given the keys and episodes of a chunk, says what else to count about each.
        store: Takes each chunk as it ends.
        disable_tqdm: Whether to do without the bar; None: where the output is not a terminal.
    """
    share = {key: spec for key, spec in wanted.items() if processes.plays(key, spec)}
    todo = {key: spec for key, spec in share.items() if key not in kept}
    of = f" (process 1 of {processes.count})" if processes.count > 1 else ""
    with tqdm(
        total=len(share),
        initial=len(share) - len(todo),
        desc=f"episodes{of}",
        unit=" episodes",
        disable=True if processes.rank else disable_tqdm,
    ) as bar:
        for played, passed in play_specs(task, todo, engines, seed, max_reply_tokens, chunk, on_lost, measure):
            if store is not None:
                store.append(played)
            kept.update(played)
            bar.update(passed)


def play_specs(
    task: Task,
    specs: Mapping[Key, EpisodeSpec],
    engines: Mapping[str, Engine],
    seed: int,
    max_reply_tokens: int | None = None,
    chunk: int = CHUNK,
    on_lost: Lost | None = None,
    measure: Callable[[Sequence[Key], Sequence[Episode]], Sequence[Mapping[str, float]]] | None = None,
) -> Iterator[tuple[dict[Key, EpisodeRecord], int]]:
    """Play episodes, a chunk at a time, all of it at once.

    Args:
        task: The rules.
        specs: What to play, by any key.
        engines: By name.
        seed: Of every reply's chance.
        max_reply_tokens: Token limit of a reply; the task's own if None.
        chunk: Most episodes at a time.
        on_lost: Called for a partner that is lost on the way; None raises the error.
        measure: Given the keys and episodes of a chunk, says what else to count about each.

    Yields:
        A chunk's episodes by key, and how many specs it had. Episodes of lost partners are left out.
    """
    lost: list[Policy] = []

    def lose(policy: Policy, error: UnavailableError) -> None:
        assert on_lost is not None
        lost.append(policy)
        on_lost(policy, error)

    def is_whole(spec: EpisodeSpec) -> bool:
        return not any(policy in lost for policy in spec.match.seats.values())

    todo = list(specs.items())
    options: dict[str, Any] = {"seed": seed, "max_reply_tokens": max_reply_tokens}
    for start in range(0, len(todo), chunk):
        part = todo[start : start + chunk]
        seated = [(key, spec) for key, spec in part if is_whole(spec)]
        episodes = play(
            task, [spec for _, spec in seated], engines, on_lost=None if on_lost is None else lose, **options
        )
        keys = [key for key, spec in seated if is_whole(spec)]
        more = measure(keys, episodes) if measure else [{}] * len(keys)
        played = {}
        for key, episode, numbers in zip(keys, episodes, more, strict=True):
            played[key] = EpisodeRecord.of(episode, numbers, _widths(specs[key].match, episode, engines))
        yield played, len(part)


def _widths(match: Match, episode: Episode, engines: Mapping[str, Engine]) -> list[tuple[int, ...]]:
    """Of each turn, the characters that each token added; empty for what was not sampled here."""
    made = []
    for turn in episode.turns:
        policy = innermost(match.seats[turn.seat])
        if isinstance(policy, EnginePolicy):
            made.append(engines[policy.engine].renderer.widths(turn.reply.token_ids, turn.reply.text))
        else:
            made.append(())
    return made
