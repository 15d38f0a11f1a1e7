"""Best-response proximity: its numbers against those computed by hand, its tables, and the file it is read from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from partners_support import roster
from report_support import evaluated, report, run_folder
from support import Toy

from eval.proximity import Column, known, mean_nearness, nearness, proximity_grid, proximity_grids
from eval.rows import rows
from eval.stats import StatsError, hopeless, proximity, proximity_mean
from llm_sra.evaluation.best_responses import (
    LIVE,
    BestResponse,
    BestResponseError,
    BestResponses,
    Earned,
    find_best_responses,
    read_best_responses,
    usable,
    write_best_responses,
)
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import Results, ResultsError, merge, read_results
from llm_sra.partners.contents import entry_digest
from llm_sra.partners.rosters import read_roster
from recipes.comparing.cells import Cell
from recipes.comparing.evaluating import Played, evaluate

SEATS = ("first", "second")


def best(partners: dict[str, tuple[float, float]], decoding: str = "sampled", entry: str = "e") -> BestResponses:
    """Best responses that earn so much in the first seat and in the second."""
    made = {
        name: BestResponse(
            entry,
            {"steps": 3, "episodes": 48, "seed": 1, "model": "m", "learning_rate": 0.1},
            tuple(Earned(seat, decoding, 4, value, value, 0.5) for seat, value in zip(SEATS, values, strict=True)),
        )
        for name, values in partners.items()
    }
    return BestResponses("worksheet", {}, "test", 0, 4, partners=made)


def results(returns: dict[str, dict[str, tuple[list[float], list[float]]]], found: BestResponses | None) -> Results:
    """By run and partner, the agents' returns by problem in the first seat and in the second."""
    by_key = {
        (run, seat, partner, "sampled"): np.array(values)
        for run, partners in returns.items()
        for partner, both in partners.items()
        for seat, values in zip(SEATS, both, strict=True)
    }
    records = tuple(
        Record(run, "ippo", seat, partner, decoding, len(values), 0.25, (0.0, 1.0), 0.0, 0.0, 0.0, 0.0)
        for (run, seat, partner, decoding), values in by_key.items()
    )
    ids = {key: tuple(f"p{i}" for i in range(len(values))) for key, values in by_key.items()}
    solved = {key: np.zeros(len(values)) for key, values in by_key.items()}
    return Results(records, ids, solved, {}, returns=by_key, best=found)


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_a_return_is_divided_by_the_best_responses_cut_at_one_and_one_where_there_is_nothing_to_earn() -> None:
    # 0.3 / 0.6, 0.9 / 0.6 cut at 1, -0.3 / 0.6; and 1 where the best response earns 0 or -0.2, as ZSC-Eval counts.
    got = proximity([0.3, 0.9, -0.3, -0.5, 0.4], [0.6, 0.6, 0.6, 0.0, -0.2])
    assert got == pytest.approx([0.5, 1.0, -0.5, 1.0, 1.0])


def test_the_mean_is_over_the_middle_half_of_seeds_and_cells() -> None:
    # Two seeds, two cells, two problems; means 0.2 0.8 / 0.4 0.1, best responses 0.8 and 1.0:
    # 0.25 0.8 / 0.5 0.1. Of four one is left out at either end: (0.25 + 0.5) / 2.
    table = [[[0.1, 0.3], [0.8, 0.8]], [[0.4, 0.4], [0.0, 0.2]]]
    got = proximity_mean(table, [0.8, 1.0], resamples=500)
    assert got.value == pytest.approx(0.375)
    assert got.low <= got.value <= got.high and got.has_width


def test_the_interval_is_over_problems_where_there_is_one_seed() -> None:
    # Two problems with returns 0 and 1 beside a best response of 1: a draw has mean 0, 0.5 or 1.
    got = proximity_mean([[[0.0, 1.0]]], [1.0], resamples=2000)
    assert (got.value, got.low, got.high) == (0.5, 0.0, 1.0)
    # Beside one of 0.5 the draws are 0, 1 and 2 cut at 1, so the mean of all is 1 itself.
    assert proximity_mean([[[0.0, 1.0]]], [0.5], resamples=200).value == 1.0
    same = proximity_mean([[[0.3, 0.3]]], [0.6], resamples=50)
    assert same.value == pytest.approx(0.5) and not same.has_width


def test_best_responses_to_the_same_problems_are_drawn_with_them() -> None:
    # Both earn 0 with the first problem and 1 with the second, so each draw has equal means, or nothing to earn: 1.
    got = proximity_mean([[[0.0, 1.0]]], [[0.0, 1.0]], resamples=200)
    assert got.value == 1.0 and not got.has_width
    # As a mean of 0.5 alone it is as if it had earned 0.5 with both: a draw of the first problem twice has 0.
    assert proximity_mean([[[0.0, 1.0]]], [0.5], resamples=200).low == 0.0
    # Half of the best response's on both problems.
    assert proximity_mean([[[0.2, 0.4]]], [[0.4, 0.8]], resamples=200).value == pytest.approx(0.5)


