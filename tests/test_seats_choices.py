"""Choices that differ from seat to seat: what is played, scored, trained, exported and shown of them."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from oracle_support import RECIPE
from support import Toy, make_run

from eval.oracle import compare_with_oracle
from llm_sra import export, train
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.protocol.check import check_task
from llm_sra.registry import find_model
from llm_sra.runs import read_metrics
from llm_sra.trainer.forward import choice_ids
from recipes.commands.check import main as check
from tasks.effort import Effort

# 2 x 3. Each seat is paid for its own action alone, so its exact policy is a softmax of payoffs / ε.
PAYOFFS: dict[str, list[list[float]]] = {
    "first": [[0, 0, 0], [0.6, 0.6, 0.6]],
    "second": [[0, 0.3, 0.6], [0, 0.3, 0.6]],
}


def words(left: object, right: object) -> Toy:
    """`Toy` whose seats have these words."""
    return type("Mine", (Toy,), {"choices": {"left": left, "right": right}})()


def test_a_tasks_choices_are_of_all_seats_or_of_each() -> None:
    assert type("Mine", (Toy,), {"choices": ("yes", "no")})().choices_of("right") == ("yes", "no")
    task = words(("yes", "no"), ("no", "pass", "well"))
    assert task.choices_of("left") == ("yes", "no") and task.choices_of("right") == ("no", "pass", "well")
    assert task.legal_replies() == ("yes", "no", "pass", "well") and Toy().choices_of("left") == ()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"left": ("yes",)}, "names words for left, but the seats are left, right: give each seat its words"),
        ({"left": ("yes",), "rihgt": ("no",)}, "names words for left, rihgt, but the seats are left, right"),
        ({"left": ("yes",), "right": ()}, r"holds \(\): expected a tuple of words"),
        ({"left": ("yes",), "right": "no"}, r"holds 'no': expected a tuple of words"),
        ("yes", r"`choices` of Mine holds 'yes': expected a tuple of words, as \('rest', 'work'\)"),
        ((1, 2), r"holds \(1, 2\)"),
    ],
)
def test_choices_that_are_no_words_are_found_before_anything_is_played(choices: object, message: str) -> None:
    checked = check_task(type("Mine", (Toy,), {"choices": choices})())
    [finding] = checked.findings
    assert finding.breaks and not checked.trials
    assert re.search(message, finding.text)


def test_stand_ins_say_their_seats_words(capsys: pytest.CaptureFixture[str]) -> None:
    check(["effort", "--task_args", '{"game": "inspection", "actions": [["shirk", "work"], ["trust", "inspect"]]}'])
    assert "replies:           first one of shirk, work; second one of trust, inspect" in capsys.readouterr().out
    trials = check_task(Effort(payoffs=PAYOFFS), episodes=8).trials
    said = {
        seat: {turn.reply for trial in trials for turn in trial.turns if turn.seat == seat} for seat in Effort.seats
    }
    assert said["first"] <= {"A", "B"} and said["second"] <= {"A", "B", "C"}


CPU = torch.device("cpu")


def test_the_trainers_table_of_words() -> None:
    ids = {"A": 5, "B": 6, "C": 7, "rest": 1, "work": 2}
    renderer = SimpleNamespace(single_tokens=lambda words: tuple(ids[word] for word in words))
    table = choice_ids(Effort(payoffs=PAYOFFS), Effort.seats, renderer, CPU)  # type: ignore[arg-type]
    assert table is not None and table.tolist() == [[5, 6, -1], [5, 6, 7]]
    common = choice_ids(Effort(), Effort.seats, renderer, CPU)  # type: ignore[arg-type]
    assert common is not None and common.tolist() == [1, 2]
    theirs = choice_ids(Effort(payoffs=PAYOFFS), ["second"], renderer, CPU)  # type: ignore[arg-type]
    assert theirs is not None and theirs.tolist() == [[5, 6, 7]]  # the other seat's policies live on another model
    assert choice_ids(Toy(), Toy.seats, renderer, CPU) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("sharing", ["seat", pytest.param("shared", marks=pytest.mark.slow)])
def test_a_game_of_two_by_three_is_trained_towards_its_equilibrium(sharing: str, tmp_path: Path) -> None:
    rates: dict[str, Any] = {"learning_rate": 1e-3, "adversary_learning_rate": 2e-3, "max_steps": 32}
    game: dict[str, Any] = {"task_args": {"payoffs": PAYOFFS}, "tau": 1, "entropy_coef": 0.3, "sharing": sharing}
    run = train(RECIPE, output_dir=tmp_path / "run", disable_tqdm=True, **rates, **game)
    first = read_metrics(run.path / "metrics.jsonl")[0]
    assert first["task/illegal/first"] == first["task/illegal/second"] == 0
    if sharing == "seat":  # almost uniform at first, over two words and over three
        assert first["policy/first/entropy"] == pytest.approx(math.log(2), abs=0.04)
        assert first["policy/second/entropy"] == pytest.approx(math.log(3), abs=0.04)
    compared = compare_with_oracle(run)
    # e^2 / (1 + e^2) = 0.881; (1, e, e^2) / 11.107 = 0.090, 0.245, 0.665
    assert np.allclose(compared.nearest.policies[0], [0.119, 0.881], atol=1e-3)
    assert np.allclose(compared.nearest.policies[1], [0.090, 0.245, 0.665], atol=1e-3)
    assert (
        compared.distance < 0.1 and len(compared.adversaries["first"]) == 3 and len(compared.adversaries["second"]) == 2
    )


def test_an_export_says_which_words_its_seat_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(
        tmp_path / "run", task="effort", base=Path(find_model("effort/player")), task_args={"payoffs": PAYOFFS}
    )
    tokenizer = load_model(str(run.config["model_name_or_path"]))[1]
    renderer = Renderer.of(tokenizer, run.config)
    for seat, said in (("first", ("A", "B")), ("second", ("A", "B", "C"))):
        card = (export(run, seat, tmp_path / seat) / "README.md").read_text()
        assert f"allowed = {list(renderer.single_tokens(said))}" in card
        assert card.count("reply is one token, one of the words") == 1
        assert f"without restricting tokens to {', '.join(said)};" in capsys.readouterr().out
