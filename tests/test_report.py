"""`llm-sra report`: numbers, what it refuses, and that nothing a partner wrote is ever markup. Results are made up."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from eval.groups import differing, groups
from eval.report import ReportError, figures, gather, main, write_report
from eval.report.episodes import sample, script_json
from eval.report.figures import Picture
from eval.report.headline import TRAINED, arms_sentence
from eval.report.markdown import escaped
from eval.report.robustness import series
from eval.stats import wilson
from llm_sra.evaluation.records import EvaluatedEpisode, Record, TeamRecord
from llm_sra.evaluation.results import ResultsError, Summary, read_episodes, read_results, write_results
from llm_sra.partners.rosters import read_roster
from llm_sra.runs import Run
from llm_sra.trainer.arms import ARMS
from recipes import cli

SEATS = ("first", "second")
PARTNERS = ("lazy", "diligent")
HOSTILE = "</script><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium")


def run_folder(path: Path, arm: str, seed: int = 1, metrics: bool = True, **config) -> Run:
    path.mkdir(parents=True)
    arguments = {"arm": arm, "task": "worksheet", "seed": seed, "output_dir": str(path), **config}
    (path / "config.yaml").write_text(json.dumps({"heroes": {s: s for s in SEATS}, "arguments": arguments}))
    if metrics:
        names = [f"play/{seat}/{seat}/{what}" for seat in SEATS for what in ("return", "effort", "tokens")]
        names += [f"policy/{seat}/entropy" for seat in SEATS]
        names += ["policy/adversary-of-first/kl_to_partner"] if arm == "srpo" else []
        lines = [{"step": step, **{name: 1 / step for name in names}} for step in range(1, 6)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Run.open(path)


def evaluated(
    folder: Path,
    run: Run,
    solved: int,
    n: int = 4,
    partners=PARTNERS,
    effort=(2.0, 0.0),
    text="12+3=15",
    decodings=("sampled",),
) -> None:
    """An evaluation in which the first `solved` of `n` problems are solved with each partner, all in self-play."""
    records, lines = [], []
    arm = run.config["arm"]
    for decoding in decodings:
        for seat, own, other in ((SEATS[0], *effort), (SEATS[1], *effort[::-1])):
            for partner in ("self-play", *partners):
                count = n if partner == "self-play" else solved
                share = wilson(count, n)
                rate, ends = share.value, (share.low, share.high)
                records.append(Record(run.name, arm, seat, partner, decoding, n, rate, ends, rate, rate, own, other))
                key = {"run": run.name, "arm": arm, "seat": seat, "partner": partner, "decoding": decoding}
                rest = {"own_return": 0.5, "effort": dict(zip(SEATS, effort, strict=True))}
                said = [[SEATS[0], text], [SEATS[1], "pass"]]
                lines += [{**key, "problem": f"p{i}", "solved": i < count, **rest, "said": said} for i in range(n)]
    summary = Summary(tuple(records), {"split": "test", "seed": 0})
    write_results(folder, summary, map(EvaluatedEpisode.read, lines))


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """IPPO solves 8 of 32 with strangers, and one seat does all; SRPO solves 24 and shares the work evenly."""
    made = []
    for arm, solved, effort in (("ippo", 8, (2.0, 0.0)), ("srpo", 24, (1.5, 1.5))):
        for seed in (1, 2):
            run = run_folder(tmp_path / "q" / f"{arm}-seed{seed}", arm, seed, tau=10 if arm == "srpo" else 10.0)
            evaluated(run.path / "report", run, solved, n=32, effort=effort)
            made.append(run)
    return made


class Tags(HTMLParser):
    """Tags, scripts and text of a page, as a parser of HTML sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def report(folder: Path, runs: list[Run], **choices) -> tuple[str, str]:
    write_report(gather(runs, **choices), folder)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


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
    row = re.search(r"\| srpo less ippo \| all partners \| sampled \| (.*) \|", text)[1]
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
    assert "| srpo less ippo | all partners | sampled | -0.25 [" in text


def test_two_seeds_against_two_others_are_not_compared_and_it_says_so(tmp_path):
    made = [run_folder(tmp_path / f"r{seed}", "ippo" if seed < 3 else "srpo", seed) for seed in (1, 2, 3, 4)]
    for run in made:
        evaluated(run.path / "report", run, 2)
    _, text = report(tmp_path / "out", made)
    assert "Not compared: ippo and srpo have no seed in common, so they are not paired." in text


