"""Advantage alignment: by hand. No model is run here."""

import pytest
import torch
from test_crediting import arm_of, close, credited, played

from llm_sra.objectives import discounted_to_go
from llm_sra.objectives.alignment import alignment_term


def test_the_others_advantage_counts_by_ones_own_past() -> None:
    own, others = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([3.0, 4.0, -1.0])
    # γ = 0.5. Past: 0; 0.5 * 1 = 0.5; 0.5 * (0.5 - 2) = -0.75. β γ = 1: past * B = 0; 2; 0.75.
    assert close(alignment_term(own, others, 2.0, 0.5), [0.0, 2.0, 0.75])
    assert close(alignment_term(own, others, 0.0, 0.5), [0.0, 0.0, 0.0])


def test_returns_to_go_are_discounted_by_turns() -> None:
    assert close(discounted_to_go(torch.tensor([1.0, 2.0, 4.0]), 0.5), [3.0, 4.0, 4.0])  # 1 + 0.5 * (2 + 0.5 * 4)


# Steps: first, second, first, second. Own rewards of the first and second seat by step; only in the first of three
# episodes is anybody paid.
THREE = [[(1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 1.0)], [(0.0, 0.0)] * 4, [(0.0, 0.0)] * 4]


def test_a_turn_is_credited_with_what_it_brought_the_other_after_a_good_start() -> None:
    found = credited(played(arm_of("ippo"), THREE), "turn", algorithm="adalign", gamma=1.0, alignment_coef=2.0)
    # First seat, to go: 1, 0 against 0, 0: advantages (2/3, 0), (-1/3, 0), (-1/3, 0). The other gets 1 after both its
    # turns: 2/3, -1/3, -1/3. Terms of turn 2: 2 * (2/3)² = 8/9, 2 * (1/3)² = 2/9, 2/9; their mean is 4/9.
    assert found[0, "first"] == pytest.approx([2 / 3, 2 / 3, 4 / 9, 4 / 9], abs=1e-5)
    assert found[1, "first"] == pytest.approx([-1 / 3, -1 / 3, -2 / 9, -2 / 9], abs=1e-5)
    # Second seat: 1, 1 against 0 at both turns; the first seat's 1 came before its first turn: nothing to align.
    assert found[0, "second"] == pytest.approx([2 / 3] * 4, abs=1e-5)


def test_with_nothing_to_align_it_is_grpo_by_turns() -> None:
    aligned = credited(played(arm_of("ippo"), THREE), "turn", algorithm="adalign", gamma=1.0, alignment_coef=0.0)
    assert aligned == credited(played(arm_of("ippo"), THREE), "turn")


@pytest.mark.parametrize("seat", ["first", "second"])
def test_a_turn_that_no_other_episode_reached_gets_nothing(seat: str) -> None:
    found = credited(played(arm_of("ippo"), [THREE[0], THREE[1][:2]]), "turn", algorithm="adalign")
    assert found[0, seat][2:] == [0.0, 0.0]
