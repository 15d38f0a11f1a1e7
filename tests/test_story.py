"""A comparison in one sentence and one table, on made-up evaluations whose numbers are known."""

from dataclasses import replace
from pathlib import Path

from report_support import evaluated, four_runs, run_folder
from rich.console import Console

from eval.report import gather
from eval.report.gather import Gathered
from eval.story import settings_grid, story
from recipes.comparing.ending import show


def gathered_of(tmp_path: Path, idle: str | None) -> Gathered:
    gathered = gather(four_runs(tmp_path))
    return replace(gathered, results=replace(gathered.results, settings={"idle": idle} if idle else {}))


def test_the_sentence_says_who_rests_and_what_comes_of_it(tmp_path: Path) -> None:
    # IPPO: efforts 2 and 0, 8 of 32 solved with lazy; SRPO: 1.5 and 1.5, 24 of 32.
    assert story(gathered_of(tmp_path, "lazy")) == (
        "With IPPO one agent rests (0% of the work), and beside a partner that rests the worse of the agents solves "
        "0.25; with SRPO no agent rests (the least busy does 50% of the work), and beside a partner that rests the "
        "worse of the agents solves 0.75 (share of problems solved, sampled, means over 2 seeds)."
    )


def test_without_a_partner_that_rests_it_says_how_they_do_with_others(tmp_path: Path) -> None:
    assert story(gathered_of(tmp_path, None)) == (
        "IPPO reaches 1.00 in self-play and 0.25 with the roster's 2 partners; SRPO reaches 1.00 in self-play and 0.75 "
        "with the roster's 2 partners (means over 2 seeds): share of problems solved, sampled."
    )


def test_one_setting_is_told_alone(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "q" / "ippo", "ippo")
    evaluated(run.path / "report", run, 1)
    assert story(gather([run])) == (
        "IPPO reaches 1.00 in self-play and 0.25 with the roster's 2 partners: share of problems solved, sampled."
    )


def test_the_table_has_a_row_for_each_setting(tmp_path: Path) -> None:
    grid = settings_grid(gathered_of(tmp_path, "lazy"))
    assert grid.header == ("setting", "self-play", "2 partners", "worst", "lazy", "least work")
    assert grid.sections == (
        (("ippo", "1.00", "0.25", "0.25", "0.25", "0.00"), ("srpo", "1.00", "0.75", "0.75", "0.75", "0.50")),
    )
    assert grid.notes[0].startswith("worst, lazy, least work: the worse seat of each run")
    assert grid.notes[1].startswith("srpo - ippo with the 2 partners: +0.50 [")


def test_the_end_has_25_lines_at_most_however_many_settings_there_are(tmp_path: Path) -> None:
    runs = []
    for tau in range(1, 10):
        run = run_folder(tmp_path / "q" / f"srpo-with-a-long-name-tau{tau}", "srpo", tau=tau)
        evaluated(run.path / "report", run, 1)
        runs.append(run)
    gathered = gather(runs)
    gathered = replace(gathered, results=replace(gathered.results, settings={"idle": "lazy"}))
    for width in (80, 100):
        console = Console(width=width, record=True, file=(tmp_path / "shown").open("w"))
        show(gathered, [(name, tmp_path) for name in ("report", "picture", "table", "runs")], ["a", "b"], console)
        lines = console.export_text().splitlines()
        assert len(lines) <= 25, "\n".join(lines)
        assert "5 more settings are in the report" in " ".join(" ".join(lines).split())
        assert not any("…" in line for line in lines)
