"""GSM8K: what counts as an answer, how the relay goes, and a whole way through training on the real data."""

import json
import math
import random
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from support import llama, llama_tokenizer, qwen2_tokenizer, save_model
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from llm_sra import evaluate, export, train
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.registry import load_partner, load_task
from llm_sra.runs import Run, read_metrics
from llm_sra.task import Message, Outcome, Problem, Reward, Task
from tasks.gsm8k import GSM8K
from tasks.gsm8k import data as gsm8k_data
from tasks.gsm8k.answers import final_answer
from tasks.gsm8k.data import DataError

ROOT = Path(__file__).resolve().parent.parent
RNG = random.Random(0)
QUESTION = "Ada has 3 boxes with 14 pens each. How many pens does she have?"
PENS = Problem("pens", {"question": QUESTION, "answer": "42"})


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Made-up problems in the data set's form; the higher the number, the longer the question."""
    return [
        {
            "question": f"Bo has {n} marbles and finds {n} more" + " in his yard" * (n % 3) + ". How many has he now?",
            "answer": f"He now has {n} + {n} = <<{n}+{n}={2 * n}>>{2 * n} marbles.\n#### {2 * n:,}",
        }
        for n in range(start, start + count)
    ]


def write_data(folder: Path, train_rows: Sequence[object], test_rows: Sequence[object]) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in (("train", train_rows), ("test", test_rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"), rows(30), rows(7, start=1000))


@pytest.fixture
def task(folder: str) -> GSM8K:
    return GSM8K(data_path=folder, protocol="relay")


def play(task: Task, replies: Sequence[str]) -> tuple[Outcome, dict[str, list[Reward]]]:
    """Play the pens with these replies, all of which must be asked for; the outcome and each seat's rewards."""
    state = task.start(PENS, RNG)
    rewards: dict[str, list[Reward]] = {seat: [] for seat in task.seats}
    for reply in replies:
        (seat,) = task.actors(state)
        state, paid = task.step(state, {seat: reply}, RNG)
        for name in task.seats:
            rewards[name].append(paid[name])
    assert task.actors(state) == ()
    return task.outcome(state), rewards


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 42", "42"),
        ("3 * 14 = 42\n#### 42\n", "42"),
        ("####42", "42"),
        ("#### 42.", "42"),
        ("#### 42,", "42"),
        ("#### 42.0", "42"),
        ("#### $42", "42"),
        ("#### $ 42.00", "42"),
        ("#### 1,000", "1000"),
        ("#### $1,234,567.50.", "1234567.5"),
        ("#### 1000000", "1000000"),
        ("#### 007", "7"),
        ("#### -3", "-3"),
        ("#### - 3", "-3"),
        ("#### -$3", "-3"),
        ("#### $-3", "-3"),
        ("#### +3", "3"),
        ("#### .5", "0.5"),
        ("#### 42 pens", "42"),
        ("#### 50%", "50"),
        ("so #### 42 it is", "42"),
        ("#### 41\nNo:\n#### 42", "42"),  # the last one counts
        ("#### 42\n#### unknown", "42"),  # and a later one without a number does not
        ("", None),
        ("42", None),
        ("A: 42", None),
        ("### 42", None),
        ("##### 42", None),
        ("####\n42", None),
        ("#### forty-two", None),
        ("#### number", None),
        ("#### ", None),
        ("#### .", None),
        ("#### 1,00", None),
        ("#### 1000,000", None),
        ("#### 1.2.3", None),
        ("#### --3", None),
        ("#### $$3", None),
        ("#### ٤٢", None),
    ],
)
def test_an_answer_is_the_last_number_after_four_hashes(text: str, answer: str | None) -> None:
    assert final_answer(text, strict=True) == (None if answer is None else Fraction(answer))


@pytest.mark.parametrize("filler", [" ", "#", "#### ", "1", "1,", ".", "$", "-"])
def test_no_text_takes_long_to_read(filler: str) -> None:
    start = time.perf_counter()
    assert final_answer("#### 7 " + "#### " + filler * 200_000 + "x", strict=True) == 7
    final_answer("#### 7 " + "#### " + filler * 200_000 + "x")
    assert time.perf_counter() - start < 10  # it takes milliseconds; hours, were it not linear


