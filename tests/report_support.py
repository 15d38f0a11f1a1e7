"""What tests of the report share: made-up runs and evaluations, and a page as a parser of HTML sees it."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

from eval.report import gather, write_report
from eval.stats import wilson
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary
from llm_sra.evaluation.results import write_results
from llm_sra.runs import Run

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


def four_runs(tmp_path: Path) -> list[Run]:
    """IPPO solves 8 of 32 with strangers, and one seat does all; SRPO solves 24 and shares the work evenly."""
    made = []
    for arm, solved, effort in (("ippo", 8, (2.0, 0.0)), ("srpo", 24, (1.5, 1.5))):
        for seed in (1, 2):
            run = run_folder(tmp_path / "q" / f"{arm}-seed{seed}", arm, seed, tau=10 if arm == "srpo" else 10.0)
            evaluated(run.path / "report", run, solved, n=32, effort=effort)
            made.append(run)
    return made
