"""`--single`: tasks of lm-eval on agents alone and on their base; small models, local tasks, no network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from report_support import evaluated
from support import make_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.report import gather, write_report
from llm_sra import evaluate_single, export
from llm_sra.evaluation.single import runner
from llm_sra.evaluation.single.results import SingleError, read_single
from llm_sra.evaluation.single.tasks import load_tasks
from llm_sra.runs import Run
from recipes import cli

pytest.importorskip("lm_eval")

DOCUMENTS = [(f"{i}+1=", [str(i + 1), str(i + 2), "apple"], i % 3) for i in range(8)]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "ippo")


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with the task `sums`."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    write_documents(folder, DOCUMENTS)
    (folder / "sums.yaml").write_text(task("sums", folder))
    return folder


def write_documents(folder: Path, documents: list[Any]) -> None:
    lines = (json.dumps({"question": q, "choices": c, "answer": a}) + "\n" for q, c, a in documents)
    (folder / "sums.jsonl").write_text("".join(lines))


def task(name: str, folder: Path) -> str:
    return TASK.format(name=name, file=folder / "sums.jsonl")


def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks that are measured from now on, once for each model."""
    seen: list[str] = []
    real: Callable[..., Any] = runner.measure

    def counting(model: Any, asked: Any, **how: Any) -> Any:
        seen.append(asked.name)
        return real(model, asked, **how)

    monkeypatch.setattr(runner, "measure", counting)
    return seen


@torch.no_grad()
def right_by_hand(model: torch.nn.Module, tokenizer: Any, documents: list[Any] = DOCUMENTS) -> list[float]:
    """Of each document, whether the right choice behind a space has the highest log-probability."""
    right = []
    for question, choices, answer in documents:
        scores = []
        for choice in choices:
            asked, whole = (tokenizer(text)["input_ids"] for text in (question, f"{question} {choice}"))
            assert whole[: len(asked)] == asked
            logprobs = model.eval()(input_ids=torch.tensor([whole])).logits[0].log_softmax(dim=-1)
            scores.append(sum(float(logprobs[i - 1, whole[i]]) for i in range(len(asked), len(whole))))
        right.append(float(scores.index(max(scores)) == answer))
    return right


