"""Advantages out of a critic's values: a seat's decisions in an episode as one chain, and GAE along it.

A decision is a token or a turn. The value of a turn is that before its first token.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate.utils import gather_object

from llm_sra.objectives import Tether, explained_variance, gae
from llm_sra.trainer.player_episodes import PlayerEpisode
from llm_sra.trainer.rollout import Rollout, Sample

Level = Literal["token", "turn"]


@dataclass(frozen=True)
class Decision:
    """A token or a turn.

    Attributes:
        sample: The row that it is in.
        at: Its first token, before which it is valued.
        tokens: All its tokens.
    """

    sample: Sample
    at: int
    tokens: list[int]


@dataclass(frozen=True)
class Chain:
    """A player's N decisions in an episode, one after the other.

    Attributes:
        decisions: N of them.
        rewards: (N,), what each brought, in units of the reward.
        values: (N,), the critic's value before each.
    """

    decisions: list[Decision]
    rewards: torch.Tensor
    values: torch.Tensor


def credit_with_critic(
    rollout: Rollout,
    episodes: Sequence[PlayerEpisode],
    tether: Tether,
    level: Level,
    gamma: float,
    gae_lambda: float,
    whitened: bool = False,
) -> None:
    """Generalised advantage estimation over all that a seat said in an episode; all processes must call this.

    Args:
        rollout: Its samples' advantages and targets are filled in.
        episodes: Every player of every episode; their samples have `values`.
        tether: A cost in the reward falls on the token, or turn, that caused it.
        level: What a decision is.
        gamma: Discount from one decision to the next.
        gae_lambda: See `gae`.
        whitened: See `whiten`.
    """
    chains = [_chain(played, tether, level) for played in episodes]
    width = max((len(chain.rewards) for chain in chains), default=0)
    if width:

        def padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.stack([torch.nn.functional.pad(tensor, (0, width - len(tensor))) for tensor in tensors])

        rewards, values = padded([chain.rewards for chain in chains]), padded([chain.values for chain in chains])
        advantages = gae(rewards, values, gamma, gae_lambda)
        for chain, advantage, target in zip(chains, advantages, advantages + values, strict=True):
            for number, decision in enumerate(chain.decisions):
                decision.sample.advantages[decision.tokens] = advantage[number]
                assert decision.sample.targets is not None
                decision.sample.targets[decision.at] = target[number]
        _note_explained_variance(rollout)
    if whitened:
        whiten(rollout)


def whiten(rollout: Rollout) -> None:
    """Centre each policy's advantages over its own tokens and divide by their standard deviation.

    Over all processes, which all must call this. It changes the game: ε and the tether are then in units of that
    deviation.
    """
    own = {
        adapter: torch.cat([sample.advantages[torch.tensor(sample.row.own).bool()] for sample in samples])
        for adapter, samples in _by_adapter(rollout).items()
    }
    everyone = gather_object([own])
    for adapter, samples in _by_adapter(rollout).items():
        values = torch.cat([one[adapter] for one in everyone if adapter in one])
        for sample in samples:
            said = torch.tensor(sample.row.turns) >= 0
            centred = (sample.advantages - values.mean()) / (values.std(correction=0) + 1e-4)
            sample.advantages = torch.where(said, centred, 0.0)


def _chain(played: PlayerEpisode, tether: Tether, level: Level) -> Chain:
    decisions: list[Decision] = []
    rewards: list[float] = []
    turn_rewards = played.rewards
    if played.tethered:
        turn_rewards = turn_rewards - tether.reward_cost(played.other_seats_nats)
    brought = _carried_back(played, turn_rewards)
    for sample in played.samples:
        size = len(sample.row.completion_ids)
        sample.advantages, sample.targets = torch.zeros(size), torch.full((size,), float("nan"))
        last = -1
        for at, turn in enumerate(sample.row.turns):
            if turn < 0:
                continue
            if level == "token" or turn != last:
                decisions.append(Decision(sample, at, []))
                rewards.append(0.0)
            decisions[-1].tokens.append(at)
            if played.tethered and sample.nats is not None:
                rewards[-1] -= tether.reward_cost(sample.nats[at].item())
            if at + 1 == size or sample.row.turns[at + 1] != turn:  # the turn ends here
                rewards[-1] += brought[turn]
            last = turn
    values = [one.sample.values[one.at].item() for one in decisions if one.sample.values is not None]
    return Chain(decisions, torch.tensor(rewards), torch.tensor(values))


def _carried_back(played: PlayerEpisode, rewards: torch.Tensor) -> list[float]:
    """What each turn brought; a turn in which nothing could be said gives its reward to the turn before it."""
    said = {turn for sample in played.samples for turn in sample.row.turns}
    brought: list[float] = rewards.tolist()
    for turn in range(len(brought) - 1, 0, -1):
        if turn not in said:
            brought[turn - 1] += brought[turn]
    return brought


def _by_adapter(rollout: Rollout) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = defaultdict(list)
    for sample in rollout.samples:
        samples[sample.adapter].append(sample)
    return samples


def _note_explained_variance(rollout: Rollout) -> None:
    """How well the critics predicted the returns of the step, over all processes."""
    mine = {}
    for adapter, samples in _by_adapter(rollout).items():
        targets = torch.cat([sample.targets for sample in samples if sample.targets is not None])
        values = torch.cat([sample.values for sample in samples if sample.values is not None])
        mine[adapter] = values[~targets.isnan()], targets[~targets.isnan()]
    everyone = gather_object([mine])
    for adapter in {adapter for one in everyone for adapter in one}:
        values, targets = (torch.cat([one[adapter][i] for one in everyone if adapter in one]) for i in (0, 1))
        rollout.notes[f"policy/{adapter}/explained_variance"] = explained_variance(values, targets)
