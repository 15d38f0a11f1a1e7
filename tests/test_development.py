"""The development roster: what agents in training are played with, and which numbers that gives."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_support import roster, scripted
from support import (
    make_engine,
    qwen2_folder,
    scramble,
)

import llm_sra.evaluation.play_missing
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.evaluation.development import DevEvaluation
from llm_sra.partners.loader import Team
from llm_sra.playing import EpisodeSpec, play
from llm_sra.task import Episode, Outcome, Task
from tasks.worksheet import Worksheet


@pytest.fixture
def engine() -> TransformersEngine:
    return make_engine(qwen2_folder(), ["first", "second"])


def team() -> Team:
    """Two agents of one base."""
    seats = ("first", "second")
    return Team("training", "", dict(zip(seats, seats, strict=True)), dict.fromkeys(seats, "main"))


def test_development_gives_solve_rates_by_partner_and_seat(engine: TransformersEngine, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("diligent", "lazy"))
    numbers = DevEvaluation(Worksheet(), team(), {"main": engine}, path, problems=3, seed=0, max_reply_tokens=4)()
    assert numbers == {
        "self_play": 0,
        "effort/first": 3,
        "effort/second": 3,
        "diligent/first": 1,
        "diligent/second": 1,
        "lazy/first": 0,
        "lazy/second": 0,
        "mean_partner": 0.5,
        "worst_partner": 0,
    }


class Half(Worksheet):
    """Compares agents by half of what they solve."""

    headline = "half"

    def outcome(self, state: Any) -> Outcome:
        outcome = super().outcome(state)
        return replace(outcome, metrics={"half": outcome.solved / 2})


def test_development_gives_a_tasks_own_headline(engine: TransformersEngine, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("diligent", "lazy"))
    numbers = DevEvaluation(Half(), team(), {"main": engine}, path, problems=3, seed=0, max_reply_tokens=4)()
    assert (numbers["diligent/first"], numbers["mean_partner"], numbers["self_play"]) == (0.5, 0.25, 0)


def test_development_plays_the_weights_as_they_are_now(
    engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[list[str]] = []
    seen: set[str] = set()

    def noted(task: Task, specs: Sequence[EpisodeSpec], *args: Any, **kwargs: Any) -> list[Episode]:
        episodes = play(task, specs, *args, **kwargs)
        texts.append([turn.reply.text for episode in episodes for turn in episode.turns])
        seen.update(episode.problem.id for episode in episodes)
        return episodes

    monkeypatch.setattr(llm_sra.evaluation.play_missing, "play", noted)
    dev = DevEvaluation(Worksheet(), team(), {"main": engine}, roster(tmp_path), problems=2, seed=0, max_reply_tokens=4)
    dev()
    dev()
    scramble(engine.bank, "first", seed=9)
    dev()
    assert texts[0] == texts[1] != texts[2]
    assert seen <= {problem.id for problem in Worksheet().problems("dev")}
