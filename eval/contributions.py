"""What each agent contributes to its own team: how much is lost with others in its seat, and Shapley values.

From the teams that `llm-sra eval --contributions` plays. An agent that rests is missed by nobody: an idle partner in
its seat costs the team as little as chance does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.results import Results
from eval.stats import Estimate, bootstrap, shapley
from eval.table import NOTHING, Grid, name_of
from llm_sra.matrix import BASE, IDLE, ITSELF

Rewards = NDArray[np.float64]  # of each problem
HEADS = {
    IDLE: "less with an idle partner there",
    BASE: "less with the base model there",
    ITSELF: "less with itself there",
}


@dataclass(frozen=True)
class Contribution:
    """One agent of a team.

    Attributes:
        run: The team's run.
        decoding: Of all models.
        seat: The agent's.
        lost: By who took the seat (`idle`, `base`, `itself`), the team's reward less that of the team with them there.
        shapley: By who takes the seats of absent agents (`idle`, `base`): what the agent adds to those who are there,
            averaged over all orders in which the team may assemble.
    """

    run: str
    decoding: str
    seat: str
    lost: Mapping[str, Estimate]
    shapley: Mapping[str, Estimate]


def contributions(results: Results, seed: int = 0) -> list[Contribution]:
    """Every agent of every team, in units of the reward, with 95 % intervals over problems.

    Args:
        results: Of an evaluation; without teams there is nothing.
        seed: Of the bootstrap.
    """
    played: dict[tuple[str, str], dict[tuple[str, frozenset[str]], Rewards]] = {}
    for team in results.teams:
        of_run = played.setdefault((team.run, team.decoding), {})
        of_run[team.by, frozenset(team.replaced)] = np.array(team.rewards)
    made = []
    for (run, decoding), teams in played.items():
        seats = frozenset[str]().union(*(replaced for _, replaced in teams))
        kinds = [by for by in HEADS if any(found == by for found, _ in teams)]
        values = {by: _shapley(by, seats, teams) for by in kinds if by != ITSELF}
        for seat in (seat for seat in results.seats if seat in seats):
            lost = {by: teams["", frozenset()] - teams[by, frozenset({seat})] for by in kinds}
            made.append(
                Contribution(
                    run,
                    decoding,
                    seat,
                    {by: bootstrap(each[None], seed=seed) for by, each in lost.items()},
                    {by: bootstrap(each[seat][None], seed=seed) for by, each in values.items()},
                )
            )
    return made


def contribution_grids(results: Results, seed: int = 0) -> list[Grid]:
    """A table per decoding; none without teams.

    Args:
        results: Of an evaluation.
        seed: Of the bootstrap.
    """
    found = contributions(results, seed)
    grids = []
    for decoding in dict.fromkeys(c.decoding for c in found):
        shown = [c for c in found if c.decoding == decoding]
        kinds = [by for by in HEADS if any(by in c.lost for c in shown)]
        rows = tuple(
            (
                f"{name_of(results, c.run)}, {c.seat}",
                *(_estimate(c.lost.get(by)) for by in kinds),
                *(_estimate(c.shapley.get(by)) for by in kinds if by != ITSELF),
            )
            for c in shown
        )
        header = ("agent", *(HEADS[by] for by in kinds), *(f"Shapley value, {by}" for by in kinds if by != ITSELF))
        notes = (
            "In units of the reward before costs, on average over the seats; 95 % intervals over problems.",
            "Itself: the same agent with other luck, so what chance alone does.",
            "Shapley value: what an agent adds to those who are there, all others being replaced; a team's values sum "
            "to what it earns beyond the stand-ins alone.",
        )
        grids.append(Grid(f"What each agent contributes to its team, {decoding}", header, (rows,), notes))
    return grids


def _shapley(by: str, seats: frozenset[str], teams: Mapping[tuple[str, frozenset[str]], Rewards]) -> dict[str, Rewards]:
    """Of each problem, by seat."""
    whole = teams["", frozenset()]
    present = {seats - gone: rewards for (found, gone), rewards in teams.items() if found == by} | {seats: whole}
    each = [shapley({there: float(rewards[i]) for there, rewards in present.items()}) for i in range(len(whole))]
    return {seat: np.array([values[seat] for values in each]) for seat in seats}


def _estimate(value: Estimate | None) -> str:
    return NOTHING if value is None else f"{value.value + 0.0:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
