"""What a rollout's rows are worth to the policies that said them: returns, risk over partners, advantages.

Joins the rules of `credit` and `risk` to the rollout's records. No model is run here.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import gather_object

from llm_sra.objectives import (
    explained_variance,
    gae,
    group_advantages,
    groups_without_variance,
    returns_to_go,
    tethered_return,
    turn_rewards,
)
from llm_sra.objectives.group import Baseline, Scale
from llm_sra.objectives.risk import Risk, SmoothedWeights
from llm_sra.trainer.arms import Arm, Player
from llm_sra.trainer.rollout import Rollout, Sample

Key = tuple[str, str]  # match and seat
MeasureOf = Callable[[torch.Tensor], Risk]


@dataclass(frozen=True)
class Part:
    """What one player did in one episode.

    Attributes:
        episode: Position in the rollout.
        match: Name of the match.
        seat: Where it sat.
        player: What it is trained for.
        samples: Its rows, in the order in which they were said.
        rewards: (K,), what each of its K turns brought the player, the tether apart, in units of the reward.
        total: The player's return, the tether apart: rewards before its first turn are in it.
        nats: (K,), Σ (log adversary - log partner) over the tokens of each turn; zeros for a hero.
        nats_elsewhere: (K,), the same of what its policy said in other seats, from each turn's step up to the next's.
        all_nats: Of all that its policy said in the episode, in whatever seat.
    """

    episode: int
    match: str
    seat: str
    player: Player
    samples: tuple[Sample, ...]
    rewards: torch.Tensor
    total: torch.Tensor
    nats: torch.Tensor
    nats_elsewhere: torch.Tensor
    all_nats: torch.Tensor

    @property
    def key(self) -> Key:
        """Match and seat."""
        return self.match, self.seat


def parts_of(rollout: Rollout) -> list[Part]:
    """Every player's part in every episode, episode after episode."""
    samples: dict[tuple[int, str], list[Sample]] = defaultdict(list)
    for sample in rollout.samples:
        samples[sample.row.episode, sample.row.seat].append(sample)
    parts = []
    for position, (episode, training) in enumerate(zip(rollout.episodes, rollout.matches, strict=True)):
        steps = {seat: [turn.step for turn in episode.turns_of(seat)] for seat in training.players}
        nats = {seat: _nats(samples[position, seat], len(steps[seat])) for seat in training.players}
        for seat, player in training.players.items():
            sign = 1.0 if player.tether is None else -1.0
            earned = [sign * reward.total for reward in episode.rewards[player.hero]]
            elsewhere = [0.0] * len(earned)
            for other, also in training.players.items():
                if other != seat and also.adapter == player.adapter:
                    for step, value in zip(steps[other], nats[other].tolist(), strict=True):
                        elsewhere[step] += value
            parts.append(
                Part(
                    episode=position,
                    match=episode.match,
                    seat=seat,
                    player=player,
                    samples=tuple(samples[position, seat]),
                    rewards=turn_rewards(earned, steps[seat]),
                    total=torch.tensor(sign * episode.total(player.hero)),
                    nats=nats[seat],
                    nats_elsewhere=turn_rewards(elsewhere, steps[seat]),
                    all_nats=nats[seat].sum() + sum(elsewhere),
                )
            )
    return parts


def _nats(samples: Sequence[Sample], turns: int) -> torch.Tensor:
    """(K,) divergence of a seat's turns."""
    nats = torch.zeros(turns)
    for sample in samples:
        if sample.nats is not None:
            numbers = torch.tensor(sample.row.turns)
            said = numbers >= 0
            nats.index_add_(0, numbers[said], sample.nats[said])
    return nats


def player_returns(parts: Sequence[Part], tau: float, tether_in_reward: bool) -> dict[Key, torch.Tensor]:
    """What each player got: R_i for a hero; -R_i, less the tether, for its adversary.

    Returns:
        By (match, seat), returns of its episodes in their order, in units of the reward.
    """
    returns: dict[Key, list[torch.Tensor]] = defaultdict(list)
    for part in parts:
        value = part.total
        if part.player.tether is not None:
            nats = part.all_nats if tether_in_reward else torch.zeros(())
            value = tethered_return(-part.total, nats, torch.zeros(()), tau)
        returns[part.key].append(value)
    return {key: torch.stack(values) for key, values in returns.items()}


