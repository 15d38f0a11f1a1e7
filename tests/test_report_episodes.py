"""Episodes in the report: which are shown, and that nothing a partner wrote is ever markup."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from browser import browsing
from report_support import CHROMIUM, HOSTILE, Tags, evaluated, four_runs, report, run_folder

from eval.report import gather
from eval.report.episodes import sample, script_json
from llm_sra.runs import Run
from llm_sra.untrusted import as_markdown
from recipes.commands.report import main


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return four_runs(tmp_path)


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
    assert as_markdown("a|b\n_c_ [x](y) <b>&") == r"a\|b \_c\_ [x]\(y) &lt;b&gt;&amp;"


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
def test_a_browser_opens_10000_episodes_ten_at_a_time_and_shows_hostile_text_as_text(large, tmp_path):
    page = Tags(opened(large, tmp_path))
    assert "data-ready" in dict(page.tags[0][1])  # the first episodes were shown
    tags = [tag for tag, _ in page.tags]
    assert tags.count("article") == 10 and tags.count("script") == 2
    assert not any("onerror" in attributes or attributes.get("src") == "x" for _, attributes in page.tags)
    assert page.text.count(HOSTILE) >= 10


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_pictures_that_go_on_beyond_a_phone_say_so(large, tmp_path):
    """A picture of 620 pixels at least on a page of 390."""
    with browsing(tmp_path / "profile") as browser:
        phone, desk = browser.open(large.as_uri(), 390, 844), browser.open(large.as_uri())
        hints = "[...document.querySelectorAll('.whole .more')].map(note => note.hidden)"
        for page, hidden in ((phone, False), (desk, True)):
            page.until("document.documentElement.dataset.ready")
            assert set(page.value(hints)) == {hidden}
        assert phone.value("document.documentElement.scrollWidth <= window.innerWidth")


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
