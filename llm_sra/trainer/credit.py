"""A rollout to advantages: returns, then the configured estimator, then the weights of sampled partners."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate.utils import gather_object

from llm_sra.objectives import Tether
from llm_sra.objectives.partner_returns import PartnerReturns
from llm_sra.objectives.risk import Risk
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
    earned: Mapping[str, PartnerReturns],
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
        earned: See `weigh_partners`.
    """
    episodes = player_episodes(rollout)
    returns = player_returns(episodes, tether)
    estimator.function(EstimatorInputs(rollout, episodes, returns, group_sizes, tether, options))
    if any(match_set.sampled for match_set in arm.match_sets):
        weigh_partners(rollout, arm, episodes, returns, risk, earned)


def weigh_partners(
    rollout: Rollout,
    arm: Arm,
    episodes: Sequence[PlayerEpisode],
    returns: Mapping[Key, torch.Tensor],
    risk: RiskOf,
    earned: Mapping[str, PartnerReturns],
) -> None:
    """Multiply a hero's advantages with each sampled partner by the weight that its risk measure puts on that partner.

    The measure sees mean returns that are pooled over steps and shrunk (see `objectives.partner_returns`), over the
    episodes of all processes, which all must call this. Partners share a problem's episodes equally, so weights are
    relative to that: 1 on average over all partners that count, also where a step meets some of them alone.

    Args:
        rollout: Its samples' advantages are weighted, and its notes filled in.
        arm: The match sets.
        episodes: See `player_episodes`.
        returns: See `player_returns`.
        risk: Risk of (Z,) mean returns.
        earned: By hero's seat, what it earned so far; this step is taken in.
    """
    mine: dict[Key, list[tuple[str, float]]] = defaultdict(list)
    values = {key: iter(tensor.tolist()) for key, tensor in returns.items()}
    for played in episodes:
        mine[played.key].append((rollout.episodes[played.episode].problem.id, next(values[played.key])))
    everyone: list[Mapping[Key, list[tuple[str, float]]]] = gather_object([dict(mine)])
    factors: dict[Key, float] = {}
    for match_set in arm.match_sets:
        if not match_set.sampled:
            continue
        hero = match_set.hero
        keys = {str(training.partner): (training.match.name, hero) for training in match_set.matches}
        met = {partner: [pair for one in everyone for pair in one.get(key, ())] for partner, key in keys.items()}
        met = {partner: pairs for partner, pairs in met.items() if pairs}
        if not met:
            continue
        earned[hero].update(met)
        found = earned[hero].estimate()
        measured = risk(found.shrunk)
        rollout.notes[f"risk/{hero}/value"] = measured.value.item()
        rollout.notes[f"risk/{hero}/noise"] = found.noise
        for partner, mean, weight in zip(found.partners, found.means.tolist(), measured.weights.tolist(), strict=True):
            rollout.notes[f"risk/{hero}/{partner}/return"] = mean
            rollout.notes[f"risk/{hero}/{partner}/weight"] = weight
            factors[keys[partner]] = weight * len(found.partners)
    for played in episodes:
        if played.key in factors:
            for sample in played.samples:
                sample.advantages *= factors[played.key]
