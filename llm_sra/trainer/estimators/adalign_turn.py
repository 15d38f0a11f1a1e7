"""Advantage alignment by turns (AdAlign, see `objectives.alignment`), with GRPO's baseline by turns.

A player's advantage at a turn is its discounted return from that turn on, minus the baseline of the same turn in the
group's episodes. What the turn brought the others is their return from the turn's step on, credited alike: where seats
move at once that is their own advantage; where they alternate, it is what followed from the turn.

Where this differs: the first paper has a critic and generalised advantages; the second's baseline is leave-one-out,
which is `advantage_baseline: leave_one_out`. Its variant that plays alternative actions at every step is not here, nor
are its options (sign, clipping, whitening), nor the weight γ^t of later steps. One option of its code is always on: the
alignment term is centred over the same turn of the group. Its mean is above 0 where both are paid alike, and would only
be noise. Uncertain: whether its β is as here.
"""

from collections.abc import Sequence

import torch

from llm_sra.objectives import discounted_to_go, turn_rewards
from llm_sra.objectives.alignment import alignment_term
from llm_sra.trainer.estimators.base import EstimatorInputs, estimator
from llm_sra.trainer.estimators.grpo_turn import turn_advantages
from llm_sra.trainer.player_episodes import PlayerEpisode


@estimator(
    "adalign",
    "turn",
    "advantage alignment, by turns",
    takes=("advantage_baseline", "alignment_coef"),
    default=True,
)
def adalign_turn(inputs: EstimatorInputs) -> None:
    """Fill in advantages. A turn that no other episode of its group reached has no baseline, and gets 0."""
    inputs.grouped_returns()  # for its note of groups without variance
    options = inputs.options
    for group in inputs.groups():
        own = [discounted_to_go(played.rewards, options.gamma) for played in group]
        others = [discounted_to_go(_of_others(inputs, played), options.gamma) for played in group]
        ours = turn_advantages(own, options.advantage_baseline)
        theirs = turn_advantages(others, options.advantage_baseline)
        terms = [alignment_term(a, b, options.alignment_coef, options.gamma) for a, b in zip(ours, theirs, strict=True)]
        for played, a, term in zip(group, ours, turn_advantages(terms, "mean"), strict=True):
            played.set_turn_advantages(a + term)


def _of_others(inputs: EstimatorInputs, played: PlayerEpisode) -> torch.Tensor:
    """(K,), what each of a player's turns brought all other seats, up to its next turn."""
    episode = inputs.rollout.episodes[played.episode]
    steps = [turn.step for turn in episode.turns_of(played.seat)]
    found: Sequence[torch.Tensor] = [
        turn_rewards([reward.total for reward in rewards], steps)
        for seat, rewards in episode.rewards.items()
        if seat != played.seat
    ]
    return torch.stack(list(found)).sum(dim=0)