def credit_groups(
    rollout: Rollout,
    parts: Sequence[Part],
    returns: Mapping[Key, torch.Tensor],
    sizes: Mapping[str, int],
    scale: Scale = "none",
    baseline: Baseline = "mean",
    batch_std: Mapping[str, float] | None = None,
) -> None:
    """One advantage for a whole episode: its return less the baseline of its group.

    Args:
        rollout: Its samples and dead groups are filled in.
        parts: See `parts_of`.
        returns: See `player_returns`.
        sizes: By match, how many neighbouring episodes are a group.
        scale: See `group_advantages`.
        baseline: See `group_advantages`.
        batch_std: By adapter, for scale `batch`.
    """
    adapters = {part.key: part.player.adapter for part in parts}
    grouped = {key: values.view(-1, sizes[key[0]]) for key, values in returns.items()}
    advantages = {
        key: iter(group_advantages(values, scale, (batch_std or {}).get(adapters[key]), baseline).flatten().tolist())
        for key, values in grouped.items()
    }
    _note_dead_groups(rollout, grouped, adapters)
    for part in parts:
        value = next(advantages[part.key])
        spread(part, torch.full((len(part.rewards),), value))


def credit_turns(
    rollout: Rollout,
    parts: Sequence[Part],
    returns: Mapping[Key, torch.Tensor],
    sizes: Mapping[str, int],
    tau: float,
    tether_in_reward: bool,
    baseline: Baseline = "mean",
) -> None:
    """An advantage for each turn: what it and later ones brought, less the baseline of its like in the group.

    A turn that no other episode of its group came to has nothing to be compared with, and gets none. Arguments as of
    `credit_groups` and `player_returns`.
    """
    adapters = {part.key: part.player.adapter for part in parts}
    _note_dead_groups(rollout, {key: values.view(-1, sizes[key[0]]) for key, values in returns.items()}, adapters)
    by_key: dict[Key, list[Part]] = defaultdict(list)
    for part in parts:
        by_key[part.key].append(part)
    for key, mine in by_key.items():
        for start in range(0, len(mine), sizes[key[0]]):
            group = mine[start : start + sizes[key[0]]]
            ahead = [returns_to_go(_with_tether(part, tau, tether_in_reward)) for part in group]
            advantages = [torch.zeros(len(values)) for values in ahead]
            for turn in range(max(map(len, ahead))):
                there = [i for i, values in enumerate(ahead) if turn < len(values)]
                if len(there) > 1:
                    values = torch.stack([ahead[i][turn] for i in there])
                    for i, value in zip(there, group_advantages(values[None], baseline=baseline)[0], strict=True):
                        advantages[i][turn] = value
            for part, values in zip(group, advantages, strict=True):
                spread(part, values)


def credit_with_critic(
    rollout: Rollout, parts: Sequence[Part], tau: float, tether_in_reward: bool, gamma: float, lam: float, level: str
) -> None:
    """Generalised advantage estimation over all that a seat said in an episode, from its critic's values.

    Args:
        rollout: Its samples' advantages and targets are filled in.
        parts: See `parts_of`; their samples have `values`.
        tau: Degree of risk aversion.
        tether_in_reward: Whether the tether is part of the reward: at the token, or turn, that it belongs to.
        gamma: Discount from one decision to the next.
        lam: See `gae`.
        level: What a decision is: `token`, or `turn` (its value is that before its first token).
    """
    chains = [_chain(part, tau, tether_in_reward, level) for part in parts]
    width = max((len(rewards) for _, rewards, _ in chains), default=0)
    if not width:
        return

    def padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.nn.functional.pad(tensor, (0, width - len(tensor))) for tensor in tensors])

    rewards, values = padded([rewards for _, rewards, _ in chains]), padded([values for *_, values in chains])
    advantages = gae(rewards, values, gamma, lam)
    for (places, _, _), advantage, target in zip(chains, advantages, advantages + values, strict=True):
        for number, (sample, at, span) in enumerate(places):
            sample.advantages[span] = advantage[number]
            assert sample.targets is not None
            sample.targets[at] = target[number]
    _note_explained_variance(rollout)


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