def test_one_seat_goes_on_and_the_other_finishes(task: GSM8K) -> None:
    outcome, rewards = play(task, ["3 * 14 = 41", "No, 42.", "", "#### 42"])
    assert outcome.solved
    assert [reward.team for reward in rewards["first"]] == [0, 0, 0, 1]
    assert [reward.team for reward in rewards["second"]] == [0, 0, 0, 1]
    assert outcome.effort == {"first": 0.11, "second": 0.14}  # 11 and 0, 7 and 7 characters
    assert outcome.metrics == {
        "finished": 1,
        "finished/first": 0,
        "finished/second": 1,
        "steps/first": 1,
        "steps/second": 2,
        "repetition/0/first": 0,
        "repetition/0/second": 0,
        "repetition/1/first": 0,
        "repetition/1/second": 0,
    }


def test_a_step_that_repeats_itself_is_told_by_turn_and_seat(task: GSM8K) -> None:
    outcome, _ = play(task, ["x", "y y y y y", "x", "#### 42"])
    assert (outcome.metrics["repetition/0/second"], outcome.metrics["repetition/1/second"]) == (0.5, 0)


def test_the_first_reply_with_an_answer_ends_the_episode(task: GSM8K) -> None:
    outcome, rewards = play(task, ["#### 41\n#### 42.0"])
    assert outcome.solved
    assert outcome.metrics["finished/first"] == 1
    assert outcome.effort["second"] == outcome.metrics["steps/second"] == outcome.metrics["finished/second"] == 0
    assert [reward.total for reward in rewards["second"]] == [1]
    assert not play(task, ["3 * 14 = 42", "#### 42\n#### 41"])[0].solved


def test_after_the_last_turn_a_solution_without_an_answer_is_unsolved(task: GSM8K) -> None:
    outcome, rewards = play(task, ["3 * 14 = 42", "42 pens", "The answer is 42", "####"])
    assert not outcome.solved
    assert outcome.metrics["finished"] == outcome.metrics["finished/first"] == outcome.metrics["finished/second"] == 0
    assert all(reward.total == 0 for reward in chain(*rewards.values()))
    assert not play(GSM8K(data_path=None, protocol="relay", turns=2), ["####", "42"])[
        0
    ].solved  # no answer is put together from two


def test_both_seats_see_the_same_opening_then_the_steps(task: GSM8K) -> None:
    state = task.start(PENS, RNG)
    (opening,) = task.view(state, "first")
    assert task.view(state, "second") == (opening,)
    assert opening.role == "user"
    assert opening.content.endswith(f"#### number\n\nProblem: {QUESTION}\n\nSolution:")
    for reply in (" Each box has 14. ", "3 * 14 = 41", "\nNo, 42."):
        state, _ = task.step(state, {task.actors(state)[0]: reply}, RNG)
    assert task.view(state, "second") == (
        Message("user", opening.content + "\n Each box has 14. "),
        Message("assistant", "3 * 14 = 41"),
        Message("user", "\nNo, 42."),
    )
    assert task.view(state, "first")[:3] == (
        opening,
        Message("assistant", " Each box has 14. "),
        Message("user", "3 * 14 = 41"),
    )


def test_a_relay_is_not_ended_by_its_quoted_instructions(task: GSM8K) -> None:
    opening = task.view(task.start(PENS, RNG), "first")[0].content
    assert "#### 7.5" in opening
    outcome, _ = play(task, [opening, opening.split("\n\nProblem")[0], "3 * 14 = 42", "#### 42"])
    assert outcome.solved and outcome.metrics["finished/second"] == 1


def test_the_instructions_favour_no_seat_and_no_arm(task: GSM8K) -> None:
    opening = task.view(task.start(PENS, RNG), "first")[0].content.lower()
    for word in ("partner", "collaborat", "cooperat", "together", "team", "help", "first", "second", "reward"):
        assert word not in opening.removesuffix(f"problem: {QUESTION.lower()}\n\nsolution:")


