"""Causal influence as credit: by hand, and through a trainer on a tiny random model."""

import math
from pathlib import Path

import pytest
import torch
from test_crediting import arm_of, played
from training_support import Letters, make_trainer, roll

from llm_sra.errors import UserError
from llm_sra.objectives.influence import shared_influence, standardised
from llm_sra.task import Message
from llm_sra.trainer.influence import add_influence, answered_turns, without
from llm_sra.trainer.player_episodes import player_episodes


def test_turns_that_are_alike_share_the_mean_of_their_influence() -> None:
    assert shared_influence(["a", "b", "a", "a"], [1.0, 5.0, 3.0, -1.0]) == [1.0, 5.0, 1.0, 1.0]


def test_influence_is_credited_in_standard_deviations_from_the_policys_mean() -> None:
    everyone = [0.0, 2.0, 0.0, 2.0]  # mean 1, deviation 1
    assert standardised([2.0, 0.0, 1.0], everyone) == pytest.approx([1.0, -1.0, 0.0], abs=1e-3)


def test_a_view_without_a_reply_lacks_its_last_place_in_what_the_seat_was_shown() -> None:
    view = (Message("user", "sum 1+2\n1+2=3"), Message("assistant", "1+2=3"), Message("user", "again 1+2=3 !"))
    assert without(view, "1+2=3\n") == (*view[:2], Message("user", "again  !"))
    assert without(view[:2], "1+2=3") == (Message("user", "sum 1+2\n"), view[1])
    assert without(view, "pass") is None and without(view, " ") is None


# Steps: first, second, first, second; nobody is paid.
NOTHING = [[(0.0, 0.0)] * 4] * 2


def test_every_turn_gets_its_own_influence_on_top_of_what_it_has() -> None:
    rollout = played(arm_of("ippo"), NOTHING)
    for sample in rollout.samples:
        sample.advantages = torch.where(torch.tensor(sample.row.turns) >= 0, 0.5, 0.0)
    # Of the first seat: a said "x" twice, 1 and 3 nats, so 2 each; "y" 5 and "z" -1. Mean 2, deviation √(18 / 4).
    said = {(0, 0): ("x", 1.0), (0, 1): ("y", 5.0), (1, 0): (" x ", 3.0), (1, 1): ("z", -1.0)}
    rollout.influence = {(episode, "first", number): value for (episode, number), value in said.items()}
    add_influence(rollout, player_episodes(rollout), 0.1)
    far = 0.1 * 3 / math.sqrt(4.5)
    expected = {0: [0.5, 0.5, 0.5 + far, 0.5 + far], 1: [0.5, 0.5, 0.5 - far, 0.5 - far]}
    for sample in rollout.samples:
        own = sample.advantages[torch.tensor(sample.row.turns) >= 0].tolist()
        assert own == pytest.approx(expected[sample.row.episode] if sample.row.seat == "first" else [0.5] * 4, abs=1e-4)
        assert not sample.advantages[torch.tensor(sample.row.turns) < 0].any()
    assert rollout.notes == {"policy/first/influence": pytest.approx(2.0)}


def test_a_task_that_never_shows_what_was_said_is_refused() -> None:
    rollout = played(arm_of("ippo"), NOTHING)
    with pytest.raises(UserError, match=r"influence_coef is 0\.1, but no seat saw"):
        add_influence(rollout, player_episodes(rollout), 0.1)


def test_influence_is_what_a_reply_adds_to_the_log_probability_of_the_next(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Letters(), arm="ippo", influence_coef=0.1)
    rollout = roll(trainer)
    answered = list(answered_turns(rollout, trainer.bases))
    assert answered and {(one.episode, one.seat, one.number) for one in answered} == set(rollout.influence)
    for one in answered:
        assert one.full.row.completion_ids == one.without.row.completion_ids
        assert one.full.row.prompt_ids != one.without.row.prompt_ids and one.full.row.seat != one.seat
        [full], [without_it] = ([trainer.scorer.logprobs([s], s.adapter)[0].sum()] for s in (one.full, one.without))
        text, nats = rollout.influence[one.episode, one.seat, one.number]
        assert text == one.text and nats == pytest.approx((full - without_it).item(), abs=1e-3)
        # With all that was seen it is as probable as when it was drawn.
        assert full.item() == pytest.approx(sum(one.full.row.logprobs), abs=1e-3)