def test_base_and_agents_score_what_plain_transformers_and_peft_say(run: Run, tasks: Path, tmp_path: Path) -> None:
    records = evaluate_single([run], ["sums"], tmp_path / "out", include_path=tasks, batch_size=3)
    assert [(one.policy, one.seats, one.task, one.metric, one.n) for one in records] == [
        ("first", ("first",), "sums", "acc", 8),
        ("second", ("second",), "sums", "acc", 8),
    ]
    folder = str(run.config["model_name_or_path"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = right_by_hand(AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    for record in records:
        agent = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), run.adapters / record.policy)
        own = right_by_hand(agent, tokenizer)
        assert record.before == pytest.approx(sum(base) / 8) and record.after == pytest.approx(sum(own) / 8)
        # lm-eval's standard error of 8 zeros and ones: sqrt(p (1 - p) / 7).
        assert record.after_stderr == pytest.approx((record.after * (1 - record.after) / 7) ** 0.5)
        differences = [a - b for a, b in zip(own, base, strict=True)]
        assert any(differences)  # the agent answers otherwise than its base, or the test shows nothing
        mean = sum(differences) / 8
        assert record.difference == pytest.approx(mean)
        spread = sum((d - mean) ** 2 for d in differences) / 7
        assert record.difference_stderr == pytest.approx((spread / 8) ** 0.5)
    kept = read_single(tmp_path / "out")
    assert kept is not None and list(kept.records) == records and kept.settings["lm_eval"]


@pytest.mark.parametrize("merge", [False, True])
def test_lm_eval_says_the_same_of_the_exported_adapter_and_of_the_merged_model(
    run: Run, tasks: Path, tmp_path: Path, merge: bool
) -> None:
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    (record, _) = evaluate_single([run], ["sums"], tmp_path / "out", include_path=tasks)
    folder = str(export(run, "first", tmp_path / "exported", merge=merge))
    how = {"pretrained": folder} if merge else {"pretrained": str(run.config["model_name_or_path"]), "peft": folder}
    asked = load_tasks(["sums"], tasks)[0]
    found = evaluate(lm=HFLM(**how, device="cpu", batch_size=4), task_dict=asked.loaded)["results"]["sums"]
    assert (found["acc,none"], found["acc_stderr,none"]) == (record.after, record.after_stderr)


def test_what_is_there_is_not_measured_again(
    run: Run, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, out = measured(monkeypatch), tmp_path / "out"
    first = evaluate_single([run], ["sums"], out, include_path=tasks)
    assert seen == ["sums"] * 3  # the base once, and two agents
    assert evaluate_single([run], ["sums"], out, include_path=tasks) == first and len(seen) == 3
    (tasks / "other.yaml").write_text(task("other", tasks))
    assert len(evaluate_single([run], ["sums,other"], out, include_path=tasks)) == 4
    assert seen[3:] == ["other"] * 3
    cells = sorted((out / "single").iterdir())
    cells[0].write_text(cells[0].read_text()[:40])  # as a disk damages it
    evaluate_single([run], ["sums", "other"], out, include_path=tasks)
    assert len(seen) == 7
    write_documents(tasks, [*DOCUMENTS[:-1], ("9+9=", ["18", "19", "apple"], 0)])
    evaluate_single([run], ["sums"], out, include_path=tasks)
    assert seen[7:] == ["sums"] * 3  # other documents
    evaluate_single([run], ["sums"], out, include_path=tasks, apply_chat_template=True)
    evaluate_single([run], ["sums"], out, include_path=tasks, limit=2)
    assert len(seen) == 16


def test_a_group_is_one_number_and_its_tasks_are_kept(run: Run, tasks: Path, tmp_path: Path) -> None:
    (tasks / "few.jsonl").write_text("".join((tasks / "sums.jsonl").read_text().splitlines(keepends=True)[:2]))
    (tasks / "few.yaml").write_text(task("few", tasks).replace("sums.jsonl", "few.jsonl"))
    aggregate = "aggregate_metric_list: [{metric: acc, weight_by_size: true}]"
    (tasks / "all.yaml").write_text(f"group: all_sums\ntask: [sums, few]\n{aggregate}\n")
    records = evaluate_single([run], ["all_sums"], tmp_path / "out", include_path=tasks)
    one = {record.task: record for record in records if record.policy == "first"}
    assert [(name, r.group, r.n) for name, r in one.items()] == [
        ("sums", "all_sums", 8), ("few", "all_sums", 2), ("all_sums", "", 10)
    ]  # fmt: skip
    assert one["all_sums"].after == pytest.approx((8 * one["sums"].after + 2 * one["few"].after) / 10)
    assert one["all_sums"].difference_stderr is not None  # by document, over both tasks


def test_examples_in_prompts_are_the_same_before_and_after(run: Run, tasks: Path, tmp_path: Path) -> None:
    (tasks / "sums.yaml").write_text(task("sums", tasks) + "fewshot_split: test\n")
    records = evaluate_single([run], ["sums"], tmp_path / "out", include_path=tasks, num_fewshot=2, limit=4)
    assert [record.difference_stderr is not None for record in records] == [True, True]
    prompts = [
        [document[1] for document in json.loads(path.read_text())["numbers"][0]["documents"]]
        for path in (tmp_path / "out" / "single").iterdir()
    ]
    assert len(prompts) == 3 and prompts[0] == prompts[1] == prompts[2] and len(set(prompts[0])) == 4


def test_card_and_report_have_the_numbers(run: Run, tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    record, _ = evaluate_single([run], ["sums"], out, include_path=tasks)
    card = (export(run, "first", tmp_path / "exported", evaluation=out) / "README.md").read_text()
    row = f"| sums acc | 8 | {record.before:.3f} ± {record.before_stderr:.3f} | {record.after:.3f} ± "
    assert "## Alone on other tasks" in card and row in card and "Not evaluated yet" in card
    assert f"value: {round(record.after, 4)}" in card.split("---")[1] and str(tasks) not in card
    evaluated(tmp_path / "played", run, 2)
    write_report(gather([run], [tmp_path / "played", out]), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Alone on other tasks" in text and row in text and "Of 2 differences from the base, " in text
    assert "Alone on other tasks" in (tmp_path / "report" / "report.html").read_text()


def test_one_command_shows_and_writes_it(run: Run, tasks: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["eval", "--run", str(run.path), "--out", str(tmp_path / "out"), "--single", "s*"]
    assert cli.main([*command, "--include_path", str(tasks), "--limit", "3"]) == 0
    shown = capsys.readouterr()
    assert "Alone on other tasks: ippo first" in shown.out and "limit of documents: 3" in shown.out
    assert shown.err.count("lm-eval: sums, ") == 3 and "it/s" not in shown.err
    assert "sums acc | 3 |" in (tmp_path / "out" / "single.md").read_text()


# -- what is refused -------------------------------------------------------------------------------------------------


def refused(folder: Path, name: str, **how: Any) -> str:
    with pytest.raises(SingleError) as error:
        load_tasks([name], folder, **how)
    return str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ('"{{question}}"', "!function code.text", "the Python code.text"),
        ("metric: acc", "metric: ./mine", "the metric ./mine, a script of the package evaluate"),
        ("metric: acc", "metric: acc, hf_evaluate: true", "the metric acc, a script of the package evaluate"),
        ("answer\n", "answer\ninclude: other.txt\n", "the Python code.text"),
        ("answer\n", "answer\nmetadata: {of: [[!function code.text]]}\n", "the Python code.text"),
    ],
)
def test_a_task_that_would_execute_something_is_refused_until_it_may(
    tasks: Path, tmp_path: Path, before: str, after: str, code: str
) -> None:
    (tasks / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ntext = lambda doc: doc['question']\n")
    (tasks / "other.txt").write_text("doc_to_text: !function code.text\n")
    text = task("sums", tasks)
    assert text.count(before) == 1
    (tasks / "sums.yaml").write_text(text.replace(before, after))
    assert f"would execute {code}: read it, then add --confirm_run_unsafe_code" in refused(tasks, "sums")
    assert not (tmp_path / "ran").exists()
    if "Python" in code:
        load_tasks(["sums"], tasks, confirmed=True)
        assert (tmp_path / "ran").exists()


def test_a_template_cannot_reach_into_python(run: Run, tasks: Path, tmp_path: Path) -> None:
    text = task("sums", tasks).replace("{{question}}", "{{ ''.__class__.__mro__[1].__subclasses__() | length }}")
    (tasks / "sums.yaml").write_text(text)
    with pytest.raises(SingleError, match="Its template reaches into Python: read it, then add --confirm_run_unsafe_"):
        evaluate_single([run], ["sums"], tmp_path / "out", include_path=tasks)
    load_tasks(["sums"], tasks, confirmed=True)


def test_a_task_that_runs_what_the_model_wrote_is_refused_until_it_may(tasks: Path) -> None:
    (tasks / "sums.yaml").write_text(task("sums", tasks) + "unsafe_code: true\n")
    (tasks / "group.yaml").write_text("group: both\ntask: [sums]\n")
    assert "'sums' executes what the model writes: add --confirm_run_unsafe_code" in refused(tasks, "sums")
    assert "'sums' executes what the model writes" in refused(tasks, "both")
    assert load_tasks(["sums"], tasks, confirmed=True)[0].name == "sums"


def test_documents_that_are_not_there_are_one_line(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tasks / "sums.jsonl").unlink()
    message = refused(tasks, "sums")
    assert message.startswith("the task 'sums' cannot be loaded: FileNotFoundError: Unable to find")
    assert "HF_HUB_OFFLINE is set: fetch its documents once without it" in message and "\n" not in message
    (tasks / "sums.yaml").write_text("task: sums\ndataset_path: somebody/else\ntest_split: test\n")
    assert "HF_HUB_OFFLINE is set" in refused(tasks, "sums")


def test_other_bad_input_is_one_line(run: Run, tasks: Path, tmp_path: Path) -> None:
    (tasks / "broken.yaml").write_text("task: [")
    assert "broken.yaml is not a task of lm-eval" in refused(tasks, "sums")
    (tasks / "broken.yaml").unlink()
    assert "holds no task: expected a folder with YAML files" in refused(tmp_path / "none", "sums")
    assert "needs the name of a task" in refused(tasks, ",")
    (tasks / "sums.yaml").write_text(task("sums", tasks).replace("{{question}}", "{{word}}"))
    assert refused(tasks, "sums") == "the task 'sums' cannot be loaded: UndefinedError: 'word' is undefined"


@pytest.mark.slow
def test_an_unknown_task_is_held_against_all_of_lm_evals(tasks: Path) -> None:
    assert "lm-eval has no task 'arc_eazy'; did you mean 'arc_easy'?" in refused(tasks, "arc_eazy")
    assert "'humaneval' executes what the model writes" in refused(tasks, "humaneval")


def test_a_base_that_is_gone_is_one_line(run: Run, tasks: Path, tmp_path: Path, capsys: Any) -> None:
    gone = make_run(tmp_path / "study" / "gone", model_name_or_path=str(tmp_path / "base"))
    command = ["eval", "--run", str(gone.path), "--out", str(tmp_path / "out"), "--single", "sums"]
    assert cli.main([*command, "--include_path", str(tasks)]) == 2
    error = capsys.readouterr().err
    assert error.count("llm-sra: ") == 1 and f"(looked for {tmp_path / 'base'})" in error and "Traceback" not in error
