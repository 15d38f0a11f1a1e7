"""Statistics of an evaluation, against numbers computed by hand."""

import numpy as np
import pytest
from scipy.stats import binom

from eval.stats import (
    Estimate,
    StatsError,
    compare_arms,
    compare_runs,
    hierarchical_bootstrap,
    mean_interval,
    paired_bootstrap,
    seed_interval,
    summarise,
    wilson,
)
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary
from llm_sra.evaluation.results import Results, ResultsError, labels, merge, read_results, write_results

PROBLEMS = ("1+2+3", "4+5+6", "7+8+9", "1+1+1")


def record(
    run: str = "r/a", seat: str = "first", partner: str = "self-play", solve_rate: float = 0.5, **more
) -> Record:
    numbers = {"n": 4, "team_reward": 0.0, "own_return": 0.0, "effort_own": 0.0, "effort_partner": 0.0, **more}
    return Record(
        run=run, arm="ippo", seat=seat, partner=partner, decoding="sampled", solve_rate=solve_rate,
        solve_rate_ci95=(0.0, 1.0), **numbers,
    )  # fmt: skip


def results(solved: dict[tuple[str, str, str], str], problems: tuple[str, ...] = PROBLEMS) -> Results:
    """By (run, seat, partner) a string of 0 and 1, one per problem."""
    flags = {(*key, "sampled"): np.array([c == "1" for c in text]) for key, text in solved.items()}
    records = tuple(record(*key, float(np.mean([c == "1" for c in text]))) for key, text in solved.items())
    return Results(records, dict.fromkeys(flags, problems), flags, {"seed": 0})


def test_wilson_of_nothing_solved():
    # z = 1.95996, z^2 = 3.84146: the upper end is z^2 / (n + z^2) = 3.84146 / 67.84146
    got = wilson(0, 64)
    assert (got.value, got.low) == (0.0, 0.0)
    assert got.high == pytest.approx(0.0566240, abs=1e-6)


def test_identical_runs_differ_by_exactly_nothing():
    outcomes = np.random.default_rng(0).random(50)
    assert paired_bootstrap(outcomes, outcomes) == Estimate(0.0, 0.0, 0.0)
    assert hierarchical_bootstrap([outcomes] * 3, [outcomes] * 3) == Estimate(0.0, 0.0, 0.0)


def test_the_difference_is_the_later_less_the_first():
    assert paired_bootstrap([0.0] * 8, [0.25] * 8) == Estimate(0.25, 0.25, 0.25)
    assert paired_bootstrap([0.25] * 8, [0.0] * 8) == Estimate(-0.25, -0.25, -0.25)


def test_the_bootstrap_of_a_share_has_the_binomial_quantiles():
    # Resampling 6 of 10 solved draws Binomial(10, 0.6) / 10: its 2.5 % and 97.5 % quantiles are 3 and 9.
    assert (binom.ppf(0.025, 10, 0.6), binom.ppf(0.975, 10, 0.6)) == (3, 9)
    got = paired_bootstrap([0] * 10, [1] * 6 + [0] * 4)
    assert (got.value, got.low, got.high) == pytest.approx((0.6, 0.3, 0.9))


def test_pairing_removes_what_both_runs_share():
    hard = np.random.default_rng(0).random(40)
    later = hard + 0.1
    paired = paired_bootstrap(hard, later)
    shuffled = paired_bootstrap(hard, np.roll(later, 7))
    assert paired.high - paired.low == pytest.approx(0.0, abs=1e-12)
    assert shuffled.high - shuffled.low > 0.1


def test_the_bootstrap_depends_on_its_seed_only():
    a, b = np.random.default_rng(1).random((2, 30))
    before = np.random.get_state()[1].tolist()
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)
    assert np.random.get_state()[1].tolist() == before


def test_chunks_do_not_lose_resamples(monkeypatch):
    monkeypatch.setattr("eval.stats.resampling.CHUNK", 70)  # 7 resamples of 10 problems at once
    got = paired_bootstrap([0] * 10, [1] * 6 + [0] * 4)
    assert (got.low, got.high) == pytest.approx((0.3, 0.9))


def test_the_paired_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        first = rng.random(40)
        later = first + rng.exponential(0.3, 40)  # the true difference is 0.3
        got = paired_bootstrap(first, later, resamples=400, seed=trial)
        covered += got.low <= 0.3 <= got.high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_hierarchical_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        # Seeds, problems and both together: standard deviations 0.2, 0.2 and 0.3; the true difference is 0.1.
        difference = 0.1 + rng.normal(0, 0.2, (12, 1)) + rng.normal(0, 0.2, 30) + rng.normal(0, 0.3, (12, 30))
        got = hierarchical_bootstrap(np.zeros((12, 30)), difference, resamples=300, seed=trial)
        covered += got.low <= 0.1 <= got.high
    assert 0.89 <= covered / 200 <= 0.98


