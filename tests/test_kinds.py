"""Partners by kind: what a roster says of it, what results keep, and the table in terminal, report and CSV."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_support import SEATS, evaluated, report, run_folder
from test_proximity import best

from eval.kinds import by_kind, kinds_grid, kinds_grids
from eval.proximity import Column
from eval.rows import rows
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import Results, merge, read_results, write_results
from llm_sra.partners.rosters import RosterError, as_entries, as_item

KINDS = {"lazy": "scripted", "late": "scripted", "other": "learned"}


def results(kinds: dict[str, str], earns: dict[str, tuple[float, float]] | None = None) -> Results:
    """Of two problems run `r` solves 0, 1 and 2 in the first seat with lazy, late and other, and all in the second.

    It earns in each as much as it solves on average.
    """
    records, ids, solved, returns = [], {}, {}, {}
    for seat in SEATS:
        for count, partner in enumerate(KINDS):
            count = count if seat == SEATS[0] else 2
            key = ("q/r", seat, partner, "sampled")
            flags = np.array([1.0] * count + [0.0] * (2 - count))
            records.append(Record("q/r", "r", seat, partner, "sampled", 2, count / 2, (0.0, 1.0), 0, count / 2, 0, 0))
            ids[key], solved[key], returns[key] = ("p0", "p1"), flags, flags
    return Results(
        tuple(records), ids, solved, {}, returns=returns, best=best(earns) if earns else None, kinds=kinds
    )  # fmt: skip


def test_shares_are_means_over_the_partners_of_a_kind_and_the_seats() -> None:
    # scripted: lazy 0 and 1, late 0.5 and 1: (0 + 1 + 0.5 + 1) / 4 = 0.625; learned: other 1 and 1.
    grid = kinds_grid(results(KINDS), "sampled", [Column("r", ("q/r",))])
    assert grid is not None and grid.header == ("kind", "partners", "r\nshare")
    assert grid.sections == ((("scripted", "2", "0.62"), ("learned", "1", "1.00")),)


def test_proximity_stands_beside_the_shares_where_best_responses_are_known() -> None:
    # Returns over the best response's, by seat: other 1 / 2 and 1 / 2; lazy is hopeless, late 0.5 / 1 and 1 / 1. The
    # interquartile mean of two values is their mean.
    found = results(KINDS, {"lazy": (0.0, 0.0), "late": (1.0, 1.0), "other": (2.0, 2.0)})
    grid = kinds_grid(found, "sampled", [Column("r", ("q/r",))])
    assert grid is not None and grid.header == ("kind", "partners", "r\nshare", "r\nof best")
    assert grid.sections == ((("scripted", "2", "0.62", "0.75"), ("learned", "1", "1.00", "0.50")),)


def test_a_kind_without_a_hopeful_partner_has_no_proximity() -> None:
    found = results(KINDS | {"late": "learned"}, {"lazy": (0.0, 0.0), "late": (1.0, 1.0), "other": (2.0, 2.0)})
    grid = kinds_grid(found, "sampled", [Column("r", ("q/r",))])
    assert grid is not None and grid.sections[0][0] == ("scripted", "1", "0.50", "-")


@pytest.mark.parametrize("kinds", [{}, dict.fromkeys(KINDS, "scripted")])
def test_there_is_no_table_of_one_kind_or_of_results_that_do_not_say(kinds: dict[str, str]) -> None:
    assert kinds_grids(results(kinds)) == []


def test_partners_of_unknown_kind_are_said_to_be_so() -> None:
    assert by_kind(results({"lazy": "scripted"})) == {"scripted": ["lazy"], "unknown": ["late", "other"]}


def test_a_partners_kind_is_its_entrys_or_the_group_that_the_roster_names() -> None:
    entries = as_entries(
        [
            {"name": "lazy", "kind": "scripted", "policy": "lazy"},
            {"name": "deaf", "kind": "perturbed", "how": "drop", "of": {"kind": "scripted", "policy": "lazy"}},
            {"name": "other", "kind": "adapter", "policy": "a"},
            {"name": "made", "kind": "adapter", "policy": "a", "group": "generated"},
            {"name": "anna", "kind": "recorded", "policy": "people.jsonl", "who": "Anna"},
            {"name": "written", "kind": "recorded", "policy": "replies.jsonl", "field": "reply"},
            {"name": "big", "kind": "model", "policy": "org/name"},
            {"name": "own", "kind": "live", "seeds": 2, "group": "mine"},
        ],
        Path("/roster.yaml"),
    )
    assert [entry.counted_as for entry in entries] == [
        "scripted", "perturbed", "learned", "generated", "people", "recorded", "model", "mine", "mine"
    ]  # fmt: skip
    made = entries[3]
    assert "group" not in made.options  # which is no part of what it says
    assert as_entries([as_item(made)], Path("/other.yaml")) == [made]


@pytest.mark.parametrize("group", ["", 3, "x" * 41])
def test_a_group_that_is_no_short_text_is_refused(group: object) -> None:
    item = {"name": "a", "kind": "scripted", "policy": "lazy", "group": group}
    with pytest.raises(RosterError, match="`group` must be text of at most 40 characters"):
        as_entries([item], Path("/roster.yaml"))


def test_a_group_inside_a_perturbation_is_refused() -> None:
    inner = {"kind": "scripted", "policy": "lazy", "group": "mine"}
    with pytest.raises(RosterError, match="`group` goes with the perturbed partner"):
        as_entries([{"name": "a", "kind": "perturbed", "how": "drop", "of": inner}], Path("/roster.yaml"))


def evaluation(tmp_path: Path, name: str) -> Path:
    """An evaluation of one run with lazy, a script, and diligent, an adapter."""
    from llm_sra.evaluation.results import read_episodes, read_summary

    folder, run = tmp_path / f"eval-{name}", run_folder(tmp_path / "q" / name, "ippo", seed=len(name))
    evaluated(folder, run, 1)
    summary = replace(read_summary(folder), kinds={"lazy": "scripted", "diligent": "learned"})
    write_results(folder, summary, list(read_episodes(folder)))
    return folder


def test_results_keep_the_kinds_also_joined_and_rows_have_them(tmp_path: Path) -> None:
    one, two = (read_results(evaluation(tmp_path, name)) for name in ("one", "other"))
    both = merge([one, two])
    assert one.kinds == both.kinds == {"lazy": "scripted", "diligent": "learned"}
    assert [row["kind"] for row in rows(both)[:3]] == [None, "scripted", "learned"]


def test_the_report_shows_the_table(tmp_path: Path) -> None:
    from llm_sra.runs import Run

    folder = evaluation(tmp_path, "one")
    html, text = report(tmp_path / "report", [Run.open(tmp_path / "q" / "one")], evaluations=[folder])
    assert "with each kind of partner" in html and "with each kind of partner" in text
    assert "| scripted | 1 | 0.25 |" in text and "| learned | 1 | 0.25 |" in text
