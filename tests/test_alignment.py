"""Advantage alignment: by hand. No model is run here."""

import pytest
import torch
from test_crediting import arm_of, close, credited, played

from llm_sra.objectives import discounted_to_go
from llm_sra.objectives.alignment import aligned_advantages


def test_the_others_advantage_counts_by_ones_own_past() -> None:
    own, others = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, 4.0, -1.0])
    # γ = 0.5. Past: 0; 0.5 * 1 = 0.5; 0.5 * (0.5 - 2) = -0.75. β γ = 1: A + past * B = 1; -2 + 2; 0.5 + 0.75.
    assert close(aligned_advantages(own, others, 2.0, 0.5), [1.0, 0.0, 1.25])
    assert close(aligned_advantages(own, others, 0.0, 0.5), own.tolist())


def test_returns_to_go_are_discounted_by_turns() -> None:
    assert close(discounted_to_go(torch.tensor([1.0, 2.0, 4.0]), 0.5), [3.0, 4.0, 4.0])  # 1 + 0.5 * (2 + 0.5 * 4)


# Steps: first, second, first, second. Own rewards of the first and second seat by step, in two episodes.
TWO = [[(1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 1.0)], [(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]]


def test_a_turn_is_credited_with_what_it_brought_the_other_after_a_good_start() -> None:
    found = credited(played(arm_of("ippo"), TWO), "turn", algorithm="adalign", gamma=1.0, alignment_coef=2.0)
    # First seat, to go: 1, 0 against 0, 0: advantages ±0.5, 0. The other gets 1 after both of its turns: ±0.5 each.
    # At turn 2: 0 + 2 * (±0.5) * (±0.5) = 0.5 in both episodes.
    assert found[0, "first"] == [0.5, 0.5, 0.5, 0.5] and found[1, "first"] == [-0.5, -0.5, 0.5, 0.5]
    # Second seat: 1, 1 against 0: ±0.5 at both turns; the first seat's 1 came before its first turn: nothing to align.
    assert found[0, "second"] == [0.5] * 4 and found[1, "second"] == [-0.5] * 4


def test_with_nothing_to_align_it_is_grpo_by_turns() -> None:
    aligned = credited(played(arm_of("ippo"), TWO), "turn", algorithm="adalign", gamma=1.0, alignment_coef=0.0)
    assert aligned == credited(played(arm_of("ippo"), TWO), "turn")


@pytest.mark.parametrize("seat", ["first", "second"])
def test_a_turn_that_no_other_episode_reached_gets_nothing(seat: str) -> None:
    found = credited(played(arm_of("ippo"), [TWO[0], TWO[1][:2]]), "turn", algorithm="adalign")
    assert found[0, seat][2:] == [0.0, 0.0]
