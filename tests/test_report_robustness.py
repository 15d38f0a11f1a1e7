"""The report's curves over perturbed partners, and over the distance of partners."""

import json
import re

import numpy as np
from report_support import evaluated, report, run_folder
from support import SEATS

from eval.report import figures
from eval.report.robustness import series
from llm_sra.partners.rosters import read_roster


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
        if key == ("second", "far"):
            line["metrics"] = {"divergence/first": float(line["problem"][1:])}  # 0, 1, 2, 3
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
    rows = re.findall(r"^\| one \(srpo\), (\w+) \| (\w+) \| (.+?) \| (\S+) \|$", text, re.MULTILINE)
    assert rows == [  # a partner that speaks text has no row; chance below 0 is shown as it is
        ("first", "near", "-0.25", "1.00"),
        ("second", "near", "0.00", "0.50"),
        ("second", "far", "1.50 [-0.55, 3.55]", "0.00"),  # deviation 1.291, t(0.975, 3) = 3.182
        ("first", "far", "60.00", "0.25"),
    ]
    assert drawn["points"] == [[0.0, 1.0], [0.0, 0.5], [1.5, 0.0], [60.0, 0.25]]
    assert drawn["line"] == [[0.0, 0.75], [30.75, 0.125]]  # means over the two seats
    assert drawn["ticks"] == ["0", "1", "2", "5", "10", "20", "50"]
    assert (tmp_path / "out/figures/divergence.png").is_file()
