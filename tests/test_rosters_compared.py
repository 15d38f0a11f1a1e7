"""The same agents with two rosters: what each says of the arms, and what of learned strangers scripts miss."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rosters
from benchmarks.learned_strangers import LEARNED
from benchmarks.rosters import ARMS, DECODING, SEEDS, Array, Compared, cells_of
from benchmarks.study_report import by_seed
from llm_sra.errors import UnknownNameError
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import Results

SEATS = ("first", "second")
PROBLEMS = 4
RUNS = {f"runs/{arm}-seed{seed}": (arm, seed) for arm, seed in product(ARMS, SEEDS)}


def results(solved: dict[str, dict[str, int]], kinds: dict[str, str]) -> Results:
    """Of four problems each run of an arm solves so many with each partner, in both seats."""
    records, ids, flags = [], {}, {}
    for (run, (arm, _)), seat, partner in product(RUNS.items(), SEATS, kinds):
        count = solved[arm][partner]
        key = (run, seat, partner, DECODING)
        ids[key] = tuple(f"p{number}" for number in range(PROBLEMS))
        flags[key] = np.array([1.0] * count + [0.0] * (PROBLEMS - count))
        share = count / PROBLEMS
        records.append(Record(run, arm, seat, partner, DECODING, PROBLEMS, share, (0.0, 1.0), 0, share, 0, 0))
    return Results(tuple(records), ids, flags, {}, kinds=kinds)


def profile(*shares: float) -> Array:
    return np.array(shares, dtype=np.float64)


def two() -> Compared:
    """With scripts SRPO is best; with learned strangers IPPO is."""
    test = {"ippo": {"lazy": 0, "model": 4}, "srpo": {"lazy": 4, "model": 4}, "untrained": {"lazy": 1, "model": 4}}
    learned = {"ippo": {"a": 4, "b": 3}, "srpo": {"a": 3, "b": 3}, "untrained": {"a": 4, "b": 1}}
    return Compared(
        "worksheet",
        {
            "test": results(test, {"lazy": "scripted", "model": "model"}),
            LEARNED: results(learned, {"a": "learned", "b": "learned"}),
        },
        seconds=90,
    )


def test_each_roster_has_its_order_of_the_arms_and_its_differences() -> None:
    test, learned = (row.strip("| ").split(" | ") for row in rosters.conclusions([two()]).splitlines()[2:])
    assert test[:7] == ["worksheet", "`worksheet_test`", "2", "0.50", "1.00", "0.62", "srpo > untrained > ippo"]
    assert learned[:7] == ["worksheet", "`worksheet_learned`", "2", "0.88", "0.75", "0.62", "ippo > srpo > untrained"]
    assert test[8].startswith("+0.50") and learned[8].startswith("-0.12")


def test_runs_are_those_of_an_arm_by_seed() -> None:
    found = {arm: by_seed(two().results["test"], arm) for arm in ARMS}
    assert all(list(runs) == list(SEEDS) for runs in found.values())
    assert found["srpo"] == {seed: f"runs/srpo-seed{seed}" for seed in SEEDS}


def test_all_arms_are_of_one_recipe() -> None:
    cells = cells_of("tag")
    assert {cell.recipe for cell in cells} == {"tag/srpo"}
    assert [cell.name for cell in cells] == [f"{arm}-seed{seed}" for seed in SEEDS for arm in ARMS]
    assert all(set(cell.flags) == {"arm", "seed"} for cell in cells)


def test_a_profile_is_of_one_partner_and_only_scripts_are_scripted() -> None:
    compared = two()
    assert len(compared.scripted) == 1 and len(compared.learned) == 2
    assert compared.scripted[0].shape == (len(RUNS) * len(SEATS),)
    assert sorted(set(compared.scripted[0])) == [0.0, 0.25, 1.0]


def test_noise_is_of_two_plays_of_one_partner() -> None:
    # Shares of 1, 3/4, 3/4, 3/4, 1, 1/4 of four flags: unbiased variances 0 and 1/4; 2 var / 4 is 0 or 1/8.
    assert two().noise == pytest.approx(math.sqrt(4 / 6 / 8))


def test_distances_are_root_mean_squares() -> None:
    zero, one, half = np.zeros(4), np.ones(4), np.full(4, 0.5)
    assert rosters.distance(zero, np.array([0.0, 0, 0, 1])) == pytest.approx(0.5)
    assert rosters.apart([zero, half, one]) == pytest.approx(2 / 3)
    assert rosters.unlike([zero, half], [one, zero]) == pytest.approx(0.25)


def test_what_is_missed_is_the_part_of_the_spread_that_no_script_is_near_to() -> None:
    zero, one, half = np.zeros(4), np.ones(4), np.full(4, 0.5)
    assert rosters.missed([zero, one], [one, zero], noise=0.0) == 0
    assert rosters.missed([zero, one], [half], noise=0.0) == pytest.approx(0.25)
    assert rosters.missed([zero, one], [half], noise=0.1) == pytest.approx((0.25 - 0.01) / (1 - 0.01))
    assert rosters.missed([zero, half], [one], noise=0.0) > 1
    assert math.isnan(rosters.missed([one, one], [zero], noise=0.1))  # nothing differs but by chance


def test_strangers_agree_where_they_rank_agents_alike() -> None:
    up, down, flat = profile(0, 1, 2, 3), profile(3, 2, 1, 0), profile(1, 1, 1, 1)
    assert rosters.agree([(up, profile(0, 1, 4, 9))]) == pytest.approx(1)
    assert rosters.agree([(up, down), (up, up)]) == pytest.approx(0)
    assert rosters.agree([(up, flat), (up, up)]) == pytest.approx(1)
    assert math.isnan(rosters.agree([(flat, up)]))


def test_rows_of_tasks_that_were_not_asked_for_stay() -> None:
    now = "| task | x |\n| --- | --- |\n| tag | 2 |\n\n| task | y |\n| --- | --- |\n| tag | 3 |"
    before = now.replace("| tag | 2 |", "| hanabi | 0 |\n| tag | 1 |").replace(
        "| tag | 3 |", "| kitchen | 5 |\n| tag | 4 |"
    )
    first, second = rosters.with_others(now, f"{before}\n").split("\n\n")
    assert first.splitlines()[2:] == ["| tag | 2 |", "| hanabi | 0 |"]
    assert second.splitlines()[2:] == ["| kitchen | 5 |", "| tag | 3 |"]


def test_a_roster_that_does_not_ship_is_an_error_before_any_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rosters, "ROSTERS", ("test", "absent"))
    with pytest.raises(UnknownNameError, match="tag_absent"):
        rosters.main(["tag", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_the_table_of_spreads_tells_the_time() -> None:
    row = rosters.spreads([two()]).splitlines()[-1].strip("| ").split(" | ")
    assert row[:3] == ["worksheet", "0.42 to 0.42", "0.58 to 0.92"]
    assert row[-1] == "2"  # 90 s
