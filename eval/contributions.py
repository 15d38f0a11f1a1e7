"""What each agent contributes to its own team: how much is lost with others in its seat, and Shapley values.

The teams are those that `llm-sra eval --contributions` plays. If an agent does nothing, its team loses no more with an
idle partner in that seat than chance explains.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.grid import Grid
from eval.stats import Estimate, bootstrap, shapley
from eval.table import difference, name_of
from llm_sra.evaluation.matches import BASE, IDLE, ITSELF
from llm_sra.evaluation.results import Results

Rewards = NDArray[np.float64]  # of each problem
# Who takes an agent's seat, as a column's heading.
REPLACEMENTS = {
    IDLE: "an idle partner",
    BASE: "the base model",
    ITSELF: "itself, another seed",
}


@dataclass(frozen=True)
class Contribution:
    """One agent of a team.

    Attributes:
        run: Name of the team's run.
        decoding: `greedy` or `sampled`, for all models.
        seat: The agent's seat.
        lost: For each replacement (`idle`, `base`, `itself`): the team's reward - its reward with that replacement in
            the seat.
        shapley: For each policy that takes the seats of absent agents (`idle`, `base`): what the agent adds to those
            present, averaged over all orders in which agents can join.
    """

    run: str
    decoding: str
    seat: str
    lost: Mapping[str, Estimate]
    shapley: Mapping[str, Estimate]


def contributions(results: Results) -> list[Contribution]:
    """Every agent of every team, in units of the reward, with 95 % intervals over problems.

    Args:
        results: Results of an evaluation; without teams the list is empty.
    """
    played: dict[tuple[str, str], dict[tuple[str, frozenset[str]], Rewards]] = {}
    for team in results.teams:
        of_run = played.setdefault((team.run, team.decoding), {})
        of_run[team.by, frozenset(team.replaced)] = np.array(team.rewards)
    made = []
    for (run, decoding), teams in played.items():
        seats = frozenset[str]().union(*(replaced for _, replaced in teams))
        kinds = [by for by in REPLACEMENTS if any(found == by for found, _ in teams)]
        values = {by: _shapley(by, seats, teams) for by in kinds if by != ITSELF}
        for seat in (seat for seat in results.seats if seat in seats):
            lost = {by: teams["", frozenset()] - teams[by, frozenset({seat})] for by in kinds}
            made.append(
                Contribution(
                    run,
                    decoding,
                    seat,
                    {by: bootstrap(each[None]) for by, each in lost.items()},
                    {by: bootstrap(each[seat][None]) for by, each in values.items()},
                )
            )
    return made


def contribution_grids(results: Results) -> list[Grid]:
    """Two tables per decoding; none without teams."""
    found = contributions(results)
    unit = "In units of the reward before costs, on average over the seats; 95 % intervals over problems."
    grids = []
    for decoding in dict.fromkeys(c.decoding for c in found):
        shown = [c for c in found if c.decoding == decoding]
        names = [f"{name_of(results, c.run)}, {c.seat}" for c in shown]
        grids += [
            _grid(
                f"What a team loses when an agent is replaced by ..., {decoding}",
                dict(zip(names, (c.lost for c in shown), strict=True)),
                (
                    unit,
                    f"{REPLACEMENTS[ITSELF]}: the same agent with other random numbers; shows how much is chance.",
                ),
            ),
            _grid(
                f"What an agent adds to the team (Shapley value), where absent agents are replaced by ..., {decoding}",
                dict(zip(names, (c.shapley for c in shown), strict=True)),
                (
                    unit,
                    "Averaged over the order of joining; a team's values sum to its reward - the replacements' alone.",
                ),
            ),
        ]
    return grids


def _grid(title: str, rows: Mapping[str, Mapping[str, Estimate]], notes: tuple[str, ...]) -> Grid:
    kinds = [by for by in REPLACEMENTS if any(by in row for row in rows.values())]
    cells = tuple((name, *(difference(row.get(by)) for by in kinds)) for name, row in rows.items())
    return Grid(title, ("agent", *(REPLACEMENTS[by] for by in kinds)), (cells,), notes)


def _shapley(by: str, seats: frozenset[str], teams: Mapping[tuple[str, frozenset[str]], Rewards]) -> dict[str, Rewards]:
    """Shapley values of each problem, by seat."""
    whole = teams["", frozenset()]
    present = {seats - gone: rewards for (found, gone), rewards in teams.items() if found == by} | {seats: whole}
    each = [shapley({there: float(rewards[i]) for there, rewards in present.items()}) for i in range(len(whole))]
    return {seat: np.array([values[seat] for values in each]) for seat in seats}
