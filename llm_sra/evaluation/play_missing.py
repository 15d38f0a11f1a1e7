"""Plays the planned episodes that are not kept yet: each is kept as it ends, and processes share them.

Who plays with whom, what an episode is kept under and how it is counted are decided elsewhere.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from llm_sra.engines import Engine
from llm_sra.episodes import EpisodeRecord
from llm_sra.evaluation.divergence import divergences
from llm_sra.evaluation.plan import Plan, why_unavailable
from llm_sra.evaluation.progress import Progress
from llm_sra.evaluation.settings import Setting
from llm_sra.evaluation.store import Store
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Endpoint, EnginePolicy, Match, Policy, innermost
from llm_sra.task import Episode

PATIENCE = timedelta(days=30)  # how long processes wait for the slowest
FIRST_CHUNK = 8  # episodes that an evaluation plays first
QUICK = 30.0  # seconds; after a chunk that took less the next is twice as large
PAYS = 1.5  # a gain in episodes a second by this factor is worth a larger chunk, however long that takes
Measure = Callable[[Sequence[str], Sequence[Episode]], Sequence[Mapping[str, float]]]


class Processes:
    """The processes that `accelerate launch` started; one if it did not.

    Attributes:
        rank: Rank of this process.
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
        setting: Setting of all episodes.
        plan: What is wanted.
        store: Takes each episode as it ends; None: nothing is kept.
        processes: That share the work.
    """
    episodes = store.read(plan.episodes) if store else {}
    unavailable = dict(plan.unavailable)
    processes.joined({})  # before one of them writes

    def measure(keys: Sequence[str], played: Sequence[Episode]) -> list[dict[str, float]]:
        compared = [plan.training_partners.get(key, {}) for key in keys]
        nats = divergences(setting.task, played, compared, setting.engines)
        return [{f"divergence/{seat}": value for seat, value in each.items()} for each in nats]

    share = {key: spec for key, spec in plan.episodes.items() if processes.plays(key, spec)}
    todo = {key: spec for key, spec in share.items() if key not in episodes}
    of = f" (process 1 of {processes.count})" if processes.count > 1 else ""
    disable = True if processes.rank else setting.disable_tqdm
    with Progress(len(share), len(share) - len(todo), f"episodes{of}", disable) as progress:
        lost: list[Policy] = []

        def on_lost(policy: Policy, error: Exception) -> None:
            names = plan.partners_of(policy)
            if not names:
                raise error  # an agent's own
            lost.append(policy)
            for name in names:
                if name not in unavailable:
                    unavailable[name] = why_unavailable(name, error)
            given_up = [k for k, spec in todo.items() if k not in episodes and _has_any(spec.match, lost)]
            progress.limit(len(share) - len(given_up))

        def keep(played: Mapping[str, EpisodeRecord]) -> None:
            if store is not None:
                store.append(played)
            episodes.update(played)
            progress.add(len(played))

        play_specs(setting, todo, keep, on_lost=on_lost, measure=measure, grow=True)
    unavailable = processes.joined(unavailable)
    if store and processes.count > 1:
        episodes = store.read(plan.episodes)
    return Played(episodes, unavailable)


def play_specs(
    setting: Setting,
    specs: Mapping[str, EpisodeSpec],
    keep: Callable[[Mapping[str, EpisodeRecord]], None],
    *,
    on_lost: Callable[[Policy, Exception], None] | None = None,
    measure: Measure | None = None,
    grow: bool = False,
) -> None:
    """Play episodes, a chunk of them at a time.

    Args:
        setting: Setting of all episodes.
        specs: What to play, by key.
        keep: Called with the episodes that have ended, by key, as soon as they have. Those of lost partners are left
            out.
        on_lost: Called for a partner that does not answer, with what it raised; None raises the error.
        measure: Given the keys and episodes that have ended, returns further numbers for each.
        grow: Whether to begin with small chunks (see `Pace`): a kill then loses little. Else each is `setting.chunk`.
    """
    lost: list[Policy] = []

    def lose(policy: Policy, error: Exception) -> None:
        assert on_lost is not None
        on_lost(policy, error)
        lost.append(policy)

    todo = list(specs.items())
    pace = Pace(FIRST_CHUNK if grow else setting.chunk, setting.chunk)
    while todo:
        part, todo = todo[: pace.size], todo[pace.size :]
        begun = [(key, spec) for key, spec in part if not _has_any(spec.match, lost)]

        def on_ended(ended: Mapping[int, Episode], begun: list[tuple[str, EpisodeSpec]] = begun) -> None:
            keys = [begun[place][0] for place in ended]
            more = measure(keys, list(ended.values())) if measure else [{}] * len(keys)
            keep(
                {
                    key: EpisodeRecord.of(
                        episode, more_metrics=numbers, widths=_widths(specs[key].match, episode, setting.engines)
                    )
                    for key, episode, numbers in zip(keys, ended.values(), more, strict=True)
                }
            )

        start = time.monotonic()
        play(
            setting.task,
            [spec for _, spec in begun],
            setting.engines,
            seed=setting.seed,
            max_reply_tokens=setting.max_reply_tokens,
            on_lost=None if on_lost is None else lose,
            on_ended=on_ended,
        )
        pace.took(time.monotonic() - start)


class Pace:
    """How many episodes to play at a time: more, as long as chunks are quick or larger ones raise the speed.

    Episodes of a chunk are played in lock-step and may all end at once, so a kill during a slow chunk loses much. Where
    many at a time take no longer than a few (a GPU), large chunks are worth it; where they do not (a CPU), they are
    not.

    Args:
        first: Size of the first chunk.
        most: Largest size of a chunk.

    Attributes:
        size: Size of the next chunk.
    """

    def __init__(self, first: int, most: int) -> None:
        self.size, self._most = min(first, most), most
        self._smaller: float | None = None  # seconds of the chunk before, of half the size
        self._settled = False

    def took(self, seconds: float) -> None:
        """The last chunk took so long."""
        smaller, self._smaller = self._smaller, None
        if seconds < QUICK:
            self._settled = False
        elif smaller is not None and 2 * smaller < PAYS * seconds:  # two halves would have been about as quick
            self.size, self._settled = self.size // 2, True
        if not self._settled and self.size < self._most:
            self._smaller = seconds if 2 * self.size <= self._most else None
            self.size = min(2 * self.size, self._most)


def _has_any(match: Match, policies: Sequence[Policy]) -> bool:
    return any(policy in policies for policy in match.seats.values())


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
