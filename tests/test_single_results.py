"""What lm-eval said, compared and shown; made-up numbers, so that lm-eval is not needed."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from report_support import evaluated, run_folder

from eval.report import gather, write_report
from eval.single import write_single_table
from llm_sra.evaluation.single import tasks
from llm_sra.evaluation.single.measured import numbers
from llm_sra.evaluation.single.results import (
    Number,
    Single,
    SingleError,
    SingleRecord,
    compared,
    paired_stderr,
    read_single,
    write_single,
)
from llm_sra.evaluation.single.shown import sentence
from llm_sra.exporting.single import eval_results, find_single, section
from llm_sra.runs import Run, RunError
from recipes import cli


def number(scores: list[float], **other: Any) -> Number:
    documents = tuple((f"d{i}", f"p{i}", score) for i, score in enumerate(scores))
    value = sum(scores) / len(scores)
    return replace(Number("t", "", "acc", "none", True, len(scores), value, 0.25, documents), **other)


def record(before: list[float], after: list[float], **other: Any) -> SingleRecord:
    (made,) = compared("q/ippo", "first", ["first"], "base", [[number(before, **other)], [number(after, **other)]])
    return made


def test_the_paired_standard_error_is_that_of_the_differences_by_document() -> None:
    # Differences 1, 0, 0, -1: mean 0, variance (1 + 1) / 3, so the mean's error is sqrt(2/3 / 4).
    made = record([0, 1, 0, 1], [1, 1, 0, 0])
    assert made.difference == 0 and made.difference_stderr == pytest.approx((2 / 3 / 4) ** 0.5)
    # All documents fall alike: paired there is no doubt, though both numbers have an error of their own.
    assert paired_stderr(number([1.0, 0.5, 0.75]), number([0.5, 0.0, 0.25])) == 0


def test_without_the_same_documents_or_a_mean_there_is_no_paired_error() -> None:
    assert paired_stderr(number([1.0]), number([0.0])) is None
    assert paired_stderr(number([1.0, 0.0]), number([0.0, 1.0], documents=())) is None
    other = number([1.0, 0.0], documents=(("d0", "p0", 1.0), ("d1", "another prompt", 0.0)))
    assert paired_stderr(number([1.0, 0.0]), other) is None


@pytest.mark.parametrize(
    ("before", "after", "better", "verdict"),
    [
        ([1] * 15 + [0], [0] * 16, True, "worse"),
        ([1] * 15 + [0], [0] * 16, False, "better"),
        ([0] * 16, [1] * 15 + [0], True, "better"),
        ([0, 1, 0, 1], [1, 1, 0, 0], True, "open"),
        ([0, 1, 0, 1], [1, 1, 0, 0], None, ""),
    ],
)
def test_the_verdict_needs_the_whole_interval_on_one_side(
    before: list[float], after: list[float], better: bool | None, verdict: str
) -> None:
    assert record(before, after, higher_is_better=better).verdict == verdict


def test_the_sentence_names_what_got_worse_and_claims_no_more() -> None:
    worse, still = record([1] * 15 + [0], [0] * 16), record([0, 1, 0, 1], [1, 1, 0, 0])
    assert sentence(Single((worse, replace(still, task="u")))) == (
        "Of 2 differences from the base, 1 with the whole interval on the worse side: ippo first on t acc (-0.938). By "
        "chance alone it would be one in 40."
    )
    assert "none has its whole interval on the worse side; the intervals say" in sentence(Single((still,)))
    assert "it cannot be said" in sentence(Single((replace(still, difference_stderr=None),)))


def found(**acc: list[float]) -> dict[str, Any]:
    """Results as lm-eval 0.4.13 gives them."""
    samples = {
        task: [{"doc_hash": f"{i:040}", "prompt_hash": "p", "filter": "none", "acc": s} for i, s in enumerate(scores)]
        for task, scores in acc.items()
    }
    return {
        "results": {
            t: {"alias": t, "name": t, "sample_len": len(s), "acc,none": sum(s) / len(s), "acc_stderr,none": "N/A"}
            for t, s in acc.items()
        },
        "samples": samples,
        "n-samples": {task: {"original": 99, "effective": len(scores)} for task, scores in acc.items()},
        "higher_is_better": {task: {"acc": True} for task in acc},
        "group_subtasks": {},
    }


def test_numbers_of_lm_eval_are_read_with_what_each_document_scored() -> None:
    (one,) = numbers(found(a=[1.0, 0.0]))
    assert (one.task, one.metric, one.filter, one.n, one.value, one.stderr) == ("a", "acc", "none", 2, 0.5, None)
    assert [score for *_, score in one.documents] == [1.0, 0.0] and one.higher_is_better is True
    perplexity = found(a=[1.0, 0.0])
    perplexity["results"]["a"]["acc,none"] = 7.5  # no mean of what the documents scored
    assert next(numbers(perplexity)).documents == ()


def test_a_group_without_a_number_leaves_its_tasks_in_sight_and_one_with_a_number_counts_them() -> None:
    made = found(a=[1.0, 0.0], b=[1.0, 1.0])
    made |= {"group_subtasks": {"g": ["a", "b"]}, "groups": {"g": {"alias": "g", "name": "g"}}}
    made["results"]["g"] = made["groups"]["g"]
    assert [(one.task, one.group) for one in numbers(made)] == [("a", ""), ("b", "")]
    made["groups"]["g"] |= {"acc,none": 0.75, "acc_stderr,none": 0.2}
    *_, group = numbers(made)
    assert [(one.task, one.group) for one in numbers(made)] == [("a", "g"), ("b", "g"), ("g", "")]
    assert (group.n, group.stderr, len(group.documents)) == (4, 0.2, 4)


# -- kept, and shown -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_folder(tmp_path / "q" / "ippo", "ippo")


def test_what_is_written_reads_as_it_was(tmp_path: Path) -> None:
    single = Single((record([0, 1, 0, 1], [1, 1, 0, 0]), record([1], [0])), {"lm_eval": "0.4.13", "limit": None})
    write_single(tmp_path, single)
    assert read_single(tmp_path) == single and read_single(tmp_path / "none") is None


@pytest.mark.parametrize(("key", "value"), [("before", "high"), ("n", 1.5), ("task", 3), ("higher_is_better", "yes")])
def test_a_file_that_no_evaluation_wrote_is_one_line(tmp_path: Path, run: Run, key: str, value: Any) -> None:
    broken = {**asdict(record([0, 1], [1, 1])), key: value}
    (tmp_path / "single.json").write_text(json.dumps({"settings": {}, "records": [broken]}))
    with pytest.raises(SingleError, match=r"single\.json is not what `llm-sra eval --single` writes"):
        read_single(tmp_path)
    with pytest.raises(RunError, match="is not what"):
        find_single(run, "first", tmp_path)


def test_names_of_strangers_break_neither_table_nor_card(tmp_path: Path, run: Run) -> None:
    hostile = "a|b\n<img src=x>`"
    single = Single((replace(record([0, 1], [1, 1], task=hostile), run=run.name),), {"lm_eval": hostile})
    text = section(single)
    assert "<img" not in text and text.count("\n") == 6 and "a\\|b" in text
    assert "<img" not in write_single_table(single, tmp_path).read_text()


def test_the_card_shows_only_the_policys_own(tmp_path: Path, run: Run) -> None:
    own = replace(record([0, 1, 0, 1], [1, 1, 0, 1]), run=run.name)
    write_single(run.path / "report", Single((own, replace(own, policy="second")), {"lm_eval": "0.4.13"}))
    single = find_single(run, "first")
    assert single is not None and single.records == (own,)
    assert "| t acc | 4 | 0.500 ± 0.250 | 0.750 ± 0.250 | +0.250 " in section(single)
    (shown,) = eval_results(single)
    assert (shown.dataset_name, shown.metric_type, shown.metric_value) == ("t", "acc", 0.75)
    assert find_single(run, "adversary-of-first") is None and section(None) == ""
    write_single(tmp_path / "other", Single((replace(own, run="q/srpo"),), {}))
    with pytest.raises(RunError, match="has no results of q/ippo, but of q/srpo: name its evaluation"):
        find_single(run, "first", tmp_path / "other")


def test_the_report_says_what_it_would_need(tmp_path: Path, run: Run) -> None:
    evaluated(run.path / "report", run, 2)
    write_report(gather([run]), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Not shown: Alone on other tasks. It needs: an evaluation with --single TASK, a task of lm-eval" in text
    write_single(run.path / "report", Single((replace(record([0, 1], [1, 1]), run=run.name),), {}))
    write_report(gather([run]), tmp_path / "out")
    assert "| t acc | 2 | 0.500 ± 0.250 |" in (tmp_path / "out" / "report.md").read_text()


# -- flags -----------------------------------------------------------------------------------------------------------


def error_of(capsys: Any, *flags: str) -> str:
    assert cli.main(["eval", "--run", "runs/none", "--out", "out", *flags]) == 2
    return str(capsys.readouterr().err)


def test_without_the_package_one_line_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    assert cli.main(["eval", "--run", str(run.path), "--out", "out", "--single", "arc_easy"]) == 2
    assert "SingleError: --single needs lm-eval, the extra lm-eval: pip install 'lm-eval" in capsys.readouterr().err


def test_flags_without_effect_are_refused(capsys: Any) -> None:
    assert "--limit is of --single: add --single TASK, or leave it out" in error_of(capsys, "--limit", "3")
    alone = error_of(capsys, "--single", "arc_easy", "--problems", "3")
    assert "--problems is of play with partners: add --roster, or leave it out" in alone
    assert "add --roster" in error_of(capsys, "--single", "arc_easy", "--trust_task")


def test_options_that_mean_nothing_are_refused(run: Run, capsys: Any) -> None:
    pytest.importorskip("lm_eval")
    for flag, value in (("--limit", "0"), ("--limit", "nan"), ("--num_fewshot", "-1"), ("--batch_size", "0")):
        assert cli.main(["eval", "--run", str(run.path), "--out", "out", "--single", "x", flag, value]) == 2
        assert f"SingleError: {flag} must be" in capsys.readouterr().err