def test_splits_are_disjoint_and_stable(folder: str, tmp_path: Path) -> None:
    task = GSM8K(data_path=folder, validation=10)
    ids = {split: [problem.id for problem in task.problems(split)] for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in ids.items()} == {"train": 20, "dev": 10, "test": 7}
    assert len(set(chain(*ids.values()))) == 37
    backwards = GSM8K(data_path=write_data(tmp_path, rows(30)[::-1], rows(7, start=1000)), validation=10)
    for split, found in ids.items():
        assert {problem.id for problem in backwards.problems(split, seed=5)} == set(found)
    assert {problem.id for problem in GSM8K(data_path=folder, validation=5).problems("dev")} < set(ids["dev"])


def test_a_seed_chooses_and_orders_problems(folder: str) -> None:
    task = GSM8K(data_path=folder, validation=10)
    assert task.problems("train", 5, seed=1) == task.problems("train", seed=1)[:5]
    assert task.problems("train", seed=1) != task.problems("train", seed=2)
    assert len(task.problems("train", 1000)) == 20
    json.dumps([problem.data for problem in task.problems("train")])


def test_references_are_read_as_answers_are(folder: str) -> None:
    problem = GSM8K(data_path=folder, validation=1).problems("test", 1)[0]
    marbles = int(problem.data["question"].split()[2])
    assert problem.data["answer"] == str(2 * marbles)  # "#### 2,000" in the file


def test_long_questions_are_left_out_without_moving_the_splits(folder: str) -> None:
    task, all_of_them = (
        GSM8K(data_path=folder, validation=10, max_question_chars=70),
        GSM8K(data_path=folder, validation=10),
    )
    for split in ("train", "dev"):
        short = [problem for problem in all_of_them.problems(split) if len(problem.data["question"]) <= 70]
        assert 0 < len(short) < len(all_of_them.problems(split))
        assert {problem.id for problem in task.problems(split)} == {problem.id for problem in short}
    with pytest.raises(DataError, match="max_question_chars"):
        GSM8K(data_path=folder, validation=10, max_question_chars=3).problems("train")


def test_a_question_that_stands_twice_is_one_problem(tmp_path: Path) -> None:
    task = GSM8K(data_path=write_data(tmp_path, rows(5) * 2, rows(2, start=50)), validation=1)
    assert len(task.problems("train")) == 4


def test_nothing_is_read_before_it_is_needed_and_then_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = gsm8k_data._from_files
    monkeypatch.setattr(gsm8k_data, "_from_files", lambda paths: read.append(paths[0].name) or real(paths))
    task = GSM8K(data_path=folder, validation=5)
    assert read == []
    for split in ("train", "dev", "train", "test", "test"):
        task.problems(split)
    assert read == ["train.jsonl", "test.jsonl"]


def test_missing_data_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder.*nowhere.*train\.jsonl and test\.jsonl"):
        GSM8K(data_path=str(tmp_path / "nowhere"))
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"no test\.jsonl in it.*expected a folder with train\.jsonl"):
        GSM8K(data_path=str(tmp_path))


@pytest.mark.parametrize(
    "row", [{"question": "How many?"}, {"question": 5, "answer": "#### 5"}, {"question": "How many?", "answer": "5"}]
)
def test_a_row_of_another_form_is_named(tmp_path: Path, row: dict[str, object]) -> None:
    task = GSM8K(data_path=write_data(tmp_path, rows(3), [row]), validation=1)
    with pytest.raises(DataError, match=r"test, row 1: expected one problem per line"):
        task.problems("test")


def test_a_file_that_is_not_jsonl_is_named(tmp_path: Path) -> None:
    write_data(tmp_path, rows(3), rows(3))
    (tmp_path / "train.jsonl").write_text("question,answer\nHow many?,5\n")
    with pytest.raises(DataError, match=r"cannot read .*train\.jsonl: expected one problem per line"):
        GSM8K(data_path=str(tmp_path), validation=1).problems("train")


