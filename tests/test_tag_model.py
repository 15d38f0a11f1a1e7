"""Tag's embedded model: its lessons, and what the shipped one can do."""

import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.tag
from llm_sra.task import Message
from tasks.starting_model import IGNORED, encode
from tasks.tag import pretrain
from tasks.tag.partners import PARTNERS
from tasks.tag.pretrain import REST, SKILL, said, views
from tasks.tag.sight import read
from tasks.tag.world import MOVES, STAY

SHIPPED = Path(tasks.tag.__file__).parent / "models" / "chaser"
EAST = [{"role": "user", "content": "you 0 0 0 0\nother 5 5\nrunner 9 0 0 0\nstay left right down up?"}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def shipped() -> Any:
    return AutoModelForCausalLM.from_pretrained(SHIPPED)


def shown(count: int, seed: int = 1) -> list[Message]:
    """Views of scripted play."""
    return list(islice(views(random.Random(seed)), count))


def test_a_loaded_tokenizer_reads_as_in_pre_training(tokenizer: Any) -> None:
    made = pretrain.tokenizer()
    for text in [*(view.content for view in shown(200)), "-3 12-4", "Grüße"]:
        assert tokenizer(text)["input_ids"] == made(text)["input_ids"]


def test_each_word_and_number_of_a_view_and_each_move_is_one_token(tokenizer: Any) -> None:
    # names and numbers 5 + 3 + 5 + 3 + 3, a line break after each of five lines, the question
    lengths = [len(tokenizer(view.content, add_special_tokens=False)["input_ids"]) for view in shown(1000)]
    assert lengths.count(25) >= 995 and max(lengths) <= 35  # numbers beyond 32 are several
    assert {len(tokenizer(move, add_special_tokens=False)["input_ids"]) for move in MOVES} == {1}


@pytest.mark.parametrize("text", ["", "Grüße, 日本 \U0001f600", "\x00\t\r\n\n  x ", "you 99 -123\nyou 1 0"])
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_lessons_are_views_of_both_seats_in_turn_from_openings_on() -> None:
    first, second, third, *_ = [read([view.as_dict()]) for view in shown(50)]
    assert first.own_speed == second.own_speed == (0, 0)  # at rest
    assert first.other == tuple(-x for x in second.other) and third != first
    assert shown(100) == shown(100) != shown(100, seed=2)


def test_the_habit_rests_and_wanders_as_often_as_it_says() -> None:
    rng = random.Random(0)
    drawn = [said(SKILL, EAST, rng) for _ in range(4000)]
    # what is left after skill and rest is any of five moves, stay among them; standard errors below 0.008
    any_of_five = (1 - SKILL - REST) / 5
    expected = {"right": SKILL + any_of_five, "stay": REST + any_of_five} | dict.fromkeys(("left", "up"), any_of_five)
    assert all(abs(drawn.count(move) / 4000 - share) < 0.03 for move, share in expected.items())
    assert {said(1.0, EAST, rng) for _ in range(50)} == {"right"}


def test_only_the_move_and_the_end_of_the_turn_are_learned(tokenizer: Any) -> None:
    _, _, labels = encode(tokenizer, [(shown(1)[0], Message("assistant", "up"))])
    assert tokenizer.decode(labels[labels != IGNORED]) == "up<|im_end|>"


@torch.no_grad()
def test_the_shipped_model_goes_where_an_interceptor_goes_but_not_always(shipped: Any, tokenizer: Any) -> None:
    """Bounds around the figures of models/README.md, with room for the chance of a sample of 400."""
    seen = [[view.as_dict()] for view in shown(400)]
    prompts: Any = tokenizer.apply_chat_template(
        seen, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    last = prompts["attention_mask"].sum(dim=1) - 1
    words = tokenizer.convert_tokens_to_ids(list(MOVES))
    chances = shipped(**prompts).logits[torch.arange(len(seen)), last].softmax(dim=-1)[:, words]
    assert chances.sum(dim=-1).min() > 0.97
    assert abs(chances[:, MOVES.index(STAY)].mean() - REST - (1 - SKILL - REST) / 5) < 0.06
    right = []
    for view, row in zip(seen, chances, strict=True):
        good = {PARTNERS["interceptor"]().reply(view, random.Random(seed)) for seed in range(8)}
        right.append(MOVES[int(row.argmax())] in good)
    assert sum(right) / len(right) > 0.85
