"""The embedded models: the command that makes them, and what the shipped ones can do."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tensors
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.worksheet
from tasks.starting_model import IGNORED
from tasks.worksheet import Worksheet, habits, pretrain
from tasks.worksheet.blueprints import BLUEPRINTS
from tasks.worksheet.lessons import Habit, Lesson, lesson, lessons
from tasks.worksheet.sheet import Sheet

SHIPPED = Path(tasks.worksheet.__file__).parent / "models"
ARCHITECTURE = {"pupil": "Qwen2ForCausalLM", "stranger": "LlamaForCausalLM"}
END = {"pupil": "<|im_end|>", "stranger": "<|eot_id|>"}
PROMPT = {
    "pupil": "<|im_start|>user\nQ: 3+2+5\n3+2=5<|im_end|>\n<|im_start|>assistant\n",
    "stranger": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nQ: 3+2+5\n3+2=5<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
}
CONVERSATION = [
    {"role": "user", "content": "Q: 3+2+5\n3+2=5"},
    {"role": "assistant", "content": "5+5=10"},
    {"role": "user", "content": "pass"},
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "\n 5+5=11"},
]
each_model = pytest.mark.parametrize("name", list(BLUEPRINTS))


def ids(tokenizer: Any, messages: list[dict[str, str]], prompt: bool) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=True)["input_ids"]


def test_the_command_makes_both_models_from_nothing(tmp_path: Path) -> None:
    pretrain.main(["--out", str(tmp_path), "--steps", "3"])
    for name, architecture in ARCHITECTURE.items():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        assert type(model).__name__ == architecture
        assert 300_000 <= model.num_parameters() <= 700_000
        assert ids(tokenizer, CONVERSATION, True) == ids(BLUEPRINTS[name].tokenizer(), CONVERSATION, True)
        assert all(tensor.isfinite().all() for tensor in tensors(model).values())


def test_the_same_seed_makes_the_same_model_and_another_seed_another() -> None:
    made = [tensors(pretrain.pretrain(BLUEPRINTS["pupil"], steps=2, seed=seed)[0]) for seed in (0, 0, 1)]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(made[0]["model.embed_tokens.weight"], made[2]["model.embed_tokens.weight"])


def test_training_reduces_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain.pretrain(BLUEPRINTS["stranger"], steps=20)
    assert float(capsys.readouterr().out.split("loss ")[-1].split()[0]) < 4.5  # ln 362 = 5.9 if it knew nothing


def test_a_step_count_below_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pretrain.main(["--out", str(tmp_path), "--steps", "0"])
    assert "--steps must be 1 or more, got 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@each_model
def test_a_shipped_model_is_a_plain_folder_of_at_most_three_megabytes(name: str) -> None:
    assert sum(file.stat().st_size for file in (SHIPPED / name).iterdir()) <= 3_000_000
    model = AutoModelForCausalLM.from_pretrained(SHIPPED / name)
    blueprint = BLUEPRINTS[name]
    assert type(model).__name__ == ARCHITECTURE[name]
    made = blueprint.model(blueprint.tokenizer())
    assert {n: t.shape for n, t in tensors(model).items()} == {n: t.shape for n, t in tensors(made).items()}
    assert model.config.hidden_size // model.config.num_attention_heads >= 32
    assert model.generation_config.eos_token_id == AutoTokenizer.from_pretrained(SHIPPED / name).eos_token_id


@each_model
def test_the_template_frames_a_view(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name)
    text = tokenizer.apply_chat_template(CONVERSATION[:1], tokenize=False, add_generation_prompt=True)
    assert text == PROMPT[name]
    assert tokenizer.eos_token == END[name]
    assert tokenizer.pad_token not in (None, tokenizer.eos_token)


@each_model
def test_a_growing_conversation_only_appends_tokens(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name)
    prompts = [ids(tokenizer, CONVERSATION[:length], True) for length in (1, 3, 5)]
    for length, prompt, after in zip((1, 3), prompts, prompts[1:], strict=False):
        reply = tokenizer(CONVERSATION[length]["content"] + END[name], add_special_tokens=False)["input_ids"]
        assert after[: len(prompt) + len(reply)] == prompt + reply


@each_model
def test_pass_and_each_digit_and_sign_is_one_token(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name)
    for text, count in {"pass": 1, "13+5=18": 7, "Q: 3+2+5\n3+2=5": 14}.items():
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == count


@each_model
@pytest.mark.parametrize("text", ["", "Grüße, 日本 \U0001f600", "\x00\t\r\n\n  x ", "<0x0A><unk>", "passpass Pass"])
def test_any_text_survives_the_tokenizer(name: str, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name)
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(encoded) == text
    assert "\n" not in tokenizer.decode(tokenizer("<0x0A>", add_special_tokens=False)["input_ids"])


def labelled(name: str, lesson: Lesson, only_exemplary: bool) -> str:
    """The text of the tokens that a model learns from."""
    tokenizer = BLUEPRINTS[name].tokenizer()
    _, _, labels = pretrain.encode(tokenizer, [lesson], only_exemplary)
    return tokenizer.decode(labels[labels != IGNORED])


@each_model
def test_a_model_learns_its_own_lines_and_where_they_end(name: str) -> None:
    task = Worksheet()
    view = task.view(Sheet((3, 2, 5), ("pass", "3+2=6", "3+2=5", "5+5=10", "", "pass")), "second")
    learned = Lesson(tuple(view), exemplary=(False, True, True))
    end = END[name]
    assert labelled(name, learned, only_exemplary=False) == f"3+2=6{end}5+5=10{end}pass{end}"
    assert labelled(name, learned, only_exemplary=True) == f"5+5=10{end}pass{end}"


def test_lessons_mark_the_lines_that_a_diligent_seat_would_have_written() -> None:
    task, rng = Worksheet(), random.Random(0)
    problem = task.problems("train", 1)[0]
    assert lesson(task, problem, Habit(right=1, rest=0, rest_when_done=1), "first", rng).exemplary == (True,) * 3
    assert lesson(task, problem, Habit(right=0, rest=0, rest_when_done=0), "second", rng).exemplary == (False,) * 3


def test_lessons_are_about_the_given_problems_from_both_seats() -> None:
    task = Worksheet()
    made = lessons(task, task.problems("train", 5), Habit(0.5, 0.3), 40, random.Random(0))
    firsts = [lesson.conversation[0].content.split("\n") for lesson in made]
    assert {lines[0] for lines in firsts} == {f"Q: {problem.id}" for problem in task.problems("train", 5)}
    assert {len(lines) for lines in firsts} == {1, 2}


def test_shares_tell_open_sheets_from_complete_ones() -> None:
    numbers = (3, 2, 5)
    sheets = [
        Sheet(numbers, ("3+2=5", "5+5=10", "pass")),
        Sheet(numbers, ("3+2=5", "5+5=10", "5+5=11")),
        Sheet(numbers, ("3+2=5", "pass", "5+5=10")),
        Sheet(numbers, ("3+2=5", "pass", "pass")),
        Sheet(numbers, ("3+2=5", "pass", "3+2=5")),
        Sheet(numbers, ("3+2=5", "pass", "x")),
    ]
    assert habits.shares(sheets, 2) == ({"right": 0.25, "pass": 0.25, "wrong": 0.5}, 0.5)


@each_model
@pytest.mark.parametrize("seat", Worksheet.seats)
def test_a_shipped_model_plays_with_mixed_habits_on_new_problems(name: str, seat: str) -> None:
    """Bounds around the figures of models/README.md, with room for the chance of a sample of 200."""
    model = AutoModelForCausalLM.from_pretrained(SHIPPED / name)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name)
    sheets = habits.play(model, tokenizer, seat, count=200)
    start = Worksheet.seats.index(seat)
    (first, _), (second, rests_when_done) = habits.shares(sheets, start), habits.shares(sheets, start + 2)
    assert 0.3 < first["right"] < 0.75
    assert 0.18 < second["right"] < 0.6
    for shares in (first, second):
        assert 0.1 < shares["pass"] < 0.55
        assert 0.08 < shares["wrong"] < 0.45
    assert rests_when_done > 0.45


@each_model
def test_a_shipped_model_knows_the_first_right_line_of_new_problems(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(SHIPPED / name)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name)
    sheets = habits.play(model, tokenizer, "first", count=106, greedy=True)
    assert habits.shares(sheets, 0)[0]["right"] > 0.9