def test_every_picture_of_the_markdown_is_there_and_the_page_has_as_many(tmp_path, runs):
    html, text = report(tmp_path / "out", runs)
    pictures = re.findall(r"!\[[^\]]*\]\((figures/[\w-]+\.png)\)", text)
    # Heat map, partners; return, effort, entropy, length in two seats; the KL of one adversary.
    assert len(pictures) == len(set(pictures)) == 2 + 4 * 2 + 1
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    sources = [attributes["src"] for tag, attributes in Tags(html).tags if tag == "img"]
    assert len(sources) == 11 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_the_same_input_makes_the_same_files(tmp_path, runs):
    assert report(tmp_path / "a", runs) == report(tmp_path / "b", runs)


def test_runs_that_met_are_columns_of_the_heat_map(tmp_path, runs, monkeypatch):
    drawn = {}

    def kept(figure, name, caption, wide=False):
        if name == "cross-play":
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
        ([str(runs[0].path), "--roster", "nowhere"], "shipped roster"),
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


# -- robustness ------------------------------------------------------------------------------------------------------


def test_perturbed_partners_make_a_curve_that_begins_with_the_partner_itself(tmp_path):
    roster = tmp_path / "roster.yaml"
    inner = "of: {kind: scripted, policy: diligent}"
    roster.write_text(
        "partners:\n  - {name: good, kind: scripted, policy: diligent}\n"
        + f"  - {{name: deaf, kind: perturbed, {inner}, how: drop}}\n"
        + f"  - {{name: hazy, kind: perturbed, {inner}, how: drop, probability: 0.3, seed: 1}}\n"
        + f"  - {{name: other, kind: perturbed, {inner}, how: cut, probability: 0.3}}\n"
    )
    (curve, alone) = series(read_roster(roster), ["good", "deaf", "hazy", "other"])
    assert (curve.partner, curve.how, curve.points) == ("good", "drop", ((0.0, "good"), (0.3, "hazy"), (1.0, "deaf")))
    assert alone.points == ((0.0, "good"), (0.3, "other"))
    assert series(read_roster(roster), ["deaf", "lazy"]) == []  # one point is no curve
    run = run_folder(tmp_path / "one", "srpo")
    evaluated(run.path / "report", run, 2, partners=("good", "hazy", "deaf"))
    _, text = report(tmp_path / "out", [run], roster=roster)
    assert "| partner | probability | srpo |" in text
    assert "| good: drop | 0.3 | 0.50 |" in text and (tmp_path / "out/figures/robustness-1.png").is_file()


def test_one_partner_at_several_temperatures_is_one_curve_that_begins_at_its_own(tmp_path):
    roster = tmp_path / "roster.yaml"
    live = "kind: perturbed, how: temperature, of: {kind: live}"
    roster.write_text(
        "partners:\n  - {name: own, kind: live}\n"
        + f"  - {{name: hot, {live}, temperature: 2}}\n"
        + f"  - {{name: warm, {live}, temperature: 1.5}}\n"
        + f"  - {{name: at-times, {live}, temperature: 1.5, probability: 0.5}}\n"
    )
    names = ["own", "hot", "warm", "at-times"]
    (curve, at_times) = series(read_roster(roster), names)
    assert (curve.partner, curve.how, curve.over) == ("own", "temperature", "temperature")
    assert curve.points == ((1.0, "own"), (1.5, "warm"), (2.0, "hot"))
    assert (at_times.how, at_times.over) == ("temperature, temperature 1.5", "probability")
    assert at_times.points == ((0.0, "own"), (0.5, "at-times"))
    assert series(read_roster(roster), names, "greedy")[0].points[0] == (0.0, "own")
    run = run_folder(tmp_path / "one", "srpo")
    evaluated(run.path / "report", run, 2, partners=("own", "hot"))
    _, text = report(tmp_path / "out", [run], roster=roster)
    assert "| partner | temperature | srpo |" in text and "| own: temperature | 2 | 0.50 |" in text


