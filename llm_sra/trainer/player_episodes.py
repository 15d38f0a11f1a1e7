"""What each player did in each episode of a rollout, and what it got for it.

Joins the rules of `objectives` to the rollout's records. No model is run here, and no advantage is computed.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from llm_sra.objectives import Tether, turn_rewards
from llm_sra.trainer.arms import Player
from llm_sra.trainer.rollout import Rollout, Sample

Key = tuple[str, str]  # match and seat


@dataclass(frozen=True)
class PlayerEpisode:
    """What one player did in one episode.

    Attributes:
        episode: Position in the rollout.
        match: Name of the match.
        seat: The player's seat.
        player: What it is trained for.
        samples: Its rows, in the order in which they were said.
        rewards: (K,), what each of its K turns brought the player without the tether, in units of the reward; bonuses
            of what it said are in it.
        total: The player's return without the tether; it includes rewards before its first turn.
        nats: (K,), Σ (log adversary - log partner) over the tokens of each turn; zeros for a hero.
        other_seats_nats: (K,), the same over what its policy said in other seats between this turn and the next.
        total_nats: Over all that its policy said in the episode, in every seat.
    """

    episode: int
    match: str
    seat: str
    player: Player
    samples: tuple[Sample, ...]
    rewards: torch.Tensor
    total: torch.Tensor
    nats: torch.Tensor
    other_seats_nats: torch.Tensor
    total_nats: torch.Tensor

    @property
    def key(self) -> Key:
        """Match and seat."""
        return self.match, self.seat

    @property
    def tethered(self) -> bool:
        """Whether the player is an adversary."""
        return self.player.tether is not None

    def tethered_rewards(self, tether: Tether) -> torch.Tensor:
        """(K,) rewards of its turns minus the tether's cost of each, in units of the reward."""
        return self.rewards - tether.reward_cost(self.nats + self.other_seats_nats) if self.tethered else self.rewards

    def set_turn_advantages(self, advantages: torch.Tensor) -> None:
        """Give every token the advantage of its turn; `advantages` is (K,)."""
        for sample in self.samples:
            turns = torch.tensor(sample.row.turns)
            sample.advantages = torch.where(turns >= 0, advantages[turns.clamp(min=0)], 0.0)


def player_episodes(rollout: Rollout) -> list[PlayerEpisode]:
    """Every player of every episode, episode after episode."""
    samples: dict[tuple[int, str], list[Sample]] = defaultdict(list)
    for sample in rollout.samples:
        samples[sample.row.episode, sample.row.seat].append(sample)
    found = []
    for position, (episode, training) in enumerate(zip(rollout.episodes, rollout.matches, strict=True)):
        steps = {seat: [turn.step for turn in episode.turns_of(seat)] for seat in training.players}
        nats = {
            seat: _by_turn(samples[position, seat], len(steps[seat]), lambda sample: sample.nats)
            for seat in training.players
        }
        for seat, player in training.players.items():
            sign = 1.0 if player.tether is None else -1.0
            earned = [sign * reward.total for reward in episode.rewards[player.hero]]
            bonus = _by_turn(samples[position, seat], len(steps[seat]), lambda sample: sample.bonus)
            elsewhere = [0.0] * len(earned)
            for other, also in training.players.items():
                if other != seat and also.adapter == player.adapter:
                    for step, value in zip(steps[other], nats[other].tolist(), strict=True):
                        elsewhere[step] += value
            found.append(
                PlayerEpisode(
                    episode=position,
                    match=episode.match,
                    seat=seat,
                    player=player,
                    samples=tuple(samples[position, seat]),
                    rewards=turn_rewards(earned, steps[seat]) + bonus,
                    total=torch.tensor(sign * episode.total(player.hero)) + bonus.sum(),
                    nats=nats[seat],
                    other_seats_nats=turn_rewards(elsewhere, steps[seat]),
                    total_nats=nats[seat].sum() + sum(elsewhere),
                )
            )
    return found


def _by_turn(samples: Sequence[Sample], turns: int, values_of: Callable[[Sample], torch.Tensor | None]) -> torch.Tensor:
    """(K,) sums over each of a seat's turns of what its samples have for each token."""
    sums = torch.zeros(turns)
    for sample in samples:
        values = values_of(sample)
        if values is not None:
            numbers = torch.tensor(sample.row.turns)
            said = numbers >= 0
            sums.index_add_(0, numbers[said], values[said])
    return sums


def player_returns(episodes: Sequence[PlayerEpisode], tether: Tether) -> dict[Key, torch.Tensor]:
    """Each player's returns: R_i for a hero; -R_i minus the tether's cost for its adversary.

    Returns:
        By (match, seat), returns of its episodes in their order, in units of the reward.
    """
    returns: dict[Key, list[torch.Tensor]] = defaultdict(list)
    for played in episodes:
        value = played.total
        if played.tethered:
            value = tether.adversary_return(-played.total, played.total_nats)
        returns[played.key].append(value)
    return {key: torch.stack(values) for key, values in returns.items()}


def returns_by_adapter(
    episodes: Sequence[PlayerEpisode], returns: Mapping[Key, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Returns of each adapter's players, in one tensor."""
    adapters = {played.key: played.player.adapter for played in episodes}
    merged: dict[str, list[torch.Tensor]] = {}
    for key, values in returns.items():
        merged.setdefault(adapters[key], []).append(values)
    return {adapter: torch.cat(values) for adapter, values in merged.items()}