def test_hopeless_is_nothing_or_less_or_a_twentieth_of_the_largest() -> None:
    assert hopeless([1.0, 0.05, 0.051, 0.0, -0.3]).tolist() == [False, True, False, True, True]
    assert hopeless([-0.1, 0.0]).tolist() == [True, True]
    assert hopeless([0.2]).tolist() == [False]


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StatsError, match="best returns"):
        proximity([[1.0, 2.0]], [1.0])
    with pytest.raises(StatsError, match="finite"):
        proximity([float("nan")], [1.0])
    with pytest.raises(StatsError, match="seeds, cells, problems"):
        proximity_mean([[1.0]], [1.0])
    with pytest.raises(StatsError, match=r"expected best returns of shape \(1,\) or \(1, 2\), got \(1, 3\)"):
        proximity_mean([[[1.0, 2.0]]], [[1.0, 2.0, 3.0]])
    with pytest.raises(StatsError, match="not empty"):
        hopeless([])


# -- tables ----------------------------------------------------------------------------------------------------------

PLAYED = {
    "r/a": {
        "lazy": ([0.2, 0.4], [0.6, 0.6]),
        "good": ([1.0, 1.0], [0.5, 0.5]),
        "bad": ([-0.2, 0.0], [0.0, 0.1]),
    }
}
EARNED = {"lazy": (0.6, 0.6), "good": (1.0, 1.0), "bad": (0.0, -0.1)}


def test_each_partner_has_its_share_and_the_hopeless_are_marked_and_left_out_of_the_mean() -> None:
    found = results(PLAYED, best(EARNED))
    there = known(found, "sampled")
    assert there is not None
    assert [there.mark(name) for name in there.partners] == ["lazy", "good", "bad (hopeless)"]
    # lazy: 0.3 / 0.6 and 0.6 / 0.6; good: 1 and 0.5; bad: nothing can be earned.
    assert nearness(found, "sampled", ["r/a"], there) == {"lazy": 0.75, "good": 0.75, "bad": None}
    hopeful = mean_nearness(found, "sampled", ["r/a"], there, hopeful=True)
    everyone = mean_nearness(found, "sampled", ["r/a"], there, hopeful=False)
    # 0.5 1 1 0.5 without the hopeless: one left out at either end, (0.5 + 1) / 2. With them two more of 1: of
    # 0.5 0.5 1 1 1 1 one is left out at either end, 3.5 / 4.
    assert hopeful is not None and hopeful.value == pytest.approx(0.75)
    assert everyone is not None and everyone.value == pytest.approx(0.875)
    [grid] = proximity_grids(found)
    assert grid.header == ("partner", "best response's return", "a (ippo)\nof best")
    assert grid.sections[0] == (("lazy", "0.60", "0.75"), ("good", "1.00", "0.75"), ("bad (hopeless)", "-0.05", "-"))
    assert [row[0] for row in grid.sections[1]] == ["interquartile mean", "the same with all partners"]
    assert grid.sections[1][0][2].startswith("0.75 [") and grid.sections[1][1][2].startswith("0.88 [")
    assert "the agent earned more" in grid.notes[-1]  # bad's second seat: 0.05 beside -0.1
    assert "In 1 of 6 cells" in grid.notes[-1]


def test_a_partner_can_be_hopeless_for_one_seat() -> None:
    there = known(results(PLAYED, best({**EARNED, "bad": (0.5, 0.01)})), "sampled")
    assert there is not None and there.mark("bad") == "bad (hopeless for second)"


def test_shares_stand_beside_and_partners_without_a_best_response_have_a_dash() -> None:
    changed = replace(best({"good": (1.0, 1.0)}), unused={"lazy": "it changed", "bad": LIVE})
    grid = proximity_grid(results(PLAYED, changed), "sampled", [Column("IPPO", ("r/a",))], shares=True)
    assert grid is not None
    assert grid.header[2:] == ("IPPO\nshare", "IPPO\nof best")
    assert grid.sections[0] == (("lazy", "-", "0.25", "-"), ("good", "1.00", "0.25", "0.75"), ("bad", "-", "0.25", "-"))
    assert grid.notes[-1] == f"Without a best response: lazy: it changed; bad: {LIVE}."


