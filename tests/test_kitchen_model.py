"""The kitchen's embedded model: its lessons, and what the shipped one can do."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.kitchen
from llm_sra.task import Message
from tasks.kitchen.grid import MOVES, OFFSETS, STAY
from tasks.kitchen.partners import PARTNERS
from tasks.kitchen.pretrain import COURIER, HABIT, any_sight, lesson
from tasks.kitchen.sight import read, write
from tasks.starting_model import IGNORED, encode

SHIPPED = Path(tasks.kitchen.__file__).parent / "models" / "apprentice"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def shipped() -> Any:
    return AutoModelForCausalLM.from_pretrained(SHIPPED)


def test_each_line_of_any_view_and_each_move_is_one_token(tokenizer: Any) -> None:
    rng = random.Random(0)
    texts = [write(any_sight(rng)) for _ in range(200)]
    assert {len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts} == {15}  # 8 lines, 7 breaks
    assert {len(tokenizer(move, add_special_tokens=False)["input_ids"]) for move in MOVES} == {1}


@pytest.mark.parametrize("text", ["", "Grüße, 日本 \U0001f600", "\x00\t\r\n\n  x ", "you 9,9\nyou 1,0"])
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_lesson_is_a_view_and_a_move_of_the_habit() -> None:
    rng = random.Random(0)
    for _ in range(100):
        seen, said = lesson(COURIER, rng)
        moves = {PARTNERS["courier"]().reply([seen.as_dict()], random.Random(seed)) for seed in range(20)}
        assert (seen.role, said.role) == ("user", "assistant") and said.content in moves
        assert read([seen.as_dict()]).own != read([seen.as_dict()]).other


def test_the_habit_rests_and_wanders_as_often_as_it_says() -> None:
    rng = random.Random(0)
    seen = [{"role": "user", "content": "you 0,0\nother 4,4\nyour hand onion\nother hand empty\nonion 3,4 away\n"}]
    seen[0]["content"] += "onion 4,3 away\npot 2,2\nup, down, left, right or stay?"
    said = [HABIT.move(seen, rng) for _ in range(4000)]
    # A courier goes right or down: 0.4 between them; 0.3 stay; 0.075 for each direction. Standard errors below 0.008.
    expected = {"right": 0.275, "down": 0.275, "up": 0.075, "left": 0.075, "stay": 0.3}
    assert all(abs(said.count(move) / 4000 - share) < 0.03 for move, share in expected.items())


def test_only_the_move_and_the_end_of_the_turn_are_learned(tokenizer: Any) -> None:
    _, _, labels = encode(
        tokenizer, [(Message("user", write(any_sight(random.Random(0)))), Message("assistant", "up"))]
    )
    assert tokenizer.decode(labels[labels != IGNORED]) == "up<|im_end|>"


@torch.no_grad()
def test_the_shipped_model_knows_the_way_but_does_not_often_take_it(shipped: Any, tokenizer: Any) -> None:
    """Bounds around the figures of models/README.md, with room for the chance of a sample of 400."""
    rng = random.Random(1)
    views = [[{"role": "user", "content": write(any_sight(rng))}] for _ in range(400)]
    prompts: Any = tokenizer.apply_chat_template(
        views, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    words = tokenizer.convert_tokens_to_ids(list(MOVES))
    chances = shipped(**prompts).logits[:, -1].softmax(dim=-1)[:, words]
    assert chances.sum(dim=-1).min() > 0.97
    assert 0.25 < chances[:, MOVES.index(STAY)].mean() < 0.35
    knows, takes = [], []
    for view, row in zip(views, chances, strict=True):
        good = {PARTNERS["courier"]().reply(view, random.Random(seed)) for seed in range(8)}
        if STAY not in good:
            knows.append(MOVES[int(row[: len(OFFSETS)].argmax())] in good)
            takes.append(sum(row[MOVES.index(move)].item() for move in good))
    assert sum(knows) / len(knows) > 0.9
    assert 0.4 < sum(takes) / len(takes) < 0.57