def test_a_hub_out_of_reach_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(gsm8k_data, "load_dataset", offline)
    with pytest.raises(DataError, match=r"cannot load openai/gsm8k from the hub: no network.*data_path"):
        GSM8K().problems("train")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"turns": 1}, ValueError),
        ({"turns": 2.0}, TypeError),
        ({"turns": True}, TypeError),
        ({"validation": 0}, ValueError),
        ({"max_question_chars": 0}, ValueError),
        ({"cost_per_token": -0.1}, ValueError),
        ({"cost_per_token": math.nan}, ValueError),
        ({"cost_per_token": "0.1"}, TypeError),
        ({"data_path": 3}, TypeError),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"`{next(iter(options))}`"):
        GSM8K(**options)  # type: ignore[arg-type]


def test_splits_that_cannot_be_had_are_refused(task: GSM8K) -> None:
    with pytest.raises(ValueError, match="split must be one of train, dev, test, got 'validation'"):
        task.problems("validation")
    with pytest.raises(ValueError, match="count must be 0 or more"):
        task.problems("test", -1)
    with pytest.raises(DataError, match="`validation` must be below the 30 problems"):  # 500 by default
        task.problems("train")


@pytest.mark.parametrize(
    ("name", "steps", "reply"),
    [
        ("silent", ["3 * 14 = 42"], ""),
        ("copycat", [], ""),
        ("copycat", ["3 * 14\n\nSolution:\n= 42"], "3 * 14\n\nSolution:\n= 42"),
        ("copycat", [""], ""),
        ("copycat", ["one", "two"], "two"),
        ("copycat", ["one", "two", "three"], "three"),
    ],
)
def test_partners_reply(task: GSM8K, name: str, steps: list[str], reply: str) -> None:
    state = task.start(PENS, RNG)
    for step in steps:
        state = state.with_step(step)
    messages = [message.as_dict() for message in task.view(state, task.actors(state)[0])]
    assert load_partner(name, task).reply(messages, RNG) == reply


def test_the_wrong_partner_finishes_and_is_never_right(task: GSM8K) -> None:
    for seed in range(50):
        reply = load_partner("wrong", task).reply([{"role": "user", "content": "?"}], random.Random(seed))
        answer = final_answer(reply)
        assert answer is not None and answer.denominator != 1


def test_the_task_is_found_by_its_folder(folder: str) -> None:
    assert isinstance(load_task("gsm8k", {"data_path": folder, "turns": 6}), GSM8K)
    with pytest.raises(ValueError, match=r"its options are: data_path, protocol"):
        load_task("gsm8k", {"path": folder})


# -- the real data ------------------------------------------------------------------------------------------------


def test_every_problem_of_the_real_data_is_read(gsm8k_folder: Path) -> None:
    task = GSM8K(data_path=str(gsm8k_folder))
    problems = [task.problems(split) for split in ("train", "dev", "test")]
    assert [len(split) for split in problems] == [6973, 500, 1319]
    assert len({problem.id for problem in chain(*problems)}) == 8792
    # As the wrong partner takes it to be.
    assert all(Fraction(problem.data["answer"]) % 1 == 0 for problem in chain(*problems))