def test_what_all_seeds_share_does_not_average_out():
    # Every seed has the same difference per problem: five seeds know no more about the problems than one.
    difference = np.random.default_rng(0).random(30)
    one = paired_bootstrap(np.zeros(30), difference)
    five = hierarchical_bootstrap(np.zeros((5, 30)), [difference] * 5)
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.05)


def test_seeds_that_differ_widen_the_interval():
    # Problems agree, seeds do not: differences 0 and 1. Of two drawn seeds both are 0 in a quarter of the draws.
    assert hierarchical_bootstrap(np.zeros((2, 20)), [[0] * 20, [1] * 20]) == Estimate(0.5, 0.0, 1.0)


def test_the_interval_over_seeds_is_students():
    # Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, t(0.975, 2) = 4.302653, half 4.302653 * 0.1 / sqrt(3).
    got = seed_interval([0.5, 0.5, 0.5], [0.6, 0.7, 0.8])
    assert (got.value, got.low, got.high) == pytest.approx((0.2, 0.2 - 0.2484138, 0.2 + 0.2484138))


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda: mean_interval([0.5]), "2 finite numbers or more"),
        (lambda: mean_interval([0.5, float("nan")]), "2 finite numbers or more"),
        (lambda: paired_bootstrap([1.0, float("nan")], [1.0, 0.0]), "finite"),
        (lambda: paired_bootstrap([1.0], [1.0, 0.0]), r"\(1,\), \(2,\)"),
        (lambda: paired_bootstrap([], []), r"\(0,\)"),
        (lambda: hierarchical_bootstrap([[1.0]], [[1.0], [0.0]]), r"\(1, 1\), \(2, 1\)"),
        (lambda: seed_interval([[1.0]], [[1.0]]), "1 dimension"),
    ],
)
def test_numbers_that_make_no_interval_are_refused(compute, says):
    with pytest.raises(StatsError, match=says):
        compute()


def test_the_summary_of_a_seat():
    # Rates with strangers 0.25, 1.0, 0.5: mean 1.75 / 3, worst 0.25, spread 0.75; self-play is not among them.
    # Effort 0.5 of 2.0 in all: share 0.25. Reliance: 0.75 - 0.25.
    own = record(solve_rate=0.75, effort_own=0.5, effort_partner=1.5)
    rates = {"lazy": 0.25, "diligent": 1.0, "half": 0.5}
    (got,) = summarise(
        [own, *(record(partner=name, solve_rate=rate, effort_own=9.0) for name, rate in rates.items())], "lazy"
    )
    assert (got.run, got.arm, got.seat, got.decoding, got.n) == ("r/a", "ippo", "first", "sampled", 4)
    assert (got.self_play, got.partners, got.worst, got.spread) == (0.75, rates, 0.25, 0.75)
    assert got.mean == pytest.approx(1.75 / 3)
    assert (got.effort, got.contribution_share, got.reliance) == (0.5, 0.25, 0.5)


def test_what_cannot_be_said_is_none():
    (got,) = summarise([record()])
    assert (got.mean, got.worst, got.spread, got.contribution_share, got.reliance) == (None,) * 5
    (got,) = summarise([record(), record(partner="half")], "lazy")
    assert (got.mean, got.reliance) == (0.5, None)


def test_a_summary_without_self_play_is_refused():
    with pytest.raises(StatsError, match="self-play"):
        summarise([record(partner="lazy")])


def test_summaries_keep_runs_and_seats_apart():
    records = [record(run, seat, partner) for run in "ab" for seat in "xy" for partner in ("self-play", "lazy")]
    assert [(s.run, s.seat) for s in summarise(records)] == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


def two_runs() -> Results:
    return results(
        {
            ("r/a", "first", "self-play"): "1110",
            ("r/a", "first", "lazy"): "0000",
            ("r/a", "second", "self-play"): "1110",
            ("r/a", "second", "lazy"): "1100",
            ("r/b", "first", "self-play"): "1111",
            ("r/b", "first", "lazy"): "1110",
            ("r/b", "second", "self-play"): "1111",
            ("r/b", "second", "lazy"): "1110",
        }
    )


def test_outcomes_are_averaged_over_seats_and_partners_per_problem():
    both = two_runs()
    assert both.per_problem("r/a", "sampled", ["lazy"]).tolist() == [0.5, 0.5, 0.0, 0.0]
    assert both.per_problem("r/a", "sampled", ["lazy", "self-play"]).tolist() == [0.75, 0.75, 0.5, 0.0]