def test_how_far_partners_are_is_a_table_nearest_first_and_a_picture(tmp_path, monkeypatch):
    run = run_folder(tmp_path / "one", "srpo")
    evaluated(run.path / "report", run, 2, partners=("near", "far", "says"))
    path = run.path / "report" / "results.json"
    loaded = json.loads(path.read_text())
    nats = {("first", "near"): -0.25, ("second", "near"): -1e-7, ("first", "far"): 60.0, ("second", "far"): 1.5}
    rates = {("first", "near"): 1.0, ("second", "near"): 0.5, ("first", "far"): 0.25, ("second", "far"): 0.0}
    for record in loaded["records"]:
        if (key := (record["seat"], record["partner"])) in nats:
            record["metrics"] = {f"divergence/{SEATS[1 - SEATS.index(key[0])]}": nats[key]}
            record["solve_rate"] = rates[key]
    path.write_text(json.dumps(loaded))
    path = path.with_name("episodes.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if (key := (line["seat"], line["partner"])) in rates:
            line["solved"] = int(line["problem"][1:]) < 4 * rates[key]  # p0 to p3
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = {}
    kept = figures._kept

    def watched(figure, name, caption, wide=False):
        if name == "divergence":
            (panel,) = figure.axes
            drawn["points"] = np.asarray(panel.collections[0].get_offsets()).tolist()
            drawn["line"] = np.asarray(panel.lines[0].get_xydata()).tolist()
            drawn["ticks"] = [label.get_text() for label in panel.get_xticklabels()]
        return kept(figure, name, caption, wide)

    monkeypatch.setattr(figures, "_kept", watched)
    _, text = report(tmp_path / "out", [run])
    rows = re.findall(r"^\| one \(srpo\), (\w+) \| (\w+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    assert rows == [  # a partner that speaks text has no row; chance below 0 is shown as it is
        ("first", "near", "-0.25", "1.00"),
        ("second", "near", "0.00", "0.50"),
        ("second", "far", "1.50", "0.00"),
        ("first", "far", "60.00", "0.25"),
    ]
    assert drawn["points"] == [[0.0, 1.0], [0.0, 0.5], [1.5, 0.0], [60.0, 0.25]]
    assert drawn["line"] == [[0.0, 0.75], [30.75, 0.125]]  # means over the two seats
    assert drawn["ticks"] == ["0", "1", "2", "5", "10", "20", "50"]
    assert (tmp_path / "out/figures/divergence.png").is_file()


# -- episodes --------------------------------------------------------------------------------------------------------


def test_json_in_a_script_holds_no_markup_and_reads_back():
    value = {"t": HOSTILE + "&amp;<!--\u2028\u2029\ud800é", "x": [1.5, float("nan"), float("inf")]}
    text = script_json(value)
    assert not set(text) & set("<>&\u2028\u2029\ud800") and "é" in text
    assert json.loads(text) == {"t": value["t"], "x": [1.5, None, None]}


def test_hostile_text_never_becomes_markup(tmp_path):
    run = run_folder(tmp_path / "one", "srpo")
    evaluated(
        run.path / "report", run, 2, partners=(HOSTILE, "$\\frac{$", "a|b\n# c ![x](http://x/y.png)"), text=HOSTILE
    )
    html, text = report(tmp_path / "out", [run])
    page = Tags(html)
    assert [tag for tag, attributes in page.tags if "onerror" in attributes or attributes.get("src") == "x"] == []
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert HOSTILE in page.text  # as a partner's name, shown as it is
    assert "<img" not in text and "](http" not in text and "\n# c" not in text
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_markdown_shows_names_as_they_are():
    assert escaped("a|b\n_c_ [x](y) <b>&") == r"a\|b \_c\_ [x]\(y) &lt;b&gt;&amp;"


def test_the_sample_is_alike_in_all_runs_and_says_how_many_of_how_many(runs):
    gathered = gather(runs)
    assert (sample(gathered).shown, sample(gathered).found) == (768, 768)  # 4 runs, 2 seats, 3 partners, 32 problems
    few = sample(gathered, per_cell=2)
    assert (few.shown, few.found, few.per_cell) == (48, 768, 2)
    chosen = {}
    for row in json.loads(few.json)["rows"]:
        chosen.setdefault((row["s"], row["p"]), {}).setdefault(row["r"], []).append(row["q"])
    assert all(len(set(map(tuple, by_run.values()))) == 1 for by_run in chosen.values())
    assert sample(gathered, limit=1).shown == 24  # one of each is always there


def test_training_episodes_have_the_rewards_of_each_turn(tmp_path):
    run = run_folder(tmp_path / "one", "srpo")
    evaluated(run.path / "report", run, 2)
    (run.path / "episodes").mkdir()
    line = {
        "step": 1, "problem": "1+2", "match": "adversary-of-first", "solved": True, "effort": {"first": 1.0},
        "policies": {"first": "first", "second": "adversary-of-first"}, "returns": {"first": 0.9, "second": 1.0},
        "turns": [{"seat": "first", "step": 0, "text": "1+2=3"}, {"seat": "second", "step": 1, "text": ""}],
        "rewards": {"first": [[0.0, 0.0, 0.1], [1.0, 0.0, 0.0]], "second": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]},
    }  # fmt: skip
    (run.path / "episodes" / "step-000001.jsonl").write_text(json.dumps(line) + "\n")
    row = json.loads(sample(gather([run])).json)["rows"][-1]
    assert (row["s"], row["p"], row["d"], row["step"]) == ("first", "adversary-of-first", "training", 1)
    assert row["t"] == [["first", "1+2=3", [0.0, 0.0, 0.1]], ["second", "", [1.0, 0.0, 0.0]]]


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


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A page of 10,000 episodes and more, with 2,000 characters in each and a hostile partner."""
    folder = tmp_path_factory.mktemp("large")
    run = run_folder(folder / "one", "srpo")
    evaluated(run.path / "report", run, 900, n=1700, partners=(HOSTILE, "lazy"), text=HOSTILE + "x" * 2000)
    main([str(run.path), "--out", str(folder / "out")])
    return folder / "out" / "report.html"


def test_10000_episodes_stay_under_20_megabytes(large):
    page = Tags(large.read_text()).text
    assert large.stat().st_size < 20_000_000
    assert "2,400 of 10,200 episodes are in this page, at most 400 of each run" in page  # 6 cells of 1,700


def opened(page: Path, profile: Path) -> str:
    """What a headless browser made of a page."""
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    flags += "--disable-component-update --disable-sync --dump-dom"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_opens_10000_episodes_in_3_seconds_and_shows_hostile_text_as_text(large, tmp_path):
    page = Tags(opened(large, tmp_path))
    assert int(dict(page.tags[0][1])["data-ready"]) < 3000  # ms from the request to the first episodes
    tags = [tag for tag, _ in page.tags]
    assert tags.count("article") == 10 and tags.count("script") == 2
    assert not any("onerror" in attributes or attributes.get("src") == "x" for _, attributes in page.tags)
    assert page.text.count(HOSTILE) >= 10


def test_tokens_go_with_the_replies_of_evaluations_that_have_them(tmp_path):
    run = run_folder(tmp_path / "one", "srpo")
    evaluated(run.path / "report", run, 2)
    assert not sample(gather([run])).tokens
    path = run.path / "report" / "episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["turns"][0] |= {"logprobs": [-0.1, -2.0], "widths": [5, 2]}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    store = sample(gather([run]))
    assert store.tokens
    assert json.loads(store.json)["rows"][0]["t"] == [
        ["first", "12+3=15", None, [-0.1, -2.0], [5, 2]],
        ["second", "pass"],
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shades_each_token_by_its_log_probability(tmp_path):
    run = run_folder(tmp_path / "one", "srpo")
    evaluated(run.path / "report", run, 2, text="<b>\U0001f600=15")
    path = run.path / "report" / "episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    # The second token is the first half of a character, the last one ends the reply.
    for line in lines:
        line["turns"][0] |= {"logprobs": [-0.1, -1.5, -1.0, -9.0, -0.25], "widths": [3, 0, 1, 3, 0]}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    main([str(run.path), "--out", str(tmp_path / "out")])
    dom = opened(tmp_path / "out" / "report.html", tmp_path / "profile")
    page = (tmp_path / "out" / "report.html").read_text()
    page = page.replace("http-equiv", "data-was")  # so that a script of ours may run
    click = "<script>document.querySelectorAll('article .token')[1].click()</script></body>"
    (tmp_path / "out" / "clicked.html").write_text(page.replace("</body>", click))
    told = Tags(opened(tmp_path / "out" / "clicked.html", tmp_path / "profile")).text
    assert told.count("log-probability -2.50, probability 0.082") == 1
    assert "log-probability -2.50" not in Tags(dom).text
    shades = re.findall(r'<span class="token (t\d(?: end)?)" title="([^"]*)">([^<]*)</span>', dom.split("<article>")[1])
    assert shades == [
        ("t0", "log-probability -0.10, probability 0.905", "&lt;b&gt;"),
        ("t2", "log-probability -2.50, probability 0.082", "\U0001f600"),
        ("t4", "log-probability -9.00, probability below 0.001", "=15"),
        ("t0 end", "end of the reply: log-probability -0.25, probability 0.779", "\u23ce"),
    ]
