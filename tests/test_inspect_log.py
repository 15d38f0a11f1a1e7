"""Episodes as logs of inspect-ai."""

from pathlib import Path

import pytest
from report_support import evaluated, run_folder

from eval import inspect_log
from eval.inspect_log import require_inspect, write_inspect_logs
from llm_sra.evaluation.results import ResultsError, read_results


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_log, "find_spec", lambda name: None)
    with pytest.raises(ResultsError, match="--inspect_log needs inspect-ai: pip install inspect-ai"):
        require_inspect()


def test_a_log_reads_as_what_was_said_and_scored(tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    run = run_folder(tmp_path / "q" / "ippo", "ippo")
    evaluated(tmp_path / "eval", run, 1)
    (path,) = write_inspect_logs(read_results(tmp_path / "eval"), "worksheet", tmp_path / "eval")
    (listed,) = log.list_eval_logs(str(path.parent))  # as the viewer does
    assert listed.name.endswith(path.name)
    read = log.read_eval_log(str(path))
    assert read.status == "success" and read.eval.task == "worksheet" and read.eval.model == run.name
    assert len(read.samples) == 2 * 3 * 4
    solved = {score.name: score.metrics["mean"].value for score in read.results.scores}["solved"]
    assert solved == pytest.approx((4 + 1 + 1) * 2 / 24)
    first = read.samples[0]
    assert first.input == "p0: first with self-play, sampled"
    assert [message.role for message in first.messages] == ["assistant", "user"]
    assert first.messages[0].text == "12+3=15" and first.messages[1].text == "[second] pass"
    assert first.scores["solved"].value == 1.0 and first.metadata["partner"] == "self-play"
    # Seen from the other seat, the roles are the other way round.
    other = next(sample for sample in read.samples if sample.metadata["seat"] == "second")
    assert [message.role for message in other.messages] == ["user", "assistant"]
