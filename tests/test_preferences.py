"""Hidden preferences: what they earn, by hand; which metrics there are; and that nothing but the credit knows them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Toy
from test_crediting import SEATS, played
from training_support import Letters, make_trainer, score, train_tiny, weights

from llm_sra.errors import UnknownNameError
from llm_sra.objectives import Tether
from llm_sra.registry import load_task
from llm_sra.runs import Run, read_metrics
from llm_sra.task import Outcome, Reward, Sampling
from llm_sra.trainer.arms import build_arm
from llm_sra.trainer.player_episodes import player_episodes, player_returns
from llm_sra.trainer.preferences import check_preferences, own_metrics, read_preferences, with_preferences
from llm_sra.trainer.rollout import Rollout

IPPO = build_arm("ippo", SEATS, "seat", 1.0, Sampling())


def said(rollout: Rollout, *texts: str, **outcome: Any) -> Rollout:
    """The rollout with other texts in its only episode, and another outcome."""
    [episode] = rollout.episodes
    turns = tuple(replace(t, reply=replace(t.reply, text=text)) for t, text in zip(episode.turns, texts, strict=True))
    return replace(rollout, episodes=[replace(episode, turns=turns, outcome=Outcome(True, **outcome))])


def test_a_preference_is_paid_with_the_last_reward_of_each_seat_by_hand() -> None:
    rollout = played(IPPO, [[(1.0, 0.0), (0.0, 0.5), (0.0, 0.0)]])
    rollout = said(
        rollout, "one two", "three", " four  five six ", effort={"first": 3.0, "second": 1.0},
        metrics={"wrong/first": 2.0, "wrong/second": 0.0, "wrong": 9.0},
    )  # fmt: skip
    preferred = with_preferences(rollout, {"effort": -0.5, "words": 0.1, "wrong": 1.0, "missing": 7.0})
    # first: -0.5 * 3 + 0.1 * 5 + 1 * 2 = 1.0; second: -0.5 * 1 + 0.1 * 1 + 0 = -0.4
    [episode] = preferred.episodes
    assert episode.rewards["first"] == (Reward(own=1.0), Reward(), Reward(own=pytest.approx(1.0)))
    assert [reward.total for reward in episode.rewards["second"]] == pytest.approx([0.0, 0.5, -0.4])
    first, second = player_episodes(preferred)
    assert first.rewards.tolist() == pytest.approx([1.0, 1.0])  # its turns are at steps 0 and 2
    assert second.rewards.tolist() == pytest.approx([0.1])  # one turn, at step 1: 0.5 - 0.4
    returns = player_returns([first, second], Tether(1.0))
    assert returns["live", "first"].tolist() == pytest.approx([2.0])
    # The episode as it was played, and all that is logged of it, stays.
    assert rollout.episodes[0].total("first") == 1.0 and preferred.samples is rollout.samples
    assert preferred.notes is rollout.notes and preferred.dead_groups is rollout.dead_groups


def test_without_preferences_the_rollout_is_itself_and_a_weight_of_nought_changes_nothing() -> None:
    rollout = said(played(IPPO, [[(1.0, 0.3)]]), "word", effort={"first": 2.0})
    assert with_preferences(rollout, None) is rollout and with_preferences(rollout, {}) is rollout
    assert with_preferences(rollout, {"effort": 0.0}).episodes == rollout.episodes


def test_an_adversary_works_against_the_heros_preference_too() -> None:
    arm = build_arm("srpo", SEATS, "seat", 1.0, Sampling())
    rollout = said(played(arm, [[(1.0, 0.0), (0.0, 0.0)]]), "a", "b", effort={"first": 2.0, "second": 5.0})
    hero, adversary = player_episodes(with_preferences(rollout, {"effort": 0.5}))
    assert hero.total.item() == 2.0 and adversary.total.item() == -2.0


def test_metrics_are_those_that_every_seat_has_of_its_own() -> None:
    assert own_metrics(load_task("effort")) == ("effort", "words", "illegal")
    assert own_metrics(load_task("worksheet")) == ("effort", "words", "contribution", "right_lines", "wrong_lines")
    kitchen = own_metrics(load_task("kitchen"))
    assert {"moves", "pickups", "collisions"} <= set(kitchen)
    assert "moves_per_delivery" not in kitchen  # not all episodes have it


def test_an_unknown_metric_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown metric of a seat 'efort'; did you mean 'effort'\? There are"):
        check_preferences(Toy(), {"efort": 1.0})
    with pytest.raises(UnknownNameError, match="There are: effort, words"):
        train_tiny(tmp_path / "run", preferences={"lines": 1.0})
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[1]", "preferences must be a JSON object"),
        ({"effort": "much"}, r"preferences\['effort'\] must be a number, got 'much'"),
        ({"effort": float("nan")}, r"preferences\['effort'\] must be a number, got nan"),
        ({"effort": float("inf")}, r"preferences\['effort'\] must be finite, got inf"),
        ('{"effort": true}', r"preferences\['effort'\] must be a number"),
    ],
)
def test_what_is_no_mapping_of_metrics_to_numbers_is_an_error(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_preferences(given)
    assert read_preferences('{"effort": -1}') == {"effort": -1.0} and read_preferences(None) is None


def test_a_training_is_credited_by_it_and_logs_the_tasks_returns(tmp_path: Path) -> None:
    options = {"arm": "ippo", "problems_per_step": 4, "advantage_baseline": "mean"}
    trainer = make_trainer(tmp_path, Letters(), preferences={"words": 100.0}, **options)
    rollout = trainer._play()
    before = [episode.total(seat) for episode in rollout.episodes for seat in episode.rewards]
    score(trainer, rollout)
    trainer._credit(rollout)
    words = {
        seat: torch.tensor(
            [float(sum(len(t.reply.text.split()) for t in e.turns_of(seat))) for e in rollout.episodes]
        ).view(-1, 3)
        for seat in trainer.task.seats
    }
    returns = {seat: torch.tensor([e.total(seat) for e in rollout.episodes]).view(-1, 3) for seat in words}
    for sample in rollout.samples:
        group, place = divmod(sample.row.episode, 3)
        credited = returns[sample.row.seat] + 100 * words[sample.row.seat]
        expected = (credited[group, place] - credited[group].mean()).item()
        own = torch.tensor(sample.row.own).bool()
        assert sample.advantages[own].tolist() == pytest.approx([expected] * int(own.sum()), abs=1e-3)
    assert any(sample.advantages.abs().max() > 10 for sample in rollout.samples)  # the tasks' returns are near 1
    assert [episode.total(seat) for episode in rollout.episodes for seat in episode.rewards] == before
    assert set(rollout.dead_groups) == set(trainer.arm.adapters)


def test_a_run_with_a_weight_of_nought_is_the_run_without(tmp_path: Path) -> None:
    def lines(run: Run) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in line.items() if not name.startswith(("time", "train_", "total_"))}
            for line in read_metrics(run.path / "metrics.jsonl")
        ]

    plain = train_tiny(tmp_path / "plain", arm="ippo")
    nought = train_tiny(tmp_path / "nought", arm="ippo", preferences={"words": 0.0})
    other = train_tiny(tmp_path / "other", arm="ippo", preferences={"words": -1.0})
    first, same, differs = (weights(run.path / "adapters")["left"] for run in (plain, nought, other))
    assert all(torch.equal(first[key], same[key]) for key in first) and lines(plain) == lines(nought)
    assert any(not torch.equal(first[key], differs[key]) for key in first)
    assert other.config["preferences"] == {"words": -1.0}