def weigh_partners(
    rollout: Rollout,
    arm: Arm,
    parts: Sequence[Part],
    returns: Mapping[Key, torch.Tensor],
    measure: MeasureOf,
    smoothed: Mapping[str, SmoothedWeights],
) -> None:
    """Multiply a hero's advantages with each sampled partner by the weight that its risk measure puts on that partner.

    Partners share a problem's episodes equally, so weights are relative to that: 1 on average. Returns are averaged
    over the step's episodes of all processes, which all must call this.

    Args:
        rollout: Its samples' advantages are weighed, and its notes filled in.
        arm: The match sets.
        parts: See `parts_of`.
        returns: See `player_returns`.
        measure: Risk of (Z,) mean returns.
        smoothed: By hero's seat, the weights so far; empty for none.
    """
    sums = gather_object([{key: (values.sum().item(), len(values)) for key, values in returns.items()}])
    factors: dict[Key, float] = {}
    for match_set in arm.match_sets:
        if not match_set.sampled:
            continue
        hero = match_set.hero
        met = [training for training in match_set.matches if any((training.match.name, hero) in one for one in sums)]
        if not met:
            continue
        means = []
        for training in met:
            pairs = [one[training.match.name, hero] for one in sums if (training.match.name, hero) in one]
            means.append(sum(total for total, _ in pairs) / sum(count for _, count in pairs))
        found = measure(torch.tensor(means, dtype=torch.float64))
        weights = smoothed[hero].update(found.weights) if hero in smoothed else found.weights
        rollout.notes[f"risk/{hero}/value"] = found.value.item()
        for training, mean, weight in zip(met, means, weights.tolist(), strict=True):
            rollout.notes[f"risk/{hero}/{training.partner}/return"] = mean
            rollout.notes[f"risk/{hero}/{training.partner}/weight"] = weight
            factors[training.match.name, hero] = weight * len(met)
    for part in parts:
        if part.key in factors:
            for sample in part.samples:
                sample.advantages *= factors[part.key]


def spread(part: Part, advantages: torch.Tensor) -> None:
    """Write (K,) advantages of turns into the tokens of these turns."""
    for sample in part.samples:
        turns = torch.tensor(sample.row.turns)
        sample.advantages = torch.where(turns >= 0, advantages[turns.clamp(min=0)], 0.0)


def by_adapter(parts: Sequence[Part], returns: Mapping[Key, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns of each adapter's players, in one tensor."""
    adapters = {part.key: part.player.adapter for part in parts}
    merged: dict[str, list[torch.Tensor]] = {}
    for key, values in returns.items():
        merged.setdefault(adapters[key], []).append(values)
    return {adapter: torch.cat(values) for adapter, values in merged.items()}


def _with_tether(part: Part, tau: float, tether_in_reward: bool) -> torch.Tensor:
    if part.player.tether is None or not tether_in_reward:
        return part.rewards
    return part.rewards - (part.nats + part.nats_elsewhere) / tau


def _chain(
    part: Part, tau: float, tether_in_reward: bool, level: str
) -> tuple[list[tuple[Sample, int, list[int]]], torch.Tensor, torch.Tensor]:
    """A player's decisions in an episode, one after the other.

    Returns:
        Of each decision its sample, the token before which it is valued, and the tokens that it credits; and two
        tensors, what each brought and its value.
    """
    places: list[tuple[Sample, int, list[int]]] = []
    rewards: list[float] = []
    tethered = part.player.tether is not None and tether_in_reward
    brought = _carried_back(part, part.rewards - part.nats_elsewhere / tau if tethered else part.rewards)
    for sample in part.samples:
        size = len(sample.row.completion_ids)
        sample.advantages, sample.targets = torch.zeros(size), torch.full((size,), float("nan"))
        last = -1
        for at, turn in enumerate(sample.row.turns):
            if turn < 0:
                continue
            if level == "token" or turn != last:
                places.append((sample, at, []))
                rewards.append(0.0)
            places[-1][2].append(at)
            if tethered and sample.nats is not None:
                rewards[-1] -= sample.nats[at].item() / tau
            if at + 1 == size or sample.row.turns[at + 1] != turn:  # the turn ends here
                rewards[-1] += brought[turn]
            last = turn
    values = [sample.values[at].item() for sample, at, _ in places if sample.values is not None]
    return places, torch.tensor(rewards), torch.tensor(values)


def _carried_back(part: Part, rewards: torch.Tensor) -> list[float]:
    """What each turn brought; that of a turn at which nothing could be said goes to the turn before it."""
    said = {turn for sample in part.samples for turn in sample.row.turns}
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
    """How well the critics foresaw the returns of the step, over all processes."""
    mine = {}
    for adapter, samples in _by_adapter(rollout).items():
        targets = torch.cat([sample.targets for sample in samples if sample.targets is not None])
        values = torch.cat([sample.values for sample in samples if sample.values is not None])
        mine[adapter] = values[~targets.isnan()], targets[~targets.isnan()]
    everyone = gather_object([mine])
    for adapter in {adapter for one in everyone for adapter in one}:
        values, targets = (torch.cat([one[adapter][i] for one in everyone if adapter in one]) for i in (0, 1))
        rollout.notes[f"policy/{adapter}/explained_variance"] = explained_variance(values, targets)


def _note_dead_groups(rollout: Rollout, grouped: Mapping[Key, torch.Tensor], adapters: Mapping[Key, str]) -> None:
    dead: dict[str, list[float]] = defaultdict(list)
    for key, values in grouped.items():
        dead[adapters[key]].append(groups_without_variance(values))
    rollout.dead_groups = {adapter: sum(shares) / len(shares) for adapter, shares in dead.items()}
