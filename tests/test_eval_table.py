"""What an evaluation shows: tables, pictures, and the program around them. Results are made up; nothing is played."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.console import Console
from support import ROOT, SEATS

from eval import plots
from eval.grid import Grid
from eval.plots import effort_curves, quickstart_figure, running_mean, study_figure
from eval.stats import Estimate, wilson
from eval.table import difference, grids, markdown, print_tables, with_interval
from llm_sra.evaluation.options import CHUNK
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary
from llm_sra.evaluation.results import Results, ResultsError, read_results, score_interval, write_results
from llm_sra.partners.rosters import RosterError, read_roster
from llm_sra.registry import find_roster
from llm_sra.runs import Run, RunError, open_runs
from recipes.commands import eval as eval_command

PARTNERS = ("lazy", "late", "sloppy", "saboteur", "diligent", "half", "agents-of-another-seed", "another-model")
SOLVED = {"ippo": {"first": 0, "second": 60}, "srpo": {"first": 58, "second": 50}}  # of 64, with every stranger
EFFORT = {"ippo": {"first": 0.02, "second": 2.01}, "srpo": {"first": 1.6, "second": 1.0}}


def evaluation(runs: dict[str, str], decodings=("greedy", "sampled"), partners=PARTNERS):
    """Records and episode lines of runs, given the arm of each."""
    records, lines = [], []
    for run, arm in runs.items():
        for decoding in decodings:
            for seat, other in (SEATS, SEATS[::-1]):
                for partner in ("self-play", *partners):
                    solved = 62 if partner == "self-play" else SOLVED[arm][seat]
                    share = wilson(solved, 64)
                    numbers = (64, share.value, (share.low, share.high), share.value, share.value)
                    key = {"run": run, "arm": arm, "seat": seat, "partner": partner, "decoding": decoding}
                    records.append(Record(*key.values(), *numbers, EFFORT[arm][seat], EFFORT[arm][other]))
                    lines += [{**key, "problem": str(index), "solved": index < solved} for index in range(64)]
    return records, lines


def write(folder: Path, records: list[Record], lines: list[dict], settings: dict) -> None:
    episodes = [EvaluatedEpisode.read({**line, "turns": []}) for line in lines]
    write_results(folder, Summary(tuple(records), settings), episodes)


def results(folder: Path, runs: dict[str, str], **choices) -> Results:
    write(folder, *evaluation(runs, **choices), {"idle": "lazy"})
    return read_results(folder)


def run_folder(path: Path, arm: str, metrics: bool = True) -> Run:
    path.mkdir(parents=True)
    config = {"heroes": {seat: seat for seat in SEATS}, "arguments": {"arm": arm, "task": "worksheet"}}
    (path / "config.yaml").write_text(json.dumps(config))
    lines = [
        {"step": step, **{f"play/{seat}/{seat}/effort": EFFORT[arm][seat] + 1 / step for seat in SEATS}}
        for step in range(1, 31)
    ]
    if arm == "srpo":
        lines = [{**line, "play/second/adversary-of-first/effort": 1.0} for line in lines]
        lines.append({"step": 30, "eval_effort/first": 1.5, "eval_effort/second": 0.5})
    if metrics:
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Run.open(path)


def printed(shown: Results, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_tables(shown, console)
    return console.file.getvalue()


def cells(text: str, row: str) -> list[list[str]]:
    """The numbers of every row of that name, in a printed table or in Markdown."""
    lines = [re.split(r"\s{2,}|\s*\|\s*", line.strip(" |")) for line in text.splitlines()]
    return [line[1:] for line in lines if line[0] == row]


def test_both_tables_show_every_partner_and_the_same_numbers(tmp_path):
    shown = results(tmp_path, {"q/ippo": "ippo", "q/srpo": "srpo"})
    for text in (printed(shown), markdown(shown)):
        for partner in PARTNERS:
            # 0, 60, 58, 50 of 64; once per decoding.
            assert cells(text, partner) == [["0.00", "0.94", "0.91", "0.78"]] * 2
        assert cells(text, "self-play") == [["0.97"] * 4] * 2
        assert cells(text, "mean of these") == [["0.00", "0.94", "0.91", "0.78"]] * 2
        assert cells(text, "spread of these") == [["0.00"] * 4] * 2
        # 0.02 / 2.03, 2.01 / 2.03, 1.6 / 2.6, 1 / 2.6; 62/64 less the rate with lazy.
        assert cells(text, "contribution share") == [["0.01", "0.99", "0.62", "0.38"]] * 2
        assert cells(text, "reliance") == [["+0.97", "+0.03", "+0.06", "+0.19"]] * 2


def test_the_later_runs_are_compared_with_the_first(tmp_path):
    text = markdown(results(tmp_path, {"q/ippo": "ippo", "q/srpo": "srpo", "q/again": "ippo"}))
    # (58 + 50 - 0 - 60) / 128 = 0.375; both arms solve the same problems in self-play.
    assert "difference run - ippo" in text
    rows = cells(text, "srpo")
    assert [row[:2] for row in rows] == [[w, d] for d in ("greedy", "sampled") for w in ("all partners", "self-play")]
    assert all(cell.startswith("+0.38 [+0.3") for cell in rows[0][2:]) and len(rows[0]) == 4
    assert rows[1][2:] == cells(text, "again (ippo)")[0][2:] == ["+0.00 (no spread)"] * 2


def test_a_note_tells_intervals_and_never_a_half_width(tmp_path):
    records = [
        replace(
            one,
            n=4,
            solve_rate=share,
            solve_rate_ci95=(wilson(round(4 * share), 4).low, wilson(round(4 * share), 4).high),
        )
        for one in evaluation({"q/a": "ippo"}, ["sampled"])[0]
        for share in [0.0 if one.seat == "first" else 0.5]
    ]
    lines = [
        {**line, "solved": line["seat"] == "second" and int(line["problem"]) < 2}
        for line in evaluation({"q/a": "ippo"}, ["sampled"])[1]
        if int(line["problem"]) < 4
    ]
    write(tmp_path, records, lines, {})
    text = markdown(read_results(tmp_path))
    # Wilson, 0 and 2 of 4: z^2 / (4 + z^2) = 0.49; 0.5 -+ 0.35
    assert "A share with its 95 % interval (Wilson): 0.00 [0.00, 0.49], 0.50 [0.15, 0.85]." in text


def test_one_run_is_compared_with_nothing(tmp_path):
    assert len(list(grids(results(tmp_path, {"q/ippo": "ippo"})))) == 2


def test_many_runs_of_long_names_fit_into_100_columns(tmp_path):
    runs = {f"study/srpo-with-a-long-name-{seed}": "srpo" for seed in range(5)}
    text = printed(results(tmp_path, runs))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert [len(row) for row in cells(text, "lazy")] == [4, 4, 2] * 2


def test_a_long_name_takes_more_lines_and_no_number_gives_way(tmp_path):
    name = "srpo (dev_roster somewhere/far/away.yaml, eval_steps 20, learning_rate 0.002, max_steps 120, save_steps 20)"
    console = Console(file=io.StringIO(), width=100)
    row = (name, "3", "0.52 [0.31, 0.73]", "0.50 [0.30, 0.70]", "+0.02 [-0.10, +0.14]")
    print_tables(
        results(tmp_path, {"q/a": "ippo"}), console, more=[Grid("t", ("setting", "runs", "s", "c", "d"), ((row,),))]
    )
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    assert all(number in text for number in row[1:]) and all(word in text.split() for word in name.split())


def test_what_cannot_be_said_is_a_dash(tmp_path):
    text = markdown(results(tmp_path, {"q/ippo": "ippo"}, partners=("half",)))
    assert cells(text, "reliance") == [["-", "-"]] * 2


def test_a_difference_that_rounds_to_nothing_has_no_minus_sign():
    assert difference(Estimate(-0.004, -0.102, -0.001)) == "+0.00 [-0.10, +0.00]"
    assert with_interval(-0.001, None) == "0.00"


def test_an_empty_roster_shows_self_play(tmp_path):
    shown = results(tmp_path, {"q/ippo": "ippo", "q/srpo": "srpo"}, partners=())
    assert cells(markdown(shown), "self-play") == [["0.97"] * 4] * 2
    assert cells(markdown(shown), "srpo") == [
        ["self-play", way, *["+0.00 (no spread)"] * 2] for way in ("greedy", "sampled")
    ]


def test_names_do_not_break_the_markdown_or_colour_the_terminal(tmp_path):
    shown = results(tmp_path, {"q/ippo": "ippo"}, partners=("a|b*c", "[red]d"))
    assert "| a\\|b\\*c | 0.00 | 0.94 |" in markdown(shown)
    assert "[red]d" in printed(shown)


def test_the_quickstart_figure_is_a_picture_of_sensible_size(tmp_path):
    runs = [run_folder(tmp_path / "q" / arm, arm) for arm in ("ippo", "srpo")]
    shown = results(tmp_path / "eval", {run.name: run.config["arm"] for run in runs})
    path = quickstart_figure(runs, shown, tmp_path / "new" / "figure.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    height, width, _ = imread(path).shape
    assert 1500 <= width <= 2500 and 800 <= height <= 1600
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]


def test_no_word_of_the_quickstart_figure_reaches_over_its_edge(tmp_path, monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "write_png", lambda figure, path: drawn.append(figure) or path)
    runs = [run_folder(tmp_path / "q" / arm, arm) for arm in ("ippo", "srpo")]
    shown = results(tmp_path / "eval", {run.name: run.config["arm"] for run in runs})
    quickstart_figure(runs, shown, tmp_path / "figure.png")
    FigureCanvasAgg(drawn[0]).draw()
    width, height = drawn[0].canvas.get_width_height()
    boxes = [panel.get_tightbbox() for panel in drawn[0].axes]  # with titles, labels and the ticks that are drawn
    boxes += [legend.get_window_extent() for legend in drawn[0].legends]
    assert len(boxes) == 4
    assert all(0 <= box.x0 <= box.x1 <= width and 0 <= box.y0 <= box.y1 <= height for box in boxes), boxes


def test_runs_without_metrics_still_have_a_picture(tmp_path):
    run = run_folder(tmp_path / "q" / "ippo", "ippo", metrics=False)
    shown = results(tmp_path / "eval", {run.name: "ippo"}, decodings=("greedy",), partners=())
    assert quickstart_figure([run], shown, tmp_path / "figure.png").stat().st_size > 10_000


def test_a_run_that_was_not_evaluated_has_no_picture(tmp_path):
    run = run_folder(tmp_path / "q" / "srpo", "srpo")
    with pytest.raises(ResultsError, match=r"q/srpo; there are q/ippo"):
        quickstart_figure([run], results(tmp_path, {"q/ippo": "ippo"}), tmp_path / "figure.png")


def test_curves_are_of_the_heroes(tmp_path):
    curves = effort_curves(run_folder(tmp_path / "q" / "srpo", "srpo"))
    assert list(curves) == ["first", "second"]
    assert curves["second"].effort[:2] == (2.0, 1.5)  # 1 + 1/step; the adversary's 1.0 is not among them
    assert (curves["second"].dev_steps, curves["second"].dev_effort) == ((30,), (0.5,))


def test_the_running_mean_reaches_a_fiftieth_to_either_side():
    assert running_mean([1.0, 2.0, 6.0]) == [1.0, 2.0, 6.0]
    got = running_mean([0.0] * 49 + [6.0])
    assert got[46:] == [0.0, 0.0, 2.0, 3.0]  # (0 + 0 + 6) / 3, and at the end (0 + 6) / 2


def test_the_study_figure_shows_arms_of_several_seeds(tmp_path):
    arms = {arm: {seed: f"s/{arm}-{seed}" for seed in (1, 2, 3)} for arm in ("ippo", "srpo")}
    shown = results(tmp_path, {run: arm for arm, seeds in arms.items() for run in seeds.values()})
    path = study_figure(shown, arms, tmp_path / "study.png")
    assert np.ptp(imread(path)) > 0.5
    with pytest.raises(ResultsError, match="1 to"):
        study_figure(shown, {"ippo": {}}, tmp_path / "study.png")


def test_the_program_evaluates_and_says_where(tmp_path, monkeypatch, capsys):
    runs = [run_folder(tmp_path / "q" / arm, arm) for arm in ("ippo", "srpo")]
    roster = tmp_path / "roster.yaml"
    roster.write_text("partners: []")
    asked = {}

    def evaluate(opened, roster, out, **options):
        asked.update(options, runs=[run.name for run in opened], roster=roster)
        write(Path(out), *evaluation({run.name: run.config["arm"] for run in opened}), {})

    monkeypatch.setattr("llm_sra.evaluate", evaluate)
    named = [part for run in runs for part in ("--run", str(run.path))]
    out = tmp_path / "out"
    eval_command.main(
        [
            *named,
            "--roster",
            str(roster),
            "--out",
            str(out),
            "--problems",
            "64",
            "--decoding",
            "greedy",
            "--task_args",
            '{"cost": 0.5}',
        ]
    )
    assert asked.pop("engine").kind == "transformers"
    assert asked == {
        "problems": 64, "split": "test", "decodings": ["greedy"], "seed": 0, "runs": ["q/ippo", "q/srpo"],
        "roster": str(roster), "cross_play": False, "contributions": False, "divergence": False,
        "task_args": {"cost": 0.5}, "chunk": CHUNK, "disable_tqdm": None,
        "trust_remote_code": False, "trust_task": False, "trust_scripts": False, "best_responses": None,
    }  # fmt: skip
    assert sorted(file.name for file in out.iterdir()) == [
        "episodes.jsonl", "figure.png", "results.csv", "results.json", "results.parquet", "table.md"
    ]  # fmt: skip
    assert (out / "table.md").read_text() == markdown(read_results(out))
    shown = capsys.readouterr().out
    for name in ("results.json", "episodes.jsonl", "table.md", "figure.png"):
        assert str(out / name) in shown.replace("\n", "")


def test_only_the_first_of_several_processes_shows_and_writes(tmp_path, monkeypatch, capsys):
    run = run_folder(tmp_path / "q" / "ippo", "ippo")
    monkeypatch.setattr("llm_sra.evaluate", lambda *args, **options: [])
    monkeypatch.setenv("RANK", "1")
    eval_command.main(["--run", str(run.path), "--roster", "worksheet_dev", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out == "" and not (tmp_path / "out").exists()


def test_a_shipped_roster_is_found_by_its_name():
    assert find_roster("worksheet_dev") == ROOT / "eval" / "rosters" / "worksheet_dev.yaml"
    assert read_roster("worksheet_dev") == read_roster(find_roster("worksheet_dev"))


def test_an_unknown_roster_names_the_shipped_ones():
    with pytest.raises(RosterError, match=r"did you mean 'worksheet_dev'\? `llm-sra list rosters` shows"):
        read_roster("worksheet_dv")


def test_two_runs_of_one_name_are_refused(tmp_path):
    paths = [str(run_folder(tmp_path / above / "q" / "ippo", "ippo").path) for above in "ab"]
    with pytest.raises(RunError, match="both called 'q/ippo'"):
        open_runs(paths)


def test_no_problems_are_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="--problems"):
        eval_command.main(["--run", "nowhere", "--roster", "nowhere", "--out", str(tmp_path), "--problems", "0"])


def test_a_tasks_own_headline_stands_in_the_place_of_the_share_solved(tmp_path: Path) -> None:
    records, lines = evaluation({"study/a": "ippo", "study/b": "srpo"}, ["sampled"])
    # Half of the problems reach 0.25 and half 0.75 with ippo: mean 0.5, deviation sqrt(64 / 63) / 4. With srpo all 0.6.
    for line in lines:
        at = 0.25 if int(line["problem"]) < 32 else 0.75
        line["metrics"] = {"share of the full score": at if line["arm"] == "ippo" else 0.6}
    write(tmp_path, records, lines, {"headline": "share of the full score"})
    shown = read_results(tmp_path)
    found = shown.record("study/a", "first", "self-play", "sampled")
    assert found.solve_rate == 0.5
    # Variance 1/16, a quarter of that of zeros and ones: Wilson's for 4 * 64 trials.
    assert found.solve_rate_ci95 == pytest.approx((wilson(128, 256).low, wilson(128, 256).high), abs=1e-5)
    assert shown.record("study/b", "second", "lazy", "sampled").solve_rate == pytest.approx(0.6)
    text = printed(shown)
    assert "Share of the full score, sampled, 64 problems with each partner" in text
    assert "Share of the full score: difference run - a" in text
    assert "reliance" not in text  # this task names nobody who does no work
    assert "+0.10" in text and "interval (score)" in text
    assert "solved" not in text


def test_results_without_a_headline_are_shares_of_problems_solved(tmp_path: Path) -> None:
    shown = results(tmp_path, {"study/a": "ippo"})
    assert (shown.measure, shown.interval_name) == ("share of problems solved", "Wilson")


@pytest.mark.parametrize("ones", [0, 1, 3, 4])
def test_the_interval_of_a_mean_of_zeros_and_ones_is_wilsons(ones: int) -> None:
    values, share = np.array([1.0] * ones + [0.0] * (4 - ones)), wilson(ones, 4)
    assert score_interval(values) == pytest.approx((share.low, share.high), abs=1e-6)


def test_equal_headlines_between_0_and_1_have_an_interval_with_a_width() -> None:
    low, high = score_interval(np.full(8, 0.5))
    assert 0.3 < low < 0.5 < high < 0.7  # Wilson's for 64 trials
    assert score_interval(np.array([1.0, 1.0, 0.9]))[1] <= 1
