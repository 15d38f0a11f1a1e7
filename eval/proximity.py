"""How near agents come to a best response to each partner, as tables: in the terminal, in `table.md` and the report.

What is divided by is read from the results: `llm_sra.evaluation.best_responses`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.grid import Grid
from eval.stats import Estimate, hopeless, proximity, proximity_mean
from eval.table import NOTHING, name_of, with_interval
from llm_sra.evaluation.best_responses import BestResponses, Earned
from llm_sra.evaluation.results import Results

EQUAL = 1e-6  # returns are kept rounded
PER_TABLE = 3  # columns of runs, as wide as a mean with its interval
MEAN, ALL = "interquartile mean", "the same with all partners"
RULE = (
    "of best: own return / the return of a best response that was trained with that partner, at most 1, mean over "
    "seats; a best response is learned within its budget, so one that earns more may exist."
)


@dataclass(frozen=True)
class Column:
    """Runs of one setting.

    Attributes:
        label: Heading.
        runs: Their names: one for each seed.
    """

    label: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """The partners whose best response is known in every seat.

    Attributes:
        partners: Their names, in the roster's order.
        seats: Names of the seats.
        best: What the best response earns, shape (seats, partners).
        hopeless: Whether that is next to nothing, shape (seats, partners).
        ids: Ids of the problems that the best responses played; none if their returns are not known one by one.
        returns: Their returns, shape (seats, partners, problems); no problems without `ids`.
    """

    partners: tuple[str, ...]
    seats: tuple[str, ...]
    best: NDArray[np.float64]
    hopeless: NDArray[np.bool_]
    ids: tuple[str, ...]
    returns: NDArray[np.float64]

    @classmethod
    def of(cls, best: BestResponses, partners: Sequence[str], seats: Sequence[str], decoding: str) -> "Known":
        """Of these partners, in every seat of whom a best response earned something that is known."""
        earned = [[_earned(best, partner, seat, decoding) for partner in partners] for seat in seats]
        means = np.array([[one.own_return for one in row] for row in earned])
        whole = bool(best.ids) and all(len(one.returns) == len(best.ids) for row in earned for one in row)
        ids = best.ids if whole else ()
        returns = np.array([[one.returns if whole else () for one in row] for row in earned], dtype=np.float64)
        marks = np.array([hopeless(of_a_seat) for of_a_seat in means])
        return cls(tuple(partners), tuple(seats), means, marks, ids, returns)

    def mark(self, partner: str) -> str:
        """A partner's name, marked where it is hopeless: in all seats, or in those that are named."""
        where = [seat for seat, row in zip(self.seats, self.hopeless, strict=True) if row[self._index(partner)]]
        if not where:
            return partner
        seats = "" if len(where) == len(self.seats) else f" for {', '.join(where)}"
        return f"{partner} (hopeless{seats})"

    def earned(self, partner: str) -> float:
        """What best responses to a partner earn, mean over seats."""
        return float(self.best[:, self._index(partner)].mean())

    def cells(self, hopeful: bool, partners: Collection[str] | None = None) -> list[tuple[str, str]]:
        """Seats with partners, or some of them; without those in which the partner is hopeless if `hopeful`."""
        return [
            (seat, partner)
            for s, seat in enumerate(self.seats)
            for p, partner in enumerate(self.partners)
            if not (hopeful and self.hopeless[s, p]) and (partners is None or partner in partners)
        ]

    def of_cell(self, seat: str, partner: str) -> tuple[float, NDArray[np.float64]]:
        """What the best response earns in a cell: the mean, and by problem."""
        place = self.seats.index(seat), self._index(partner)
        return float(self.best[place]), self.returns[place]

    def _index(self, partner: str) -> int:
        return self.partners.index(partner)


def known(results: Results, decoding: str) -> Known | None:
    """The partners of an evaluation whose best response is known; None if there are none."""
    if results.best is None:
        return None
    best, seats = results.best, results.seats
    names = [
        name
        for name in results.partners
        if all(best.earned(name, seat, decoding) for seat in seats)
        and all((run, seat, name, decoding) in results.returns for run in results.runs for seat in seats)
    ]
    return Known.of(best, names, seats, decoding) if names else None


def by_decoding(results: Results, grid_of: Callable[[Results, str, Sequence[Column]], Grid | None]) -> list[Grid]:
    """For each decoding, tables of `PER_TABLE` runs each.

    Args:
        results: Results of an evaluation.
        grid_of: The table of the results with a decoding and of runs; None if there is nothing to show.
    """
    columns = [Column(name_of(results, run), (run,)) for run in results.runs]
    return [
        grid
        for decoding in results.decodings
        for start in range(0, len(columns), PER_TABLE)
        if (grid := grid_of(results, decoding, columns[start : start + PER_TABLE]))
    ]


def proximity_grids(results: Results) -> list[Grid]:
    """For each decoding, each run with each partner; empty if no best response is known."""
    return by_decoding(results, proximity_grid)


