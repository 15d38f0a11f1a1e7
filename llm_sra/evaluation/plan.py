"""The plan of an evaluation: who meets whom, which episodes that takes, and under which key each of them is kept.

What is planned is neither played nor counted here.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from llm_sra.errors import UnknownNameError
from llm_sra.evaluation.divergence import TrainingPartners, training_partners
from llm_sra.evaluation.matches import IDLE, Cell, Coalition, cells, coalitions, cross_cells, seated
from llm_sra.evaluation.options import EvaluationOptions
from llm_sra.evaluation.settings import Setting
from llm_sra.evaluation.store import episode_key
from llm_sra.partners.loader import UNAVAILABLE, PolicyLoader, Team
from llm_sra.partners.rosters import SELF_PLAY, Entry, RosterError
from llm_sra.playing import EpisodeSpec
from llm_sra.policies import Policy, PolicyError
from llm_sra.runs import Run
from llm_sra.untrusted import one_line

LONGEST_REASON = 1000  # characters
Pairing = TypeVar("Pairing", Cell, Coalition)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned(Generic[Pairing]):
    """One row of the results, and what it needs.

    Attributes:
        pairing: Who sits where.
        keys: Keys of its episodes, one for each problem, in their order.
    """

    pairing: Pairing
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that an evaluation needs.

    Attributes:
        with_partners: Each agent with itself and with every partner of the roster.
        cross_play: Each agent with those of every other run.
        teams: Each run's team with others in some of its seats.
        episodes: By key, what is to be played; an episode that several rows need is played once.
        training_partners: By key, with whom the partners are compared for their divergence.
        unavailable: By name, why a partner of the roster is not in the plan.
    """

    with_partners: Sequence[Planned[Cell]]
    cross_play: Sequence[Planned[Cell]]
    teams: Sequence[Planned[Coalition]]
    episodes: Mapping[str, EpisodeSpec]
    training_partners: Mapping[str, TrainingPartners]
    unavailable: Mapping[str, str]

    def partners_of(self, policy: Policy) -> list[str]:
        """The roster's partners that a policy of a match plays for; none if it is an agent of a run."""
        found = [
            cell.partner
            for cell in (planned.pairing for planned in self.with_partners)
            if cell.partner != SELF_PLAY and any(policy == p for s, p in cell.match.seats.items() if s != cell.seat)
        ]
        return list(dict.fromkeys(found))


def make_plan(
    setting: Setting, loader: PolicyLoader, runs: Sequence[Run], entries: Sequence[Entry], options: EvaluationOptions
) -> Plan:
    """Load agents and partners, and plan who meets whom.

    Args:
        setting: Setting of the evaluation.
        loader: Loads the policies, and knows them by their content.
        runs: Whose agents are evaluated.
        entries: Entries of the roster.
        options: Say what is wanted beside the roster's partners.
    """
    teams = [loader.team(run) for run in runs]
    partners, unavailable = _partners(loader, entries, teams)
    task, decodings = setting.task, options.decodings
    with_partners = [cell for team in teams for cell in cells(task, team, partners[team.run], decodings)]
    crossed = cross_cells(task, teams, decodings) if options.cross_play else []
    mixed = list(coalitions(task, teams, _idle(loader), decodings)) if options.contributions else []

    identity: Any = cache(loader.identity)
    facts = setting.facts()
    episodes: dict[str, EpisodeSpec] = {}
    compared: dict[str, TrainingPartners] = {}

    def planned(pairings: Sequence[Pairing]) -> Iterator[Planned[Pairing]]:
        for pairing in pairings:
            match = pairing.match
            seats = {seat: identity(match.seats[seat]) for seat in task.seats}
            others = training_partners(pairing) if options.divergence and isinstance(pairing, Cell) else None
            seats |= {f"{seat} compared": identity(policy) for seat, policy in (others or {}).items()}
            keys = tuple(episode_key(facts, match.name, seats, problem) for problem in setting.problems)
            for key, problem in zip(keys, setting.problems, strict=True):
                episodes.setdefault(key, EpisodeSpec(problem, match))
                if others:
                    compared[key] = others
            yield Planned(pairing, keys)

    return Plan(
        with_partners=tuple(planned(with_partners)),
        cross_play=tuple(planned(crossed)),
        teams=tuple(planned(mixed)),
        episodes=episodes,
        training_partners=compared,
        unavailable=unavailable,
    )


def why_unavailable(partner: str, error: Exception) -> str:
    """The reason for which a partner is left out, in one line; it may hold what a server said. Logs a warning."""
    reason = reason_of(error)
    logger.warning("partner %r is missing, the others are played: %s", partner, reason)
    return reason


def reason_of(error: Exception) -> str:
    """Why a partner failed, in one line."""
    ours = isinstance(error, (*UNAVAILABLE, PolicyError))
    return one_line(error if ours else f"{type(error).__name__}: {error}")[:LONGEST_REASON]


def _idle(loader: PolicyLoader) -> Policy | None:
    """The task's partner that does no work."""
    name = loader.task.idle
    return None if name is None else next(iter(loader.partner(Entry(IDLE, "scripted", name)).values()))


def _partners(
    loader: PolicyLoader, entries: Sequence[Entry], teams: Sequence[Team]
) -> tuple[dict[str, dict[str, Mapping[str, Policy]]], dict[str, str]]:
    """By run and partner, the policy for each seat; and why the other partners are unavailable."""
    partners: dict[str, dict[str, Mapping[str, Policy]]] = {team.run: {} for team in teams}
    unavailable: dict[str, str] = {}
    for entry in entries:
        try:
            shared = None if entry.innermost.kind == "live" else loader.partner(entry)
            own = {team.run: shared or loader.partner(entry, seated(team)) for team in teams}
            for policies in own.values():  # each run has a live partner of its own
                for policy in policies.values():
                    loader.identity(policy)  # needs its files, too
        except Exception as error:
            # A wrong name is an error of the roster; anything else makes the partner unavailable.
            if isinstance(error, RosterError | UnknownNameError) and not isinstance(error, UNAVAILABLE):
                raise
            unavailable[entry.name] = why_unavailable(entry.name, error)
            continue
        for run, policies in own.items():
            partners[run][entry.name] = policies
    return partners, unavailable