def test_other_problems_are_told_and_the_same_ones_are_paired() -> None:
    earned = best({"good": (1.0, 1.0)})
    given = proximity_grid(results(PLAYED, earned), "sampled", [Column("IPPO", ("r/a",))])
    assert given is not None and "played other problems than the agents" in given.notes[2]
    made = earned.partners["good"]
    earns = zip(made.earned, (2.0, 1.0), strict=True)
    alone = tuple(replace(one, own_return=value, returns=(value, value)) for one, value in earns)
    paired = replace(earned, ids=("p0", "p1"), partners={"good": replace(made, earned=alone)})
    grid = proximity_grid(results(PLAYED, paired), "sampled", [Column("IPPO", ("r/a",))])
    assert grid is not None and not any("other problems" in note for note in grid.notes)
    assert grid.sections[0][1] == ("good", "1.50", "0.50")  # 1 / 2 and 0.5 / 1


def test_without_best_responses_there_is_no_table() -> None:
    assert proximity_grids(results(PLAYED, None)) == []
    assert proximity_grids(results(PLAYED, best(EARNED, decoding="greedy"))) == []


def test_seeds_that_played_other_problems_have_no_mean() -> None:
    two = {"r/a": PLAYED["r/a"], "r/b": {name: ([0.1], [0.1]) for name in PLAYED["r/a"]}}
    found = results(two, best(EARNED))
    there = known(found, "sampled")
    assert there is not None and mean_nearness(found, "sampled", ["r/a", "r/b"], there, hopeful=True) is None


def test_the_report_has_it_and_says_what_it_needs_where_it_is_not_known(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "q" / "ippo", "ippo")
    evaluated(run.path / "report", run, solved=2)
    page, text = report(tmp_path / "without", [run])
    assert "Not shown: How near to a best response. It needs: best responses to the partners" in text
    path = run.path / "report" / "results.json"
    plain = json.loads(path.read_text())
    write_best_responses(tmp_path / "best.json", best({"lazy": (0.0, 0.0), "diligent": (1.0, 1.0)}))
    path.write_text(json.dumps({**plain, "best_responses": json.loads((tmp_path / "best.json").read_text())}))
    page, text = report(tmp_path / "with", [run])
    # Every return is 0.5 (report_support): of diligent's 1.0 that is a half; lazy is hopeless.
    assert "agents earn (interquartile mean, sampled): ippo 0.50 (no spread)." in text
    assert "Next to nothing can be earned with: lazy (hopeless)." in text
    assert "| lazy (hopeless) | 0.00 | 0.50 | - |" in text
    assert "| lazy (hopeless) | 0.50 |" in text and "| diligent | 0.50 |" in text  # in the ranking, too
    assert "| diligent | 1.00 | 0.50 | 0.50 |" in text
    assert "How near to a best response" in page


def test_the_flat_table_has_it_for_each_record() -> None:
    found = results(PLAYED, best(EARNED))
    table = rows(replace(found, records=tuple(replace(one, own_return=0.3) for one in found.records)))
    told = {(row["partner"], row["seat"]): (row["best_return"], row["proximity"]) for row in table}
    assert told["lazy", "first"] == (0.6, 0.5) and told["good", "second"] == (1.0, 0.3)
    assert told["bad", "first"] == (0.0, None) and told["bad", "second"] == (-0.1, None)
    assert "proximity" not in rows(results(PLAYED, None))[0]


def test_old_episodes_without_returns_have_no_share() -> None:
    found = results(PLAYED, best(EARNED))
    kept = {key: values for key, values in found.returns.items() if key[2] != "lazy"}
    there = known(replace(found, returns=kept), "sampled")
    assert there is not None and there.partners == ("good", "bad")


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = replace(best(EARNED), ids=("p0", "p1"))
    write_best_responses(tmp_path / "new" / "r.best.json", made)
    assert read_best_responses(tmp_path / "new" / "r.best.json") == made
    assert made.earned("good", "second", "sampled") == Earned("second", "sampled", 4, 1.0, 1.0, 0.5)
    assert made.earned("good", "second", "greedy") is None
    assert made.earned("nobody", "second", "sampled") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": 3}, "task is 3: expected text"),
        ({"partners": []}, "partners is"),
        ({"partners": {"lazy": {"entry": "e", "budget": {}, "earned": [{"seat": "first"}]}}}, "KeyError"),
        ({"partners": {"lazy": {"entry": "e", "budget": {"steps": [1]}, "earned": []}}}, "texts and numbers"),
    ],
)
def test_another_file_is_refused_in_a_line(change: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.best.json"
    write_best_responses(path, best({}))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BestResponseError, match=message):
        read_best_responses(path)
    path.write_text("{")
    with pytest.raises(BestResponseError, match="is not what `llm-sra best-response` writes"):
        read_best_responses(path)
    with pytest.raises(BestResponseError, match=r"no .*nowhere\.json"):
        read_best_responses(tmp_path / "nowhere.json")


