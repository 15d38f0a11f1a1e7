"""One step's rollout: which episodes are played, and the rows to train on that they give.

Bookkeeping between `play` and the loss: no model is run here. Advantages come from `credit`.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from llm_sra.playing import EpisodeSpec
from llm_sra.task import Episode, Problem
from llm_sra.trainer.arms import Arm, MatchSet, TrainingMatch
from llm_sra.trainer.rows import Row, rows_of


@dataclass
class Sample:
    """A training row with what its policy is credited.

    Attributes:
        row: The tokens.
        adapter: The policy that sampled them and is trained on them.
        tether: The live partner's adapter, for an adversary's row.
        advantages: (T,), of each of the row's completion tokens, in units of the reward; 0 where others spoke.
        nats: (T,), log adversary - log partner of each token that the adversary said, 0 elsewhere; None for a hero.
        bonus: (T,), what each token that was said earns beside the task's rewards, in their units; None: nothing.
        values: (T,), the critic's value before each token, if there is a critic.
        targets: (T,), the returns that the critic is fitted to; NaN where it is not fitted.
        old_logprobs: Own log-probabilities before the first update, if an update needs them.
        ref_logprobs: Log-probabilities of the base model, if the reference KL is on.
        importance: Importance ratios of the tokens, if another engine than the trainer sampled them.
    """

    row: Row
    adapter: str
    tether: str | None
    advantages: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    nats: torch.Tensor | None = None
    bonus: torch.Tensor | None = None
    values: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    old_logprobs: torch.Tensor | None = None
    ref_logprobs: torch.Tensor | None = None
    importance: torch.Tensor | None = None

    @property
    def kl_sum(self) -> float:
        """Σ (log adversary - log partner) over all that was said in the row, in nats; 0 for a hero's row."""
        return 0.0 if self.nats is None else self.nats.sum().item()


@dataclass
class Rollout:
    """The episodes of one step on one process.

    Attributes:
        episodes: Group after group: neighbouring episodes share problem and match.
        matches: The training match of each episode.
        samples: Every training row.
        dead_groups: By adapter, share of its groups without variance, from which nothing is learned.
        influence: By episode, seat and number of the seat's turn, what was said and by how many nats it made probable
            what another seat said next; empty unless it is credited.
        notes: Further numbers to log, by name; the same on all processes.
    """

    episodes: list[Episode]
    matches: list[TrainingMatch]
    samples: list[Sample]
    dead_groups: dict[str, float] = field(default_factory=dict)
    influence: dict[tuple[int, str, int], tuple[str, float]] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)

    def tether_nats(self) -> dict[tuple[int, str], float]:
        """Σ (log adversary - log partner) over all that an adversary said, by episode and adapter."""
        nats: dict[tuple[int, str], float] = defaultdict(float)
        for sample in self.samples:
            if sample.tether is not None:
                nats[sample.row.episode, sample.adapter] += sample.kl_sum
        return nats


def problem_order(problems: Sequence[Problem], step: int, count: int, seed: int) -> list[Problem]:
    """The problems of a step: an endless stream of shuffled passes over all, `count` a step, by `step` alone."""
    orders: dict[int, list[int]] = {}
    chosen = []
    for position in range(step * count, (step + 1) * count):
        epoch, offset = divmod(position, len(problems))
        if epoch not in orders:
            orders[epoch] = list(range(len(problems)))
            random.Random(f"{seed}/{epoch}").shuffle(orders[epoch])
        chosen.append(problems[orders[epoch][offset]])
    return chosen


