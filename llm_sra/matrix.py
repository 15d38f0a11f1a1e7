"""Who is played with whom: every agent with itself, with partners, and with the agents of other runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_sra.policies import EnginePolicy, Match, Policy, decoded
from llm_sra.rosters import SELF_PLAY
from llm_sra.studio import Agents
from llm_sra.task import Sampling, Task

DECODINGS = {"greedy": Sampling(temperature=0.0), "sampled": Sampling(temperature=1.0)}


@dataclass(frozen=True)
class Cell:
    """One agent, one partner, one decoding: a row of results."""

    agents: Agents
    seat: str
    partner: str
    decoding: str
    match: Match


def cells(
    task: Task,
    agents: Iterable[Agents],
    partners: Mapping[str, Mapping[str, Policy]],
    decodings: Sequence[str],
) -> list[Cell]:
    """Every agent in every seat with itself and with every partner.

    Args:
        task: Names the seats.
        agents: Of the runs.
        partners: By name, the policy for each seat.
        decodings: Keys of `DECODINGS`.
    """
    made = []
    for team in agents:
        for decoding in decodings:
            own = _seated(team, decoding)
            together = _among_agents(own, decoding)
            for seat in task.seats:
                made.append(Cell(team, seat, SELF_PLAY, decoding, together))
                for name, policies in partners.items():
                    others = {other: decoded(policies[other], DECODINGS[decoding]) for other in task.seats}
                    match = Match(f"{seat}/{name}/{decoding}", {**others, seat: own[seat]})
                    made.append(Cell(team, seat, name, decoding, match))
    return made


def cross_cells(task: Task, agents: Sequence[Agents], decodings: Sequence[str]) -> list[Cell]:
    """Every agent in its seat with those of every other run, which have all other seats.

    With two seats a match is in two cells: one for each of its agents.
    """
    made = []
    for team in agents:
        for decoding in decodings:
            own = _seated(team, decoding)
            for seat in task.seats:
                for other in agents:
                    if other.run != team.run:
                        match = _among_agents({**_seated(other, decoding), seat: own[seat]}, decoding)
                        made.append(Cell(team, seat, other.run, decoding, match))
    return made


def _seated(team: Agents, decoding: str) -> dict[str, EnginePolicy]:
    return {
        seat: EnginePolicy(f"{team.run}:{adapter or 'base'}", team.engine, adapter, DECODINGS[decoding])
        for seat, adapter in team.heroes.items()
    }


def _among_agents(seats: Mapping[str, Policy], decoding: str) -> Match:
    """Match names leave the run out: replies of all runs then have the same seeds, and differences are paired."""
    return Match(f"{SELF_PLAY}/{decoding}", seats)
