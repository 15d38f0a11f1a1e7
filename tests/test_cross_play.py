"""Evaluations that go on: only what is missing is played, after kills too; runs with each other; several processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluation_support import said
from support import ROOT, make_run, scramble

import llm_sra.evaluation.play_missing
from eval.report import gather, write_report
from eval.summary import write_summary
from llm_sra import evaluate
from llm_sra.evaluation.results import read_episodes, read_results
from llm_sra.evaluation.store import StoreError
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.partners.rosters import RosterError
from llm_sra.playing import EpisodeSpec, play
from llm_sra.runs import Run, RunError
from llm_sra.task import Episode, Task
from recipes.commands import eval as eval_command

PUPIL = ROOT / "tasks" / "worksheet" / "models" / "pupil"
SLOW = (
    "import time\n\nclass Slow:\n    def reply(self, messages, rng):\n        time.sleep(0.02)\n        return 'pass'\n"
)
SHORT = {"max_completion_length": 4}
GREEDY = {"problems": 3, "decodings": ["greedy"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three seeds of one arm; nonsense, but each its own."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    return [make_run(folder / f"seed{seed}", seed=seed, base=PUPIL, **SHORT) for seed in (1, 2, 3)]


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    path = tmp_path / "roster.yaml"
    path.write_text("partners: [{name: lazy, kind: scripted, policy: lazy}]")
    return path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many episodes of each match are played from now on."""
    matches: Counter[str] = Counter()

    def counted(task: Task, specs: Sequence[EpisodeSpec], *args: Any, **kwargs: Any) -> list[Episode]:
        matches.update(spec.match.name for spec in specs)
        return play(task, specs, *args, **kwargs)

    monkeypatch.setattr(llm_sra.evaluation.play_missing, "play", counted)
    return matches


