"""What the report says first: who rests, what that does beside a partner that rests, cross-play, budgets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from report_support import PARTNERS, SEATS, Tags, evaluated, report, run_folder

from eval.report import gather
from eval.report.budget import budget_grids
from eval.report.headline import cross_play_sentence, main_pairs, rest_sentence, work
from eval.report.sections import sections
from eval.story import story
from llm_sra.runs import Run

SOLVED = {"ippo": 2, "srpo": 24}  # of 32, with each partner
EFFORT = {"ippo": (2.0, 0.1), "srpo": (1.5, 1.5)}


def runs_of(tmp_path: Path, seeds: int = 2, study: str = "q", **config: Any) -> list[Run]:
    made = []
    for arm in ("ippo", "srpo"):
        for seed in range(1, seeds + 1):
            run = run_folder(tmp_path / study / f"{arm}-seed{seed}", arm, seed, tau=10, **config)
            evaluated(run.path / "report", run, SOLVED[arm], n=32, effort=EFFORT[arm])
            path = run.path / "report" / "results.json"
            found = json.loads(path.read_text())
            found["settings"]["idle"] = "lazy"
            path.write_text(json.dumps(found))
            made.append(run)
    return made


def test_the_story_names_who_rests_and_what_is_solved_beside_a_partner_that_rests(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    story = (
        "With IPPO one agent rests (5% of the work), and beside a partner that rests the worse of the agents solves "
        "0.06; with SRPO no agent rests (the least busy does 50% of the work), and beside a partner that rests the "
        "worse of the agents solves 0.75 (share of problems solved, sampled, means over 2 seeds)."
    )
    html, text = report(tmp_path / "out", runs)
    assert story in Tags(html).text and story in text
    assert text.index(story) < text.index("figures/overview.png") < text.index("srpo - ippo")


def test_runs_with_several_models_are_told_of_and_compared_model_by_model(tmp_path: Path) -> None:
    runs = [run for size in "AB" for run in runs_of(tmp_path, 1, size, model_name_or_path=f"Hub/{size}")]
    gathered = gather(runs)
    assert [group.label for group in gathered.groups] == [
        f"{arm} (model_name_or_path Hub/{size})" for size in "AB" for arm in ("ippo", "srpo")
    ]
    assert [[group.model for group in pair] for pair in main_pairs(gathered)] == [["Hub/A"] * 2, ["Hub/B"] * 2]
    first, *_ = sections(gathered)
    told = [first.lead, *first.sentences]
    for size in "AB":
        said = f"With IPPO (model_name_or_path Hub/{size}) one agent rests (5% of the work)"
        assert len([text for text in told if text.startswith(said)]) == 1
        assert said in story(gathered)
    differences = [row[0] for row in first.tables[0].sections[0]]
    assert set(differences) == {
        f"srpo (model_name_or_path Hub/{size}) - ippo (model_name_or_path Hub/{size})" for size in "AB"
    }


def test_arms_on_a_model_each_are_compared_and_their_names_say_it(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, 1)
    runs = [replace(run, config={**run.config, "model_name_or_path": f"Hub/{run.config['arm']}"}) for run in runs]
    [(ippo, srpo)] = main_pairs(gather(runs))
    assert (ippo.label, srpo.label) == ("ippo (model_name_or_path Hub/ippo)", "srpo (model_name_or_path Hub/srpo)")


def test_a_task_without_an_idle_partner_has_no_such_sentence(tmp_path: Path) -> None:
    gathered = gather(runs_of(tmp_path))
    [pair], works = main_pairs(gathered), work(gathered, "sampled")
    assert rest_sentence(gathered, pair, works) is not None
    without = replace(gathered, results=replace(gathered.results, settings={}))
    assert rest_sentence(without, pair, works) is None
    assert rest_sentence(gathered, pair, works[:1]) is None


def test_cross_play_is_told_in_the_first_section(tmp_path: Path) -> None:
    gathered = gather(runs_of(tmp_path))
    assert cross_play_sentence(gathered, gathered.known) is None
    own = [record for record in gathered.results.records if record.partner == "self-play"]
    met = tuple(  # half is solved with the arm's other seed; other arms did not meet
        replace(record, partner=other.name, solve_rate=0.5)
        for record in own
        for other in gathered.runs
        if other.name != record.run and other.config["arm"] == record.arm
    )
    first = sections(replace(gathered, results=replace(gathered.results, cross_play=met)))[0]
    assert (
        "Cross-play, the share of problems solved (sampled): IPPO 1.00 in self-play and 0.50 with other seeds; SRPO "
        "1.00 in self-play and 0.50 with other seeds."
    ) in first.sentences
    rows = next(grid for grid in first.tables if "cross-play" in grid.header).sections[0]
    assert rows[0] == ("ippo", "2", "1.00 (no spread)", "0.50", "+0.50")


def test_the_budget_counts_episodes_once_for_each_hero_that_they_train(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    for run in runs:
        both = run.config["arm"] == "ippo"
        line = {"episodes": 8, **{f"policy/{seat}/episodes": 8 if both else 4 for seat in SEATS}}
        line |= {f"play/{seat}/{seat}/tokens": 10 for seat in SEATS}
        (run.path / "metrics.jsonl").write_text("".join(json.dumps({"step": n, **line}) + "\n" for n in range(1, 4)))
    (grid,) = budget_grids(gather(runs))
    assert grid.sections == ((("ippo", "3", "24", "48", "480"), ("srpo", "3", "24", "24", "240")),)
    for run in runs:
        (run.path / "metrics.jsonl").unlink()
    assert budget_grids(gather(runs)) == []


def test_no_path_of_the_machine_is_in_the_report(tmp_path: Path) -> None:
    made = []
    for arm in ("ippo", "srpo"):
        run = run_folder(tmp_path / "q" / arm, arm, model_name_or_path=str(tmp_path / "models" / arm / "tiny"))
        evaluated(run.path / "report", run, 2)
        made.append(run)
    html, text = report(tmp_path / "out", made)
    assert str(tmp_path) not in html and str(tmp_path) not in text
    assert "ippo/tiny" in text


def test_what_a_newcomer_need_not_see_is_folded(tmp_path: Path) -> None:
    folded = {section.name for section in sections(gather(runs_of(tmp_path))) if section.folded}
    assert {"compared", "everything"} <= folded
    one_seed = gather(runs_of(tmp_path / "one", seeds=1))
    headers = [head for section in sections(one_seed) for grid in section.tables for head in grid.header]
    assert not any("Student" in head for head in headers)
    assert PARTNERS[0] in one_seed.results.partners
