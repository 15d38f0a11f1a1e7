"""A rollout to advantages: returns, then the configured estimator, then the weights of sampled partners."""

from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate.utils import gather_object

from llm_sra.objectives import Tether
from llm_sra.objectives.risk import Risk
from llm_sra.objectives.smoothing import SmoothedWeights
from llm_sra.trainer.arms import Arm
from llm_sra.trainer.estimators import Estimator, EstimatorInputs, EstimatorOptions
from llm_sra.trainer.player_episodes import Key, PlayerEpisode, player_episodes, player_returns
from llm_sra.trainer.rollout import Rollout

RiskOf = Callable[[torch.Tensor], Risk]


def assign_credit(
    rollout: Rollout,
    arm: Arm,
    group_sizes: Mapping[str, int],
    tether: Tether,
    estimator: Estimator,
    options: EstimatorOptions,
    risk: RiskOf,
    smoothed: Mapping[str, SmoothedWeights],
) -> None:
    """Fill in the advantages of a rollout; all processes must call this.

    Args:
        rollout: Its samples are filled in, and what else there is to log.
        arm: What was played.
        group_sizes: By match, how many neighbouring episodes are a group.
        tether: Tether of this step.
        estimator: Estimator of advantages.
        options: Options of the estimator.
        risk: Over sampled partners.
        smoothed: See `weigh_partners`.
    """
    episodes = player_episodes(rollout)
    returns = player_returns(episodes, tether)
    estimator.function(EstimatorInputs(rollout, episodes, returns, group_sizes, tether, options))
    if any(match_set.sampled for match_set in arm.match_sets):
        weigh_partners(rollout, arm, episodes, returns, risk, smoothed)


def weigh_partners(
    rollout: Rollout,
    arm: Arm,
    episodes: Sequence[PlayerEpisode],
    returns: Mapping[Key, torch.Tensor],
    risk: RiskOf,
    smoothed: Mapping[str, SmoothedWeights],
) -> None:
    """Multiply a hero's advantages with each sampled partner by the weight that its risk measure puts on that partner.

    Partners share a problem's episodes equally, so weights are relative to that: 1 on average. Returns are averaged
    over the step's episodes of all processes, which all must call this.

    Args:
        rollout: Its samples' advantages are weighted, and its notes filled in.
        arm: The match sets.
        episodes: See `player_episodes`.
        returns: See `player_returns`.
        risk: Risk of (Z,) mean returns.
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
        measured = risk(torch.tensor(means, dtype=torch.float64))
        weights = smoothed[hero].update(measured.weights) if hero in smoothed else measured.weights
        rollout.notes[f"risk/{hero}/value"] = measured.value.item()
        for training, mean, weight in zip(met, means, weights.tolist(), strict=True):
            rollout.notes[f"risk/{hero}/{training.partner}/return"] = mean
            rollout.notes[f"risk/{hero}/{training.partner}/weight"] = weight
            factors[training.match.name, hero] = weight * len(met)
    for played in episodes:
        if played.key in factors:
            for sample in played.samples:
                sample.advantages *= factors[played.key]
