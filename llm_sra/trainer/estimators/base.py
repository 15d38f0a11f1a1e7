"""What an estimator of advantages is: a function of a credited rollout, and the options that it takes."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from llm_sra.errors import unknown
from llm_sra.objectives import Tether, groups_without_variance
from llm_sra.objectives.group import Scale
from llm_sra.objectives.registry import Registry
from llm_sra.trainer.player_episodes import Key, PlayerEpisode
from llm_sra.trainer.rollout import Rollout


@dataclass(frozen=True, slots=True)
class EstimatorOptions:
    """The configuration's options of estimators, under their names there; each estimator reads those that it takes."""

    scale_rewards: Scale = "none"
    advantage_baseline: str = "mean"
    gamma: float = 1.0
    gae_lambda: float = 1.0
    whiten_advantages: bool = False
    alignment_coef: float = 1.0

    @classmethod
    def of(cls, config: object) -> "EstimatorOptions":
        """Of a configuration."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class EstimatorInputs:
    """What advantages are computed from.

    Attributes:
        rollout: Its samples' advantages are filled in, and what else there is to log.
        episodes: Every player of every episode.
        returns: By (match, seat), returns in units of the reward.
        group_sizes: By match, how many neighbouring episodes are a group.
        tether: Tether of this step.
        options: See `EstimatorOptions`.
    """

    rollout: Rollout
    episodes: Sequence[PlayerEpisode]
    returns: Mapping[Key, torch.Tensor]
    group_sizes: Mapping[str, int]
    tether: Tether
    options: EstimatorOptions

    @property
    def adapters(self) -> dict[Key, str]:
        """The adapter of each player."""
        return {played.key: played.player.adapter for played in self.episodes}

    def groups(self) -> Iterator[list[PlayerEpisode]]:
        """The episodes of each group, for one player after the other."""
        by_player: dict[Key, list[PlayerEpisode]] = defaultdict(list)
        for played in self.episodes:
            by_player[played.key].append(played)
        for (match, _), mine in by_player.items():
            size = self.group_sizes[match]
            for start in range(0, len(mine), size):
                yield mine[start : start + size]

    def grouped_returns(self) -> dict[Key, torch.Tensor]:
        """(groups, G) returns of each player; groups without variance are noted in the rollout."""
        grouped = {key: values.view(-1, self.group_sizes[key[0]]) for key, values in self.returns.items()}
        adapters = self.adapters
        dead: dict[str, list[float]] = defaultdict(list)
        for key, values in grouped.items():
            dead[adapters[key]].append(groups_without_variance(values))
        self.rollout.dead_groups.update({adapter: sum(shares) / len(shares) for adapter, shares in dead.items()})
        return grouped


Estimate = Callable[[EstimatorInputs], None]


@dataclass(frozen=True)
class Estimator:
    """An entry of `ESTIMATORS`.

    Attributes:
        algorithm: What `algorithm` is set to.
        level: What gets one advantage: what `advantage_level` is set to.
        summary: What it is, in a few words.
        function: Fills in the advantages of a rollout.
        takes: Options that it reads, of `scale_rewards`, `advantage_baseline`, `whiten_advantages` and
            `alignment_coef`.
        needs_critic: Whether samples must have `values`.
        default: Whether its level is the algorithm's default.
    """

    algorithm: str
    level: str
    summary: str
    function: Estimate
    takes: tuple[str, ...] = ()
    needs_critic: bool = False
    default: bool = False

    @property
    def name(self) -> str:
        """`algorithm/level`."""
        return f"{self.algorithm}/{self.level}"


ESTIMATORS: Registry[Estimator] = Registry("estimator")


def estimator(
    algorithm: str,
    level: str,
    summary: str,
    takes: tuple[str, ...] = (),
    needs_critic: bool = False,
    default: bool = False,
) -> Callable[[Estimate], Estimate]:
    """Register the decorated function; arguments as of `Estimator`."""

    def register(function: Estimate) -> Estimate:
        ESTIMATORS.add(Estimator(algorithm, level, summary, function, takes, needs_critic, default))
        return function

    return register


def algorithms() -> tuple[str, ...]:
    """Names that `algorithm` can have."""
    return tuple(dict.fromkeys(entry.algorithm for entry in ESTIMATORS.values()))


def levels(algorithm: str) -> tuple[str, ...]:
    """Names that `advantage_level` can have with an algorithm, its default first.

    Raises:
        UnknownNameError: If there is no such algorithm.
    """
    found = [entry for entry in ESTIMATORS.values() if entry.algorithm == algorithm]
    if not found:
        raise unknown("algorithm", algorithm, algorithms())
    return tuple(entry.level for entry in sorted(found, key=lambda entry: not entry.default))


def find_estimator(algorithm: str, level: str | None) -> Estimator:
    """The estimator of an algorithm and a level; None: the algorithm's default level."""
    return ESTIMATORS[f"{algorithm}/{level or levels(algorithm)[0]}"]