def stored(out: Path) -> list[dict[str, Any]]:
    files = sorted((out / "store").glob("process-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().split("\n") if line]


def numbers(out: Path) -> str:
    """`results.json` without the surprise at what was said: the batch around a reply moves its last digits."""
    return re.sub(r'\n +"surprise/.*', "", (out / "results.json").read_text())


# -- only what is missing --------------------------------------------------------------------------------------------


def test_the_same_again_plays_nothing_and_gives_the_same(
    runs: list[Run], roster: Path, tmp_path: Path, played: Counter[str]
) -> None:
    records = evaluate(runs[:2], roster, tmp_path / "out", **GREEDY)
    assert played.total() == 2 * 3 * 3  # runs, matches (self-play, and lazy in either seat), problems
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json*")}
    played.clear()
    assert evaluate(runs[:2], roster, tmp_path / "out", **GREEDY) == records
    assert not played
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json*")} == before


def test_another_run_partner_problem_or_decoding_plays_what_is_missing_alone(
    runs: list[Run], roster: Path, tmp_path: Path, played: Counter[str]
) -> None:
    out = tmp_path / "out"

    def count(some: Sequence[Run], **changed: Any) -> dict[str, int]:
        played.clear()
        evaluate(some, roster, out, **{**GREEDY, **changed})
        return dict(played)

    count(runs[:1])
    assert count(runs[:2]) == {"self-play/greedy": 3, "first/lazy/greedy": 3, "second/lazy/greedy": 3}
    assert count(runs[:2], problems=5) == {"self-play/greedy": 4, "first/lazy/greedy": 4, "second/lazy/greedy": 4}
    assert count(runs[:2], problems=2) == {}
    assert count(runs[:2], cross_play=True) == {"self-play/greedy": 2 * 3}  # one first, the other second, and swapped
    assert set(count(runs[:1], decodings=["greedy", "sampled"])) == {f"{m}/sampled" for m in MATCHES}
    assert set(count(runs[:1], seed=1)) == {f"{m}/greedy" for m in MATCHES}
    roster.write_text("partners: [{name: lazy, kind: scripted, policy: lazy}, {name: d, kind: scripted, policy: late}]")
    assert count(runs[:1]) == {"first/d/greedy": 3, "second/d/greedy": 3}
    roster.write_text("partners: [{name: d, kind: scripted, policy: half}]")  # the name stays, the partner does not
    assert count(runs[:1]) == {"first/d/greedy": 3, "second/d/greedy": 3}


MATCHES = ("self-play", "first/lazy", "second/lazy")


def test_an_adapter_that_changed_is_played_anew_and_one_that_moved_is_not(
    roster: Path, tmp_path: Path, played: Counter[str]
) -> None:
    run = make_run(tmp_path / "study" / "one", **SHORT)
    records = evaluate([run], roster, tmp_path / "out", **GREEDY)
    played.clear()
    moved = Run.open(run.path.rename(tmp_path / "study" / "two"))
    again = evaluate([moved], roster, tmp_path / "out", **GREEDY)
    assert not played
    assert [record.solve_rate for record in again] == [record.solve_rate for record in records]
    assert {record.run for record in again} == {"study/two"}
    bank = AdapterBank(load_model(moved.config["model_name_or_path"])[0])
    bank.load(moved.adapters / "first", "first")
    scramble(bank, "first", seed=9)
    bank.save(moved.adapters)
    evaluate([moved], roster, tmp_path / "out", **GREEDY)
    assert played == {"self-play/greedy": 3, "first/lazy/greedy": 3}  # the other seat's agent is as it was


def test_results_do_not_depend_on_the_chunk(runs: list[Run], roster: Path, tmp_path: Path) -> None:
    for chunk in (1, 7, 1000):
        evaluate(runs[:2], roster, tmp_path / str(chunk), problems=3, cross_play=True, chunk=chunk)
    played = {chunk: [line.episode for line in read_episodes(tmp_path / str(chunk))] for chunk in (1, 7, 1000)}
    told = {chunk: [(said(episode), episode.solved) for episode in episodes] for chunk, episodes in played.items()}
    assert told[1] == told[7] == told[1000]
    assert len({numbers(tmp_path / str(chunk)) for chunk in (1, 7, 1000)}) == 1


def test_a_partner_that_is_lost_on_the_way_keeps_what_it_played(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, played: Counter[str]
) -> None:
    (tmp_path / "poor.py").write_text(
        "from llm_sra.policies import UnavailableError\n\nclass Poor:\n    left = 9\n\n"
        "    def reply(self, messages, rng):\n        Poor.left -= 1\n        if Poor.left < 0:\n"
        "            raise UnavailableError('nothing is left')\n        return 'pass'\n"
    )
    path = tmp_path / "roster.yaml"
    path.write_text("partners: [{name: poor, kind: scripted, policy: 'poor.py:Poor'}]")
    records = evaluate(runs[:1], path, tmp_path / "out", chunk=1, trust_scripts=True, **GREEDY)
    assert {record.partner for record in records} == {"self-play"}
    # 9 replies are three episodes of three; the tenth ends a fourth, and no further one is begun.
    assert Counter("poor" in line["policies"].values() for line in stored(tmp_path / "out")) == {False: 3, True: 3}
    assert played.total() == 3 + 4
    played.clear()
    records = evaluate(
        runs[:1], path, tmp_path / "out", chunk=1, trust_scripts=True, **GREEDY
    )  # its file is read anew: it has 9 again
    assert {record.partner for record in records} == {"self-play", "poor"} and played.total() == 3


def test_a_store_of_another_task_is_refused_and_stays(runs: list[Run], roster: Path, tmp_path: Path) -> None:
    evaluate(runs[:1], roster, tmp_path / "out", **GREEDY)
    before = stored(tmp_path / "out")
    toy = make_run(tmp_path / "study" / "toy", task=f"{ROOT}/tests/support.py:Toy", **SHORT)
    roster.write_text("partners: []")
    with pytest.raises(StoreError, match=r'"worksheet".*"support.py:Toy"'):
        evaluate([toy], roster, tmp_path / "out", **GREEDY)
    assert stored(tmp_path / "out") == before


# -- runs with each other --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crossed(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three runs with each other, no roster."""
    out = tmp_path_factory.mktemp("crossed")
    evaluate(runs, None, out, problems=4, decodings=["sampled"], cross_play=True)
    return out


def test_every_agent_meets_the_agents_of_every_other_run_in_both_seatings(runs: list[Run], crossed: Path) -> None:
    results = read_results(crossed)
    names = [run.name for run in runs]
    pairs = {(r.run, r.seat, r.partner) for r in results.cross_play}
    assert pairs == {(a, seat, b) for a in names for b in names for seat in ("first", "second") if a != b}
    assert len(results.cross_play) == 12 and {r.partner for r in results.records} == {"self-play"}
    # Each of the 9 ordered pairs is one match, stored once: an agent's record with another is that one's with it.
    seated = Counter(tuple(line["policies"].values()) for line in stored(crossed))
    assert len(seated) == 9 and set(seated.values()) == {4}
    for a, b in ((a, b) for a in names for b in names):
        one, other = results.between(a, "first", b, "sampled"), results.between(b, "second", a, "sampled")
        assert one is not None and other is not None
        assert (one.solve_rate, one.effort_own) == (other.solve_rate, other.effort_partner)


def test_the_agents_sit_where_the_record_says(runs: list[Run], crossed: Path) -> None:
    alone = {}
    for line in read_episodes(crossed):
        agent = line.run if line.seat == "first" or line.partner == "self-play" else line.partner
        alone.setdefault((agent, line.episode.problem), set()).add(line.episode.turns[0].text)
    # The first line depends on who sits first, not on the other one.
    assert all(len(openings) == 1 for openings in alone.values()) and len(alone) == 3 * 4
    assert len({tuple(sorted(o)) for o in alone.values()}) > 4


def test_with_more_than_two_seats_the_other_run_fills_all_others(tmp_path: Path) -> None:
    (tmp_path / "three.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\nfrom support import Toy\n\n\n"
        "class Three(Toy):\n    seats = ('left', 'middle', 'right')\n"
    )
    made = [
        make_run(tmp_path / "s" / n, task=f"{tmp_path}/three.py:Three", seed=i, **SHORT) for i, n in enumerate("ab")
    ]
    records = evaluate(made, None, tmp_path / "out", problems=2, decodings=["greedy"], cross_play=True)
    assert len(records) == 2 * 3 + 2 * 3
    seatings = {tuple(name.split(":")[0] for name in line["policies"].values()) for line in stored(tmp_path / "out")}
    a, b = "s/a", "s/b"
    assert seatings == {(a, a, a), (b, b, b), (a, b, b), (b, a, b), (b, b, a), (b, a, a), (a, b, a), (a, a, b)}


def test_checkpoints_of_one_run_are_played_with_each_other(runs: list[Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "study" / "one", base=PUPIL, **SHORT)
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "checkpoint-4").symlink_to(runs[1].adapters)
    both = [run, Run.open(f"{run.path}@checkpoint-4")]
    records = evaluate(both, None, tmp_path / "out", problems=2, decodings=["greedy"], cross_play=True)
    assert {(r.run, r.partner) for r in records} == {
        ("study/one", "self-play"), ("study/one", "study/one@checkpoint-4"),
        ("study/one@checkpoint-4", "self-play"), ("study/one@checkpoint-4", "study/one"),
    }  # fmt: skip


def test_the_table_and_the_report_show_the_matrix(
    runs: list[Run], crossed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_summary(runs, crossed)
    shown = capsys.readouterr().out
    assert "Share of problems solved among the seeds of a setting, sampled" in shown
    assert "agents of each run, sampled" in shown
    text = (crossed / "table.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| seed") and "second" in line]
    results = read_results(crossed)
    for run, line in zip(runs, rows, strict=True):
        met = [results.between(run.name, "second", other.name, "sampled") for other in runs]
        assert line.split(" | ")[1:] == [f"{r.solve_rate:.2f}" + " |" * (i == 2) for i, r in enumerate(met) if r]
    write_report(gather(runs, [crossed]), tmp_path / "report")
    assert "with the agents of each run" in (tmp_path / "report" / "report.md").read_text()


def test_cross_play_that_cannot_be_is_refused(runs: list[Run], tmp_path: Path) -> None:
    path = tmp_path / "roster.yaml"
    path.write_text("partners: [{name: study/seed1, kind: scripted, policy: lazy}]")
    with pytest.raises(RunError, match="two runs or more"):
        evaluate(runs[:1], None, tmp_path / "out", cross_play=True)
    with pytest.raises(RosterError, match=r"have one name.*study/seed1"):
        evaluate(runs, path, tmp_path / "out", cross_play=True)
    with pytest.raises(ValueError, match="nobody to play with"):
        eval_command.main(["--run", str(runs[0].path), "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="1 episode or more"):
        evaluate(runs, None, tmp_path / "out", chunk=0)
    assert not (tmp_path / "out").exists()


# -- kills, and several processes ------------------------------------------------------------------------------------


def command(runs: Sequence[Run], roster: Path, out: Path) -> list[str]:
    paths = [str(run.path) for run in runs]
    flags = ["--problems", "6", "--chunk", "8", "--cross_play", "--trust_scripts"]
    return ["-m", "recipes.cli", "eval", "--run", *paths, "--roster", str(roster), "--out", str(out), *flags]


def environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    return {**env, "PYTHONPATH": os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])}


@pytest.fixture
def whole(runs: list[Run], roster: Path, tmp_path: Path) -> Iterator[Path]:
    """An evaluation in one go, with a partner that takes its time."""
    roster.write_text("partners: [{name: slow, kind: scripted, policy: 'slow.py:Slow'}]")
    evaluate(runs[:2], roster, tmp_path / "whole", problems=6, cross_play=True, trust_scripts=True)
    yield tmp_path / "whole"


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_numbers(
    runs: list[Run], roster: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    store = out / "store" / "process-0.jsonl"
    process = subprocess.Popen(
        [sys.executable, *command(runs[:2], roster, out)], env=environment(), stderr=subprocess.PIPE
    )
    until = time.monotonic() + 120
    while not (store.is_file() and store.read_bytes().count(b"\n") >= 16) and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = store.read_bytes()
    total = len(stored(whole))
    assert total == 2 * 6 * (3 + 3 + 2)  # decodings, problems; self-play and slow in either seat of each run, crossings
    assert 16 <= left.count(b"\n") < total and not (out / "results.json").exists()
    with store.open("ab") as file:
        file.write(left[:100])  # as if it had been killed within a line
    done = subprocess.run(
        [sys.executable, *command(runs[:2], roster, out)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "1 unreadable" in done.stderr and "episodes/s" not in done.stderr  # no bar where there is no terminal
    assert store.read_bytes().startswith(left + left[:100] + b"\n")
    assert store.read_bytes().count(b"\n") == total + 1
    assert numbers(out) == numbers(whole)


def test_two_processes_share_the_episodes_and_one_writes(
    runs: list[Run], roster: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "launched"
    config = ["--config_file", str(ROOT / "accelerate_configs" / "cpu.yaml"), "--num_processes", "2"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *config, *command(runs[:2], roster, out)]
    done = subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    one, two = ((out / "store" / f"process-{rank}.jsonl").read_text().count("\n") for rank in (0, 1))
    assert one + two == len({line["key"] for line in stored(out)}) == len(stored(whole)) and min(one, two) > 20
    assert numbers(out) == numbers(whole)
    assert done.stdout.count("Written:") == 1
