"""How agents do with each kind of partner, as a table: in the terminal, in `table.md` and the report.

A partner's kind is that of its entry in the roster, or the entry's `group`.
"""

from collections.abc import Sequence

from eval.grid import Grid
from eval.proximity import MEAN, Column, by_decoding, known, mean_nearness
from eval.table import NOTHING
from llm_sra.evaluation.results import Results

UNKNOWN = "unknown"


def by_kind(results: Results) -> dict[str, list[str]]:
    """The partners of each kind, in the roster's order; those of `UNKNOWN` were evaluated by an earlier version."""
    found: dict[str, list[str]] = {}
    for partner in results.partners:
        found.setdefault(results.kinds.get(partner, UNKNOWN), []).append(partner)
    return found


def kinds_grids(results: Results) -> list[Grid]:
    """For each decoding, each run with each kind of partner; empty if all are of one kind."""
    return by_decoding(results, kinds_grid)


def kinds_grid(results: Results, decoding: str, columns: Sequence[Column]) -> Grid | None:
    """The share solved with each kind of partner, and, where best responses are known, how near agents come to them.

    Args:
        results: Results of an evaluation.
        decoding: Which.
        columns: Settings.

    Returns:
        None if all partners are of one kind.
    """
    kinds, there = by_kind(results), known(results, decoding)
    if len(kinds) < 2:
        return None

    def cells(partners: Sequence[str]) -> list[str]:
        shown = []
        for column in columns:
            shown.append(f"{results.rate(column.runs, results.seats, partners, decoding):.2f}")
            if there:
                near = mean_nearness(results, decoding, column.runs, there, hopeful=True, partners=partners)
                shown.append(NOTHING if near is None else f"{near.value:.2f}")
        return shown

    whats = ["share", *["of best"] * bool(there)]
    heads = [f"{column.label}\n{what}" for column in columns for what in whats]
    notes = ["Share: mean over runs, seats and the partners of a kind."]
    if there:
        notes.append(f"of best: {MEAN} of the return as a share of a best response's; hopeless partners are left out.")
    return Grid(
        f"{results.measure.capitalize()} with each kind of partner, {decoding}",
        ("kind", "partners", *heads),
        (tuple((kind, str(len(partners)), *cells(partners)) for kind, partners in kinds.items()),),
        tuple(notes),
    )
