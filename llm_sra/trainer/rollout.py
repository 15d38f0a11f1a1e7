"""One step's rollout: which episodes are played, and what they are worth to each policy.

Pure bookkeeping between `play` and the loss: no model is run here.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from llm_sra.credit import group_advantages, groups_without_variance, tethered_return
from llm_sra.credit.group import Scale
from llm_sra.play import Table
from llm_sra.task import Episode, Problem
from llm_sra.trainer.arms import Arm, TrainingMatch
from llm_sra.trainer.rows import Row, rows_of


@dataclass
class Sample:
    """A training row with what its policy is credited.

    Attributes:
        row: The tokens.
        adapter: The policy that said them, and that is trained on them.
        tether: The live partner's adapter, for an adversary's row.
        advantage: In units of the reward; the same for every own token.
        kl_sum: Σ (log adversary - log partner) over all that was said in the row, in nats; 0 for a hero's row.
        old_logprobs: Own log-probabilities before the first update, if an update needs them.
        ref_logprobs: Log-probabilities of the base model, if the reference KL is on.
        importance: Weights of the tokens' loss, if another engine than the trainer sampled them.
    """

    row: Row
    adapter: str
    tether: str | None
    advantage: float = 0.0
    kl_sum: float = 0.0
    old_logprobs: torch.Tensor | None = None
    ref_logprobs: torch.Tensor | None = None
    importance: torch.Tensor | None = None


@dataclass
class Rollout:
    """The episodes of one step on one process.

    Attributes:
        episodes: Group after group: G neighbouring episodes share problem and match.
        matches: The training match of each episode.
        samples: Every training row.
        dead_groups: By adapter, share of its groups without variance.
    """

    episodes: list[Episode]
    matches: list[TrainingMatch]
    samples: list[Sample]
    dead_groups: dict[str, float] = field(default_factory=dict)

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


def check_divides(problems: int, arm: Arm, processes: int) -> None:
    """Raise ValueError unless a step's problems divide evenly among matches and processes."""
    if problems % (len(arm.matches) * processes):
        raise ValueError(
            f"problems_per_step ({problems}) must be a multiple of matches ({len(arm.matches)}) times processes "
            f"({processes}), so that every match and every process gets the same number of episodes"
        )


def seat_tables(
    arm: Arm, problems: Sequence[Problem], group_size: int, rank: int, processes: int
) -> list[tuple[Table, TrainingMatch]]:
    """The episodes that one process plays: the matches share the problems, the processes share the groups.

    Args:
        arm: The matches.
        problems: Of the whole step; match m of M plays every M-th.
        group_size: Episodes per problem and match.
        rank: Of this process.
        processes: How many there are.

    Raises:
        ValueError: If the problems do not divide evenly among matches and processes.
    """
    check_divides(len(problems), arm, processes)
    groups: list[tuple[Problem, TrainingMatch, int]] = []
    for m, training in enumerate(arm.matches):
        played: Counter[str] = Counter()
        for problem in problems[m :: len(arm.matches)]:
            groups.append((problem, training, played[problem.id]))
            played[problem.id] += 1
    return [
        # A problem that comes up twice gets other numbers, hence other seeds: its episodes would else be the same.
        (Table(problem, training.match, earlier * group_size + index), training)
        for problem, training, earlier in groups[rank::processes]
        for index in range(group_size)
    ]


def collect(episodes: Sequence[Episode], matches: Sequence[TrainingMatch], mask_truncated: bool) -> Rollout:
    """The training rows of all players of all episodes."""
    samples = [
        Sample(row, player.adapter, player.tether)
        for position, (episode, training) in enumerate(zip(episodes, matches, strict=True))
        for seat, player in training.players.items()
        for row in rows_of(episode, position, seat, mask_truncated)
    ]
    return Rollout(list(episodes), list(matches), samples)


def player_returns(rollout: Rollout, tau: float, tether_in_reward: bool) -> dict[tuple[str, str], torch.Tensor]:
    """What each player got: R_i for a hero; -R_i, less the tether, for its adversary.

    Returns:
        By (match, seat), returns of its episodes in their order, in units of the reward.
    """
    kl_sums = rollout.tether_nats()
    returns: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)
    for position, (episode, training) in enumerate(zip(rollout.episodes, rollout.matches, strict=True)):
        for seat, player in training.players.items():
            value = torch.tensor(episode.total(player.hero))
            if player.tether is not None:
                nats = torch.tensor(kl_sums.get((position, player.adapter), 0.0) if tether_in_reward else 0.0)
                value = tethered_return(value, nats, torch.zeros(()), tau)
            returns[episode.match, seat].append(value)
    return {key: torch.stack(values) for key, values in returns.items()}


def assign_advantages(
    rollout: Rollout,
    returns: Mapping[tuple[str, str], torch.Tensor],
    group_size: int,
    scale: Scale,
    batch_std: Mapping[str, float],
) -> None:
    """Centre the returns within their groups and write the advantages into the samples.

    Args:
        rollout: Its samples and dead groups are filled in.
        returns: See `player_returns`.
        group_size: G.
        scale: See `group_advantages`.
        batch_std: By adapter, for scale `batch`.
    """
    players = {(t.match.name, seat): player for t in rollout.matches for seat, player in t.players.items()}
    advantages: dict[tuple[str, str], list[float]] = {}
    dead: dict[str, list[float]] = defaultdict(list)
    for key, values in returns.items():
        grouped = values.view(-1, group_size)
        adapter = players[key].adapter
        advantages[key] = group_advantages(grouped, scale, batch_std.get(adapter)).flatten().tolist()
        dead[adapter].append(groups_without_variance(grouped))
    rollout.dead_groups = {adapter: sum(shares) / len(shares) for adapter, shares in dead.items()}
    number: dict[str, int] = defaultdict(int)
    place = []
    for episode in rollout.episodes:
        place.append(number[episode.match])
        number[episode.match] += 1
    for sample in rollout.samples:
        episode = rollout.episodes[sample.row.episode]
        sample.advantage = advantages[episode.match, sample.row.seat][place[sample.row.episode]]


def by_adapter(rollout: Rollout, returns: dict[tuple[str, str], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns of each adapter's players, in one tensor."""
    adapters = {(t.match.name, seat): player.adapter for t in rollout.matches for seat, player in t.players.items()}
    merged: dict[str, list[torch.Tensor]] = {}
    for key, values in returns.items():
        merged.setdefault(adapters[key], []).append(values)
    return {adapter: torch.cat(values) for adapter, values in merged.items()}