def test_two_runs_compared():
    # With lazy, per problem: 0.5, 0.5, 0, 0 against 1, 1, 1, 0; differences 0.5, 0.5, 1, 0. Self-play: 0, 0, 0, 1.
    got = compare_runs(two_runs(), "r/a", "r/b", "sampled", ["lazy"])
    assert compare_runs(two_runs(), "r/a", "r/b", "sampled", ["self-play"]).resampled.value == 0.25
    assert got.resampled.value == got.student.value == 0.5
    assert 0.0 <= got.resampled.low < 0.5 < got.resampled.high <= 1.0
    # Deviation sqrt(1/6), t(0.975, 3) = 3.1824: half is 3.1824 sqrt(1/6) / 2 = 0.6496; the upper end is cut.
    assert got.student.low == pytest.approx(-0.1496, abs=1e-4) and got.student.high == 1


def test_two_arms_compared_by_the_number_of_their_seeds():
    # Seed 1: no difference. Seed 2 with lazy in the one seat: 3/4 less 1/4. The order of the mappings does not matter.
    solved = {"a1": "1100", "a2": "1000", "b1": "1100", "b2": "1110"}
    both = results({(f"s/{name}", "first", "lazy"): text for name, text in solved.items()})
    got = compare_arms(both, {1: "s/a1", 2: "s/a2"}, {2: "s/b2", 1: "s/b1"}, "sampled")
    assert (got.seeds, got.per_seed) == ((1, 2), (0.0, 0.5))
    assert got.problems_and_seeds.value == got.over_seeds.value == 0.25
    # Deviation sqrt(0.125), t(0.975, 1) = 12.7062: half is 12.7062 * sqrt(0.125 / 2), far beyond what shares differ by.
    assert seed_interval([0, 0], [0.0, 0.5]).high - 0.25 == pytest.approx(3.17655, abs=1e-4)
    assert (got.over_seeds.low, got.over_seeds.high) == (-1, 1)
    one = compare_arms(both, {1: "s/a2"}, {1: "s/b2"}, "sampled")
    assert one.over_seeds is None and one.problems_and_seeds.value == 0.5


def test_arms_with_different_seeds_are_refused():
    with pytest.raises(StatsError, match=r"\[1\] and \[2\]"):
        compare_arms(two_runs(), {1: "r/a"}, {2: "r/b"}, "sampled")


def test_runs_on_different_problems_are_refused():
    a = results({("r/a", "first", "lazy"): "1100"})
    b = results({("r/b", "first", "lazy"): "1100"}, problems=(*PROBLEMS[1:], PROBLEMS[0]))
    with pytest.raises(StatsError, match="different problems"):
        compare_runs(merge([a, b]), "r/a", "r/b", "sampled", ["lazy"])


def test_results_are_merged_once_and_only_with_their_like():
    a = results({("r/a", "first", "lazy"): "1100"})
    assert merge([a, results({("r/b", "first", "lazy"): "1100"})]).runs == ("r/a", "r/b")
    with pytest.raises(ResultsError, match="more than once: r/a"):
        merge([a, a])
    with pytest.raises(ResultsError, match="one roster"):
        merge([a, results({("r/b", "first", "half"): "1100"})])


def written(rates: dict[str, list[bool]]) -> tuple[tuple[Record, ...], list[EvaluatedEpisode]]:
    records = [record(partner=name, solve_rate=sum(solved) / 4) for name, solved in rates.items()]
    lines = [
        {"run": "r/a", "seat": "first", "partner": name, "decoding": "sampled", "problem": problem, "solved": flag}
        | {"turns": []}
        for name, solved in rates.items()
        for problem, flag in zip(PROBLEMS, solved, strict=True)
    ]
    return tuple(records), list(map(EvaluatedEpisode.read, lines))


def test_results_are_read_as_they_were_written(tmp_path):
    records, lines = written({"self-play": [True, True, False, True], "lazy": [False, False, True, False]})
    write_results(tmp_path, Summary(records, {"seed": 5}), lines)
    got = read_results(tmp_path)
    assert (got.records, got.settings) == (records, {"seed": 5})
    assert (got.runs, got.seats, got.partners, got.decodings) == (("r/a",), ("first",), ("lazy",), ("sampled",))
    assert got.problem_ids("r/a", "sampled", ["lazy"]) == PROBLEMS
    assert got.per_problem("r/a", "sampled", ["lazy"]).tolist() == [0.0, 0.0, 1.0, 0.0]


def test_files_of_two_evaluations_are_not_read_as_one(tmp_path):
    records, _ = written({"self-play": [True, True, False, True]})
    _, lines = written({"self-play": [True, True, False, False]})
    write_results(tmp_path, Summary(records, {}), lines)
    with pytest.raises(ResultsError, match="not of one evaluation"):
        read_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"results\.json"):
        read_results(tmp_path)


def test_run_names_are_short_only_if_they_stay_apart():
    assert labels(["quickstart/ippo", "quickstart/srpo"]) == {"quickstart/ippo": "ippo", "quickstart/srpo": "srpo"}
    assert labels(["a/ippo", "b/ippo"]) == {"a/ippo": "a/ippo", "b/ippo": "b/ippo"}