def proximity_grid(results: Results, decoding: str, columns: Sequence[Column], *, shares: bool = False) -> Grid | None:
    """Each setting with each partner: its return as a share of the best response's.

    Args:
        results: Results of an evaluation.
        decoding: Which.
        columns: Settings.
        shares: Whether the share of problems solved stands beside it.

    Returns:
        None if no best response is known.
    """
    there = known(results, decoding)
    if there is None or results.best is None:
        return None
    near = [nearness(results, decoding, column.runs, there) for column in columns]
    rows = [
        (
            there.mark(partner) if partner in there.partners else partner,
            f"{there.earned(partner):.2f}" if partner in there.partners else NOTHING,
            *_cells(results, decoding, columns, near, partner, shares),
        )
        for partner in results.partners
    ]
    ends = [_mean_row(MEAN, results, decoding, columns, there, True, shares)]
    if there.hopeless.any():
        ends.append(_mean_row(ALL, results, decoding, columns, there, False, shares))
    heads = [
        head for column in columns for head in ([f"{column.label}\nshare"] * shares + [f"{column.label}\nof best"])
    ]
    return Grid(
        f"Return as a share of a best response's, {decoding}",
        ("partner", "best response's return", *heads),
        (tuple(rows), tuple(ends)),
        tuple(_notes(results, decoding, columns, there)),
    )


def nearness(results: Results, decoding: str, runs: Sequence[str], there: Known) -> Mapping[str, float | None]:
    """By partner, `proximity` averaged over runs and seats; None where no best response earns anything."""
    found: dict[str, float | None] = {}
    for p, partner in enumerate(there.partners):
        earns = there.best[:, p] > 0
        means = [[float(results.returns[run, seat, partner, decoding].mean()) for seat in there.seats] for run in runs]
        shares = proximity(means, there.best[:, p])[:, earns]
        found[partner] = float(shares.mean()) if earns.any() else None
    return found


def mean_nearness(
    results: Results,
    decoding: str,
    runs: Sequence[str],
    there: Known,
    *,
    hopeful: bool,
    partners: Collection[str] | None = None,
) -> Estimate | None:
    """The interquartile mean of `proximity` over runs, seats and partners, with its interval.

    Args:
        results: Results of an evaluation.
        decoding: Which.
        runs: Runs of one setting: one for each seed.
        there: The partners whose best response is known.
        hopeful: Whether hopeless partners are left out.
        partners: Which of them count; None: all.

    Returns:
        None if all are hopeless, or the runs did not play the same problems.
    """
    cells = there.cells(hopeful, partners)
    played = {results.problems.get((run, seat, partner, decoding)) for run in runs for seat, partner in cells}
    if not cells or len(played) != 1:
        return None
    table = [[results.returns[run, seat, partner, decoding] for seat, partner in cells] for run in runs]
    best = [there.of_cell(*cell) for cell in cells]
    paired = there.ids in played
    return proximity_mean(table, np.array([returns if paired else mean for mean, returns in best]))


def _earned(best: BestResponses, partner: str, seat: str, decoding: str) -> Earned:
    found = best.earned(partner, seat, decoding)
    assert found is not None
    return found


def _cells(
    results: Results,
    decoding: str,
    columns: Sequence[Column],
    near: Sequence[Mapping[str, float | None]],
    partner: str,
    shares: bool,
) -> list[str]:
    cells = []
    for column, by_partner in zip(columns, near, strict=True):
        cells += [f"{results.rate(column.runs, results.seats, [partner], decoding):.2f}"] * shares
        found = by_partner.get(partner)
        cells.append(NOTHING if found is None else f"{found:.2f}")
    return cells


def _mean_row(
    name: str, results: Results, decoding: str, columns: Sequence[Column], there: Known, hopeful: bool, shares: bool
) -> tuple[str, ...]:  # fmt: skip
    cells = [name, ""]
    for column in columns:
        found = mean_nearness(results, decoding, column.runs, there, hopeful=hopeful)
        cells += [*[""] * shares, NOTHING if found is None else with_interval(found.value, found)]
    return tuple(cells)


def _notes(results: Results, decoding: str, columns: Sequence[Column], there: Known) -> list[str]:
    notes = [RULE, f"{MEAN}: over seeds, seats and partners, with a 95 % interval (problems and seeds resampled)."]
    if there.hopeless.any():
        notes.append(
            "hopeless: even a best response earns nothing, or at most a twentieth of what the roster's best one earns "
            f"in that seat. These are left out of the first mean; in {ALL!r} those that earn 0 or less count as 1, as "
            "in ZSC-Eval."
        )
    runs = [run for column in columns for run in column.runs]
    pairs = [(run, *cell) for run in runs for cell in there.cells(hopeful=False)]
    if any(results.problems[run, seat, partner, decoding] != there.ids for run, seat, partner in pairs):
        notes.append(
            "The best responses played other problems than the agents, so what they earn is taken as given: the "
            "intervals are too narrow by that."
        )
    beaten = sum(
        float(results.returns[run, seat, partner, decoding].mean()) > there.of_cell(seat, partner)[0] + EQUAL
        for run, seat, partner in pairs
    )
    if beaten:
        notes.append(
            f"In {beaten} of {len(pairs)} cells the agent earned more than the best response did: a larger budget "
            "would make better ones."
        )
    if results.best and results.best.unused:
        told = "; ".join(f"{name}: {why}" for name, why in results.best.unused.items() if name in results.partners)
        notes += [f"Without a best response: {told}."] * bool(told)
    return notes