def test_the_file_beside_the_roster_is_found_and_a_named_one_comes_first(tmp_path: Path) -> None:
    path = roster(tmp_path, "name: says, kind: live")
    assert find_best_responses(path, None) is None and find_best_responses(None, None) is None
    write_best_responses(tmp_path / "roster.best.json", best({}))
    write_best_responses(tmp_path / "other.json", best(EARNED))
    assert find_best_responses(path, None) == best({})
    assert find_best_responses(path, tmp_path / "other.json") == best(EARNED)
    assert find_best_responses("effort_no_such_roster", None) is None  # reading the roster says so
    with pytest.raises(BestResponseError, match="name the roster"):
        find_best_responses(None, tmp_path / "other.json")


def test_a_partner_that_changed_has_none_and_neither_has_a_live_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "own.py"
    script.write_text("class Own:\n    def reply(self, messages, rng):\n        return 'a'\n")
    path = roster(
        tmp_path,
        "name: own, kind: scripted, policy: './own.py:Own'",
        "name: live, kind: live",
        "name: new, kind: scripted, policy: './own.py:Own'",
    )
    entries, task = read_roster(path), Toy()
    digest = entry_digest(entries[0], task)
    assert digest is not None and entry_digest(entries[1], task) is None
    found = best({"own": (1.0, 1.0)}, entry=digest)
    kept = usable(found, task, "worksheet", None, entries)
    assert set(kept.partners) == {"own"}
    assert kept.unused == {"live": LIVE, "new": "none was trained"}
    assert not caplog.messages
    script.write_text("class Own:\n    def reply(self, messages, rng):\n        return 'b'\n")
    changed = usable(found, task, "worksheet", None, entries)
    assert not changed.partners and "changed since it was trained" in changed.unused["own"]
    assert caplog.messages == [f"best responses to own are not used: {changed.unused['own']}"]


def test_those_of_another_task_or_of_other_options_are_not_used(tmp_path: Path) -> None:
    entries = read_roster(roster(tmp_path, "name: lazy, kind: live"))
    for name, options in (("kitchen", None), ("worksheet", {"lines": 3})):
        kept = usable(best(EARNED), Toy(), name, options, entries)
        assert not kept.partners and "made for task worksheet with options {}" in kept.unused["lazy"]


def test_the_hash_is_of_what_a_partner_says_and_not_of_its_name_or_place(tmp_path: Path) -> None:
    def hashed(folder: str, *partners: str, text: str = "x") -> list[str | None]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "said.jsonl").write_text(json.dumps({"question": "q", "reply": text}))
        return [entry_digest(entry, Toy()) for entry in read_roster(roster(tmp_path / folder, *partners))]

    said = "kind: recorded, policy: said.jsonl, field: reply"
    asked = "kind: endpoint, policy: m, base_url: 'http://localhost:1/v1'"
    [one] = hashed("a", f"name: one, {said}")
    assert hashed("b", f"name: two, {said}") == [one]
    assert hashed("b", f"name: two, {said}", text="y") != [one]
    often, seldom, other = hashed(
        "c", f"name: a, {asked}", f"name: b, {asked}, retries: 1", f"name: c, {asked}, max_tokens: 3"
    )
    assert often == seldom != other
    half, most = hashed(
        "d", f"name: a, kind: perturbed, of: {{{said}}}, how: drop, probability: 0.5",
        f"name: b, kind: perturbed, of: {{{said}}}, how: drop, probability: 0.9",
    )  # fmt: skip
    assert len({half, most, one}) == 3


def test_a_comparison_is_evaluated_again_once_there_are_best_responses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(tmp_path / "out" / "ippo", "ippo")
    (run.path / "adapters").mkdir()
    played = Played(str(roster(tmp_path, "name: own, kind: live")), cross_play=False)
    monkeypatch.setattr("recipes.commands.eval.main", lambda words: evaluated(tmp_path / "out" / "eval", run, solved=2))
    again = [evaluate(played, [Cell("ippo", "recipe")], tmp_path / "out") for _ in range(2)]
    write_best_responses(tmp_path / "roster.best.json", best(EARNED))
    again += [evaluate(played, [Cell("ippo", "recipe")], tmp_path / "out") for _ in range(2)]
    assert again == [True, False, True, False]


def test_results_of_evaluations_with_different_best_responses_are_not_joined(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / "q" / f"ippo-seed{seed}", "ippo", seed) for seed in (1, 2)]
    for run in runs:
        evaluated(run.path / "report", run, solved=2)
    first, second = (read_results(run.path / "report") for run in runs)
    assert first.returns[runs[0].name, "first", "lazy", "sampled"].tolist() == [0.5] * 4
    joined = merge([replace(first, best=best(EARNED)), replace(second, best=best(EARNED))])
    assert joined.best == best(EARNED) and len(joined.returns) == len(first.returns) + len(second.returns)
    with pytest.raises(ResultsError, match="different best responses"):
        merge([first, replace(second, best=best(EARNED))])
