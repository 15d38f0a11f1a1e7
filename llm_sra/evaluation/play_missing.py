"""Plays the planned episodes that are not kept yet: in chunks that are kept as they end, shared by processes.

Who plays with whom, what an episode is kept under and how it is counted are decided elsewhere.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from llm_sra.engines import Engine
from llm_sra.episodes import EpisodeRecord
from llm_sra.evaluation.divergence import divergences
from llm_sra.evaluation.plan import Plan, why_unavailable
from llm_sra.evaluation.settings import Setting
from llm_sra.evaluation.store import Store
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Endpoint, EnginePolicy, Match, Policy, UnavailableError, innermost
from llm_sra.task import Episode

PATIENCE = timedelta(days=30)  # with which processes wait for the slowest
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


@dataclass(frozen=True)
class Played:
    """What there is once everything was played.

    Attributes:
        episodes: By key; those of unavailable partners may be missing.
        unavailable: By name, why a partner was not played, or not to the end.
    """

    episodes: Mapping[str, EpisodeRecord]
    unavailable: Mapping[str, str]


def play_missing(setting: Setting, plan: Plan, store: Store | None, processes: Processes) -> Played:
    """Read what the store holds of a plan, and play this process's share of the rest; waits for the other processes.

    Args:
        setting: Of all episodes.
        plan: What is wanted.
        store: Takes each chunk as it ends; None: nothing is kept.
        processes: That share the work.
    """
    episodes = store.read(plan.episodes) if store else {}
    unavailable = dict(plan.unavailable)
    processes.joined({})  # before one of them writes

    def measure(keys: Sequence[str], played: Sequence[Episode]) -> list[dict[str, float]]:
        compared = [plan.training_partners.get(key, {}) for key in keys]
        nats = divergences(setting.task, played, compared, setting.engines)
        return [{f"divergence/{seat}": value for seat, value in each.items()} for each in nats]

    def on_lost(policy: Policy, error: UnavailableError) -> None:
        for cell in (planned.pairing for planned in plan.with_partners):
            if policy in cell.match.seats.values() and cell.partner not in unavailable:
                unavailable[cell.partner] = why_unavailable(cell.partner, error)

    share = {key: spec for key, spec in plan.episodes.items() if processes.plays(key, spec)}
    todo = {key: spec for key, spec in share.items() if key not in episodes}
    of = f" (process 1 of {processes.count})" if processes.count > 1 else ""
    with tqdm(
        total=len(share),
        initial=len(share) - len(todo),
        desc=f"episodes{of}",
        unit=" episodes",
        disable=True if processes.rank else setting.disable_tqdm,
    ) as bar:
        for played, passed in play_specs(setting, todo, on_lost, measure):
            if store is not None:
                store.append(played)
            episodes |= played
            bar.update(passed)
    unavailable = processes.joined(unavailable)
    if store and processes.count > 1:
        episodes = store.read(plan.episodes)
    return Played(episodes, unavailable)


def play_specs(
    setting: Setting,
    specs: Mapping[str, EpisodeSpec],
    on_lost: Callable[[Policy, UnavailableError], None] | None = None,
    measure: Measure | None = None,
) -> Iterator[tuple[dict[str, EpisodeRecord], int]]:
    """Play episodes, a chunk at a time, all of it at once.

    Args:
        setting: Of all episodes.
        specs: What to play, by key.
        on_lost: Called for a partner that becomes unavailable; None raises the error.
        measure: Given the keys and episodes of a chunk, returns further numbers for each.

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
    for start in range(0, len(todo), setting.chunk):
        part = todo[start : start + setting.chunk]
        begun = [(key, spec) for key, spec in part if is_whole(spec)]
        episodes = play(
            setting.task,
            [spec for _, spec in begun],
            setting.engines,
            seed=setting.seed,
            max_reply_tokens=setting.max_reply_tokens,
            on_lost=None if on_lost is None else lose,
        )
        keys = [key for key, spec in begun if is_whole(spec)]
        more = measure(keys, episodes) if measure else [{}] * len(keys)
        yield (
            {
                key: EpisodeRecord.of(
                    episode, more_metrics=numbers, widths=_widths(specs[key].match, episode, setting.engines)
                )
                for key, episode, numbers in zip(keys, episodes, more, strict=True)
            },
            len(part),
        )


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
