"""Who meets whom: agents with themselves, with partners, with other runs' agents, and teams with stand-ins."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from llm_sra.partners.loader import Team
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.policies import EnginePolicy, Match, Policy, decoded
from llm_sra.task import Sampling, Task

IDLE, BASE, ITSELF = "idle", "base", "itself"  # who may stand in for an agent
DECODINGS = {"greedy": Sampling(temperature=0.0), "sampled": Sampling(temperature=1.0)}


@dataclass(frozen=True)
class Cell:
    """One agent, one partner, one decoding: a row of results.

    Attributes:
        team: Team of the agent's run.
        seat: Where the agent sits; the partner has all other seats.
        partner: `self-play`, a partner of the roster, or another run.
        decoding: A key of `DECODINGS`.
        match: Who sits where.
    """

    team: Team
    seat: str
    partner: str
    decoding: str
    match: Match


@dataclass(frozen=True)
class Coalition:
    """A run's team, in which others sit in some of the seats.

    Attributes:
        team: Team of the run.
        replaced: The seats in which others sit, in the task's order; none: the whole team.
        by: Who sits there: `idle`, the task's partner that does no work; `base`, the model without an adapter;
            `itself`, the same agent with another seed, which shows the effect of chance alone. Empty for the whole
            team.
        decoding: A key of `DECODINGS`.
        match: Who sits where.
    """

    team: Team
    replaced: tuple[str, ...]
    by: str
    decoding: str
    match: Match


def cells(
    task: Task,
    team: Team,
    partners: Mapping[str, Mapping[str, Policy]],
    decodings: Sequence[str],
) -> list[Cell]:
    """A run's agent in every seat with itself and with every partner.

    Args:
        task: Names the seats.
        team: Team of the run.
        partners: By name, the policy for each seat.
        decodings: Keys of `DECODINGS`.
    """
    made = []
    for decoding in decodings:
        own = seated(team, decoding)
        together = _among_agents(own, decoding)
        for seat in task.seats:
            made.append(Cell(team, seat, SELF_PLAY, decoding, together))
            for name, policies in partners.items():
                others = {other: decoded(policies[other], DECODINGS[decoding]) for other in task.seats}
                match = Match(f"{seat}/{name}/{decoding}", {**others, seat: own[seat]})
                made.append(Cell(team, seat, name, decoding, match))
    return made


def cross_cells(task: Task, teams: Sequence[Team], decodings: Sequence[str]) -> list[Cell]:
    """Every agent in its seat with the agents of every other run in all other seats.

    With two seats every match appears in two cells: once for each of its agents.
    """
    made = []
    for team in teams:
        for decoding in decodings:
            own = seated(team, decoding)
            for seat in task.seats:
                for other in teams:
                    if other.run != team.run:
                        match = _among_agents({**seated(other, decoding), seat: own[seat]}, decoding)
                        made.append(Cell(team, seat, other.run, decoding, match))
    return made


def coalitions(task: Task, teams: Iterable[Team], idle: Policy | None, decodings: Sequence[str]) -> Iterator[Coalition]:
    """Each run's whole team; with each set of seats filled by `idle`, and by `base`; and each agent beside `itself`.

    Args:
        task: Names the seats.
        teams: Teams of the runs.
        idle: Does no work; None if the task names nobody.
        decodings: Keys of `DECODINGS`.
    """
    some = [seats for size in range(1, len(task.seats) + 1) for seats in combinations(task.seats, size)]
    for team in teams:
        for decoding in decodings:
            own = seated(team, decoding)
            base = {seat: replace(policy, name=BASE, adapter=None) for seat, policy in own.items()}
            again = {seat: replace(policy, fixed_seed=1) for seat, policy in own.items()}
            stand_ins: list[tuple[str, Mapping[str, Policy], Sequence[tuple[str, ...]]]] = [("", {}, [()])]
            stand_ins += [(IDLE, dict.fromkeys(own, idle), some)] if idle is not None else []
            stand_ins += [(BASE, base, some), (ITSELF, again, [(seat,) for seat in task.seats])]
            for by, others, choices in stand_ins:
                for replaced in choices:
                    match = _among_agents({**own, **{seat: others[seat] for seat in replaced}}, decoding)
                    yield Coalition(team, replaced, by, decoding, match)


def seated(team: Team, decoding: str = "sampled") -> dict[str, EnginePolicy]:
    """A run's agents, each in its seat."""
    return {
        seat: EnginePolicy(f"{team.run}:{adapter or 'base'}", team.engines[seat], adapter, DECODINGS[decoding])
        for seat, adapter in team.heroes.items()
    }


def _among_agents(seats: Mapping[str, Policy], decoding: str) -> Match:
    """Match names leave the run out: replies of all runs then have the same seeds, and differences are paired."""
    return Match(f"{SELF_PLAY}/{decoding}", seats)