def check_divides(problems: int, group_size: int, arm: Arm, processes: int, sampled: int | None = None) -> None:
    """Raise ValueError unless a step's episodes divide evenly among match sets, sampled partners and processes."""
    equal = len({match_set.share for match_set in arm.match_sets}) == 1
    for match_set in arm.match_sets:
        count, matches = problems * match_set.share, min(len(match_set.matches), sampled or len(match_set.matches))
        if abs(count - round(count)) > 1e-9 or round(count) * matches % processes or round(count) < 1:
            parts = (
                f"matches ({len(arm.match_sets)})"
                if equal
                else f"the share of {match_set.share:g} of each kind of match"
            )
            raise ValueError(
                f"problems_per_step ({problems}) must be a multiple of {parts} times processes ({processes}), so that "
                "every match and every process gets the same number of episodes"
            )
        if group_size % matches or group_size // matches < 2:
            raise ValueError(
                f"num_generations ({group_size}) must be at least twice the number of partners that a hero meets in a "
                f"step ({matches}), and a multiple of it: each problem is played with each of them"
            )


def episode_specs(
    arm: Arm,
    problems: Sequence[Problem],
    group_size: int,
    rank: int,
    processes: int,
    sampled: int | None = None,
    key: object = "",
) -> list[tuple[EpisodeSpec, TrainingMatch]]:
    """The episodes that one process plays: the match sets share the problems, the processes share the groups.

    Args:
        arm: The matches.
        problems: Problems of the whole step.
        group_size: Episodes of a problem; several matches of a match set share them equally.
        rank: Rank of this process.
        processes: How many there are.
        sampled: How many of its partners each hero meets, drawn anew for each `key`; None: all of them.
        key: Names the step.

    Raises:
        ValueError: If the episodes do not divide evenly.
    """
    check_divides(len(problems), group_size, arm, processes, sampled)
    groups: list[tuple[Problem, TrainingMatch, int, int]] = []
    for number, (match_set, played) in enumerate(_share_out(arm.match_sets, problems)):
        matches = _drawn(match_set, sampled, f"{key}/{number}")
        size = group_size // len(matches)
        before: Counter[str] = Counter()
        for problem in played:
            groups += [(problem, training, before[problem.id], size) for training in matches]
            before[problem.id] += 1
    return [
        # A problem that comes up twice gets new numbers, hence new seeds: else its episodes would be the same.
        (EpisodeSpec(problem, training.match, earlier * size + index), training)
        for problem, training, earlier, size in groups[rank::processes]
        for index in range(size)
    ]


def group_sizes(arm: Arm, group_size: int, sampled: int | None = None) -> dict[str, int]:
    """By match, how many neighbouring episodes form a group; arguments as of `episode_specs`."""
    return {
        training.match.name: group_size // min(len(match_set.matches), sampled or len(match_set.matches))
        for match_set in arm.match_sets
        for training in match_set.matches
    }


def _share_out(match_sets: Sequence[MatchSet], problems: Sequence[Problem]) -> list[tuple[MatchSet, list[Problem]]]:
    """The problems of each match set, as evenly spread over all of them as their shares allow."""
    counts = [round(match_set.share * len(problems)) for match_set in match_sets]
    order = sorted((place / count, match_set) for match_set, count in enumerate(counts) for place in range(count))
    chosen: list[list[Problem]] = [[] for _ in match_sets]
    for problem, (_, match_set) in zip(problems, order, strict=True):
        chosen[match_set].append(problem)
    return list(zip(match_sets, chosen, strict=True))


def _drawn(match_set: MatchSet, sampled: int | None, key: str) -> Sequence[TrainingMatch]:
    if sampled is None or sampled >= len(match_set.matches):
        return match_set.matches
    return random.Random(key).sample(match_set.matches, sampled)


def collect(episodes: Sequence[Episode], matches: Sequence[TrainingMatch], mask_truncated: bool) -> Rollout:
    """The training rows of all players of all episodes."""
    samples = [
        Sample(row, player.adapter, player.tether)
        for position, (episode, training) in enumerate(zip(episodes, matches, strict=True))
        for seat, player in training.players.items()
        for row in rows_of(episode, position, seat, mask_truncated)
    ]
    return Rollout(list(episodes), list(matches), samples)
