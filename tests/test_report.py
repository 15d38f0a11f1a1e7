"""`llm-sra report`: its numbers, and what it refuses. Results are made up."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from report_support import PARTNERS, SEATS, Tags, evaluated, four_runs, report, run_folder

from eval.groups import differing, groups
from eval.report import ReportError, figures, gather
from eval.report.episodes import sample
from eval.report.figures import Picture
from eval.report.headline import TRAINED, arms_sentence
from eval.stats import wilson
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary, TeamRecord
from llm_sra.evaluation.results import ResultsError, read_episodes, read_results, write_results
from llm_sra.runs import Run
from llm_sra.trainer.arms import ARMS
from recipes import cli


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return four_runs(tmp_path)


# -- what it says ----------------------------------------------------------------------------------------------------


def test_page_and_markdown_have_the_same_exact_numbers(tmp_path, runs):
    html, text = report(tmp_path / "out", runs)
    page = Tags(html).text
    for shown in (page, text):
        # 24/32 - 8/32 in each seed, in each seat, with each partner.
        assert (
            "SRPO's share of problems solved is 50 percentage points above IPPO's with the roster's 2 partners: +0.50"
            in shown
        )
        assert "No clear difference between SRPO and IPPO in the share of problems solved in self-play: +0.00" in shown
        # Effort 2 and 0; 1.5 and 1.5.
        assert "in IPPO the seat that worked least did 0% of the work (2 runs)" in shown
        assert "in SRPO the seat that worked least did 50% of the work (2 runs)" in shown
    row = re.search(r"\| srpo - ippo \| all partners \| sampled \| (.*) \|", text)[1]
    assert row.startswith("+0.50 [+") and row.endswith("| +0.50 (no spread) | +0.50, +0.50")
    assert re.search(r"\| lazy \| 0\.25 \| 0\.75 \| \+0\.50 \[", text)
    assert "| srpo-seed2 | second | lazy | sampled | 32 | 0.75 | [0.58, 0.87] | 0.75 | 0.75 | 1.50 | 1.50 |" in text


def test_it_says_whom_the_agents_of_each_arm_were_trained_with(tmp_path, runs):
    adversary = "an adversary in its partner's seat that lowers the agent's return and pays for straying from the live"
    assert arms_sentence(runs) == (
        f"How agents were trained: IPPO beside its live partner; SRPO with {adversary} partner."
    )
    sampled = run_folder(tmp_path / "sampled", "srpo", partners=["lazy"])
    untethered = run_folder(tmp_path / "zero", "srpo", tau=0.0)
    assert "SRPO with sampled partners, averse to the risk over them." in arms_sentence([sampled])
    assert "SRPO beside its live partner." in arms_sentence([untethered])
    assert set(TRAINED) == set(ARMS)
    html, text = report(tmp_path / "out", runs)
    assert arms_sentence(runs) in Tags(html).text and arms_sentence(runs) in text


def test_teams_that_were_played_are_in_the_report_of_the_runs_that_they_are_of(tmp_path):
    made = [run_folder(tmp_path / "q" / arm, arm) for arm in ("ippo", "srpo")]
    for run in made:
        evaluated(run.path / "report", run, 2)
        path = run.path / "report" / "results.json"
        # With an idle partner in the first seat nothing is earned; in the second seat nothing is lost.
        earned = {(): (1.0, 1.0), ("first",): (0.0, 0.0), ("second",): (1.0, 1.0), SEATS: (0.0, 0.0)}
        teams = [
            asdict(TeamRecord(run.name, run.config["arm"], "sampled", seats, "idle" if seats else "", 2, sum(r) / 2, r))
            for seats, r in earned.items()
        ]
        path.write_text(json.dumps({**json.loads(path.read_text()), "teams": teams}))
    for chosen in (made, made[1:]):
        _, text = report(tmp_path / "out", chosen)
        assert ("| ippo, first | +1.00 (no spread) |" in text) == (len(chosen) == 2)
        assert "| srpo, first | +1.00 (no spread) |\n| srpo, second | +0.00 (no spread) |" in text
        assert "Who contributes. It needs" not in text


def test_only_what_differs_in_the_configurations_is_shown(runs):
    assert differing(runs) == ("arm", "seed")  # neither output_dir nor tau, 10 and 10.0
    assert [(group.label, list(group.runs)) for group in groups(runs)] == [("ippo", [1, 2]), ("srpo", [1, 2])]


def test_settings_of_one_arm_are_groups_of_their_own(tmp_path):
    made = [run_folder(tmp_path / f"r{tau}-{seed}", "srpo", seed, tau=tau) for tau in (1, 10) for seed in (1, 2)]
    assert [group.label for group in groups(made)] == ["srpo (tau 1)", "srpo (tau 10)"]


def test_runs_of_different_seeds_are_compared_by_problem(tmp_path):
    ippo, srpo = run_folder(tmp_path / "a", "ippo", 1), run_folder(tmp_path / "b", "srpo", 2)
    for run, solved in ((ippo, 2), (srpo, 1)):
        evaluated(run.path / "report", run, solved)
    _, text = report(tmp_path / "out", [srpo, ippo])  # IPPO is held against whatever the order
    assert "| srpo - ippo | all partners | sampled | -0.25 [" in text


def test_two_seeds_against_two_others_are_not_compared_and_it_says_so(tmp_path):
    made = [run_folder(tmp_path / f"r{seed}", "ippo" if seed < 3 else "srpo", seed) for seed in (1, 2, 3, 4)]
    for run in made:
        evaluated(run.path / "report", run, 2)
    _, text = report(tmp_path / "out", made)
    assert "Not compared: ippo and srpo have no seed in common, so they are not paired." in text


def test_every_picture_of_the_markdown_is_there_and_the_page_has_as_many(tmp_path, runs):
    html, text = report(tmp_path / "out", runs)
    pictures = re.findall(r"!\[[^\]]*\]\((figures/[\w-]+\.png)\)", text)
    # Overview, heat map, partners; return, effort, entropy, length in two seats; the KL of one adversary.
    assert len(pictures) == len(set(pictures)) == 3 + 4 * 2 + 1
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    sources = [attributes["src"] for tag, attributes in Tags(html).tags if tag == "img"]
    assert len(sources) == 12 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_the_same_input_makes_the_same_files(tmp_path, runs):
    assert report(tmp_path / "a", runs) == report(tmp_path / "b", runs)


def test_runs_that_met_are_columns_of_the_heat_map(tmp_path, runs, monkeypatch):
    drawn = {}

    def kept(figure, name, caption, wide=False):
        if name == "matrix":
            drawn["columns"] = [label.get_text() for label in figure.axes[0].get_xticklabels()]
            drawn["rates"] = np.asarray(figure.axes[0].images[0].get_array())
            drawn["caption"] = caption
        return Picture(name, caption, b"<svg/>", b"", wide)

    names = [run.name for run in runs]
    records, lines = [], []
    for number, run in enumerate(names):
        for seat in SEATS:
            for other in (name for name in names if name != run):
                share = wilson(number, 4)
                numbers = (4, share.value, (share.low, share.high), share.value, share.value, 1.0, 1.0)
                records.append(Record(run, "x", seat, other, "sampled", *numbers))
                key = {"run": run, "seat": seat, "partner": other, "decoding": "sampled"}
                rest = {"own_return": 0.5, "effort": {}, "said": [[SEATS[0], "hm"]], "steps": [1]}
                rest["rewards"] = {SEATS[0]: [[0, 0, 0], [1, 0, 0.25]]}
                lines += [{**key, "problem": f"p{i}", "solved": i < number, **rest} for i in range(4)]
    parts = [read_results(run.path / "report") for run in runs]
    old = [line for run in runs for line in read_episodes(run.path / "report")]
    own = tuple(record for part in parts for record in part.records)
    summary = Summary(own, {}, cross_play=tuple(records))
    write_results(tmp_path / "all", summary, [*old, *map(EvaluatedEpisode.read, lines)])
    monkeypatch.setattr(figures, "_kept", kept)
    monkeypatch.setattr(figures, "MOST_ROWS", 8)
    gathered = gather(runs, [tmp_path / "all"])
    figures.heat_map(gathered, "sampled")
    width = 1 + len(PARTNERS)
    assert drawn["columns"][width:] == ["ippo-seed1", "ippo-seed2", "srpo-seed1", "srpo-seed2"]
    # Rows: two seats of each run. On the diagonal self-play, where all is solved; run k solves k of 4 with others.
    expected = [[1 if column == row else row / 4 for column in range(4)] for row in range(4) for _ in SEATS]
    assert drawn["rates"][:, width:].tolist() == expected
    assert "with the agents of each run" in drawn["caption"]
    monkeypatch.setattr(figures, "MOST_ROWS", 7)
    figures.heat_map(gathered, "sampled")
    # Settings: ippo's runs solve 0 and 1 of 4 with each other and with srpo's; srpo's 2 and 3.
    assert drawn["rates"][:, width:].tolist() == [[0.125, 0.125]] * 2 + [[0.625, 0.625]] * 2
    rows = json.loads(sample(gathered).json)["rows"]
    assert next(row["t"] for row in rows if row["p"] == names[1]) == [[SEATS[0], "hm", [1, 0, 0.25]]]


def test_a_difference_whose_interval_holds_0_is_not_called_one(tmp_path):
    made = [run_folder(tmp_path / arm, arm) for arm in ("ippo", "srpo")]
    for run, solved in zip(made, (1, 3), strict=True):
        evaluated(run.path / "report", run, solved)  # of 4: +0.5, but on 2 problems
    _, text = report(tmp_path / "out", made)
    assert (
        "No clear difference between SRPO and IPPO in the share of problems solved with the roster's 2 partners: +0.50"
        in text
    )
    assert "one seed, so nothing is said about others" in text


# -- what is missing -------------------------------------------------------------------------------------------------


def test_what_has_no_data_is_left_out_with_a_line(tmp_path):
    run = run_folder(tmp_path / "one", "srpo", metrics=False)
    evaluated(run.path / "report", run, 2, partners=())
    html, text = report(tmp_path / "out", [run])
    for shown in (Tags(html).text, text):
        assert "Training. It needs: metrics.jsonl in the run folders" in shown
        assert "Robustness. It needs: --roster ROSTER" in shown
        assert "Partners, ranked. It needs: evaluate with a roster that names partners" in shown
    assert "## Training" not in text and 'id="training"' not in html


def test_a_run_without_an_evaluation_is_named(tmp_path, runs):
    shutil.rmtree(runs[3].path / "report")
    _, text = report(tmp_path / "out", runs)
    assert "In no evaluation, so only their training is shown: q/srpo-seed2." in text


def test_bad_input_is_one_line_that_says_what_to_run(tmp_path, runs, capsys):
    out = ["--out", str(tmp_path / "out")]
    (tmp_path / "empty").mkdir()
    bare = run_folder(tmp_path / "bare", "ippo")
    for arguments, said in (
        ([str(tmp_path / "empty")], "is not a run: expected config.yaml"),
        ([str(bare.path)], f"run llm-sra eval --run {bare.path} --roster ROSTER --out {bare.path}/report"),
        ([str(bare.path), "--eval", str(runs[0].path / "report")], "which hold q/ippo-seed1"),
        ([str(bare.path), "--eval", str(tmp_path / "empty")], "as `llm-sra eval --out` writes it"),
        ([str(runs[0].path), "--roster", "nowhere"], "`llm-sra list rosters` shows those that ship"),
    ):
        assert cli.main(["report", *out, *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_run_in_two_evaluations_must_be_told_apart(tmp_path, runs):
    evaluated(tmp_path / "again", runs[0], 2)
    with pytest.raises(ReportError, match="name one of them with --eval"):
        gather(runs[:1], [tmp_path / "again", runs[0].path / "report"])
    assert gather(runs[:1], [tmp_path / "again"]).folders == {"q/ippo-seed1": (tmp_path / "again").resolve()}


def test_evaluations_that_do_not_belong_together_are_refused(tmp_path, runs):
    evaluated(tmp_path / "other", runs[1], 8, n=32, partners=("lazy",))
    with pytest.raises(ResultsError, match="evaluate all runs alike"):
        gather(runs[:2], [runs[0].path / "report", tmp_path / "other"])