def random_qwen2(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """All tokens are about as likely at every place, so that almost every reply runs into its limit."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


@pytest.fixture(scope="module")
def models(gsm8k_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two random models of different families, each with a tokenizer trained on the data's text."""
    lines = (gsm8k_folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = ["\n".join(json.loads(line).values()) for line in lines[:1000]]
    made = tmp_path_factory.mktemp("models")
    own, other = qwen2_tokenizer(texts, 2000), llama_tokenizer(texts[:300], 1200)
    return {
        "base": save_model(random_qwen2(own), own, made / "base"),
        "stranger": save_model(llama(other, context=2048), other, made / "stranger"),
    }


@pytest.fixture(scope="module")
def run(gsm8k_folder: Path, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two steps of the smoke recipe."""
    return train(
        ROOT / "recipes" / "gsm8k" / "smoke.yaml",
        model_name_or_path=str(models["base"]),
        output_dir=str(tmp_path_factory.mktemp("runs") / "smoke"),
        task_args={"data_path": str(gsm8k_folder), "protocol": "relay", "turns": 2, "cost_per_token": 1e-3},
    )


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, "second", tmp_path_factory.mktemp("export") / "second")


def test_long_prompts_and_cut_replies_train(run: Run) -> None:
    steps = [line for line in read_metrics(run.path / "metrics.jsonl") if "solve_rate" in line]
    assert [line["step"] for line in steps] == [1, 2]
    for line in steps:
        assert line["replies_cut"] > 0.5
        assert 200 < line["play/first/first/tokens"] <= 256
        assert line["play/second/second/cost"] > 0
        for policy in ("first", "second", "adversary-of-first", "adversary-of-second"):
            assert line[f"policy/{policy}/grad_norm"] > 0
            assert line[f"policy/{policy}/entropy"] == pytest.approx(math.log(2000), rel=0.02)  # nats per token
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, float))
    assert steps[0]["policy/adversary-of-first/kl_to_partner"] == 0  # it starts as a copy
    assert steps[1]["policy/adversary-of-first/kl_to_partner"] != 0


def test_what_was_said_is_kept_with_its_limit(run: Run) -> None:
    lines = (run.path / "episodes" / "step-000001.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [turn for line in lines for turn in json.loads(line)["turns"]]
    assert len(turns) == 8  # 2 problems, 2 episodes each, 2 turns
    cut = [turn for turn in turns if turn["finish"] == "length"]
    assert cut and all(turn["tokens"] == 256 and turn["text"] for turn in cut)


def test_the_trained_adapters_are_exported_and_loaded_again(run: Run, exported: Path, models: dict[str, Path]) -> None:
    base, tokenizer = load_model(str(models["base"]))
    ids = tokenizer(QUESTION * 20, return_tensors="pt")["input_ids"]
    bank = AdapterBank(base)
    bank.load(run.adapters / "second", "second")
    with torch.no_grad(), bank.using("second"):
        trained = bank.model(ids).logits.log_softmax(-1)
    with torch.no_grad(), bank.using(None):
        untrained = bank.model(ids).logits.log_softmax(-1)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(models["base"]), exported).eval()
    with torch.no_grad():
        loaded = again(ids).logits.log_softmax(-1)
    assert (loaded - trained).abs().max() < 1e-5 < (trained - untrained).abs().max()


def test_agents_meet_scripts_a_foreign_model_and_the_export(
    run: Run, exported: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    entries = yaml.safe_load((ROOT / "eval" / "rosters" / "gsm8k_smoke.yaml").read_text())["partners"]
    entries += [
        {"name": "stranger", "kind": "model", "policy": str(models["stranger"])},
        {"name": "exported", "kind": "adapter", "policy": str(exported)},
    ]
    (tmp_path / "roster.yaml").write_text(yaml.safe_dump({"partners": entries}))
    records = evaluate([run], tmp_path / "roster.yaml", tmp_path / "out", problems=2, decodings=["sampled"])
    by_cell = {(record.seat, record.partner): record for record in records}
    names = ("self-play", "silent", "copycat", "wrong", "stranger", "exported")
    assert set(by_cell) == {(seat, name) for seat in ("first", "second") for name in names}
    assert all(record.n == 2 and record.solve_rate == 0 for record in records)
    assert by_cell["first", "silent"].effort_partner == 0 < by_cell["first", "silent"].effort_own
    assert by_cell["second", "copycat"].effort_partner == 0  # it has nothing to repeat at the first turn
    assert by_cell["first", "copycat"].effort_partner == by_cell["first", "copycat"].effort_own > 0
    assert by_cell["second", "wrong"].effort_own == 0  # the partner has finished before
    assert by_cell["second", "stranger"].effort_partner > 0
    assert -0.001 * 256 <= by_cell["first", "exported"].own_return < 0  # one turn of at most 256 tokens
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["records"]) == 12
