"""A maximum entropy population: its matches, what its tokens earn, and its training on a tiny random model."""

import math
from pathlib import Path

import pytest
import torch
from test_crediting import played
from training_support import Letters, make_trainer, score, train_tiny

from llm_sra.objectives import Tether
from llm_sra.objectives.population import surprise
from llm_sra.task import Sampling
from llm_sra.trainer.arms import build_arm
from llm_sra.trainer.player_episodes import player_episodes, player_returns

SEATS = ("first", "second")


def test_a_token_is_surprising_by_its_mean_probability_under_the_population() -> None:
    probabilities = torch.tensor([[0.5, 0.1], [0.25, 0.9]])  # of two tokens under two policies
    expected = [-math.log(0.375), -math.log(0.5)]
    assert surprise(probabilities.log()).tolist() == pytest.approx(expected)
    assert surprise(probabilities[:1].log()).tolist() == pytest.approx([math.log(2), math.log(10)])  # one: its own


def test_each_team_plays_by_itself_and_all_share_the_problems() -> None:
    arm = build_arm("mep", SEATS, "seat", 1.0, Sampling(), population=3)
    assert arm.adapters == ("first", "second", "first-2", "second-2", "first-3", "second-3")
    assert arm.heroes == {"first": "first", "second": "second"} and not arm.adversaries
    assert [match_set.share for match_set in arm.match_sets] == pytest.approx([1 / 3] * 3)
    teams = [{seat: player.adapter for seat, player in training.players.items()} for training in arm.matches]
    assert teams == [dict(arm.heroes), *arm.members] and [t.match.name for t in arm.matches] == [
        "live", "live-2", "live-3",
    ]  # fmt: skip
    assert arm.peers["second-2"] == ("second", "second-2", "second-3")
    shared = build_arm("mep", SEATS, "shared", 1.0, Sampling(), population=2)
    assert shared.adapters == ("hero", "hero-2") and shared.peers["hero"] == ("hero", "hero-2")
    assert build_arm("ippo", SEATS, "seat", 1.0, Sampling()).peers == {}


def test_what_tokens_earn_by_themselves_belongs_to_their_turn_and_to_the_return() -> None:
    arm = build_arm("mep", SEATS, "seat", 1.0, Sampling(), population=2)
    rollout = played(arm, [[(1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 1.0)]])
    for sample in rollout.samples:
        if sample.row.seat == "first":  # tokens: two said, one between, two said
            sample.bonus = torch.tensor([0.1, 0.2, 0.0, 0.3, 0.4][: len(sample.row.turns)])
    first, second = player_episodes(rollout)
    assert first.rewards.tolist() == pytest.approx([1.3, 0.7]) and second.rewards.tolist() == [0.0, 1.0]
    returns = player_returns([first, second], Tether(1.0))
    assert returns["live", "first"].tolist() == pytest.approx([2.0]) and returns["live", "second"].tolist() == [1.0]


def test_tokens_earn_the_coefficient_times_their_surprise(tmp_path: Path) -> None:
    options = {"arm": "mep", "population": 2, "population_entropy_coef": 0.5, "problems_per_step": 4}
    trainer = make_trainer(tmp_path, Letters(), **options)
    rollout = trainer._play()
    score(trainer, rollout)
    assert {episode.match for episode in rollout.episodes} == {"live", "live-2"}
    for sample in rollout.samples:
        seat = sample.row.seat
        both = [trainer.scorer.logprobs([sample], name)[0, : len(sample.row.turns)] for name in (seat, f"{seat}-2")]
        expected = -0.5 * ((both[0].exp() + both[1].exp()) / 2).log()
        said = torch.tensor(sample.row.turns) >= 0
        assert sample.bonus is not None and torch.allclose(sample.bonus[said], expected[said], atol=1e-4)
        assert not sample.bonus[~said].any()


def test_all_teams_of_a_population_are_trained_and_saved(tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", arm="mep", population=2, population_entropy_coef=0.1)
    assert {path.name for path in run.adapters.iterdir() if path.is_dir()} == {"left", "right", "left-2", "right-2"}
    assert set(run.heroes.values()) == {"left", "right"}
