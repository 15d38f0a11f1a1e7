"""What is logged of a step: numbers per seat and policy, and its seconds by part."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm_sra.episodes.reply_numbers import percentiles, reported
from llm_sra.files import write_whole, writing
from llm_sra.trainer.finite import is_finite
from llm_sra.trainer.rollout import Rollout

COLLAPSED_ENTROPY = 0.02  # nats per token
COLLAPSED_GROUPS = 0.98  # share of groups without variance
EQUAL_GROUPS = 0.5  # share of groups without variance above which little entropy is a loss
LASTING = 10  # steps in a row after which a policy is said to learn no more
EXPLODING_ENTROPY = 3.0  # times that of the first step
PARTS = ("generate", "score", "train", "sync")


class Clock:
    """Adds up the seconds of a step's parts."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


class TokenMeans:
    """Means over a step's own tokens, independent of how micro-batches cut them."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, total: torch.Tensor, tokens: torch.Tensor) -> None:
        """Add a micro-batch: the sum of a number over its own tokens, and how many they are."""
        part = torch.stack([total.detach().float(), tokens.float()])
        self._sums[name] = self._sums[name] + part if name in self._sums else part

    def reduce(self) -> dict[str, float]:
        """The means over all processes, which all must call this; then starts again from nothing."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        # As objects: one process may have a turn that no other reached.
        for process in gather_object([{name: part.tolist() for name, part in self._sums.items()}]):
            for name, (total, tokens) in process.items():
                sums[name][0] += total
                sums[name][1] += tokens
        self._sums.clear()
        return {name: total / max(tokens, 1) for name, (total, tokens) in sums.items()}


def play_metrics(rollout: Rollout) -> dict[str, float]:
    """Means over all processes' episodes, by seat and policy, and over all episodes; all processes must call this.

    Also numbers of episodes, of all and of each policy (once for each seat that it fills), and percentiles of the
    lengths of replies and of the adversaries' KL, over all turns and by turn.
    """
    sums, spread = _values(rollout)
    everyone = gather_object([{name: (sum(values), len(values)) for name, values in sums.items()}])
    spreads = gather_object([dict(spread)])
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for process in everyone:
        for name, (total, count) in process.items():
            totals[name][0] += total
            totals[name][1] += count
    numbers = {name: total / count for name, (total, count) in totals.items() if count}
    names = {name for process in spreads for name in process}
    numbers |= percentiles({name: [value for process in spreads for value in process.get(name, ())] for name in names})
    numbers |= rollout.notes
    numbers["episodes"] = totals["solve_rate"][1]
    for name, (_, count) in totals.items():
        if name.endswith("/return"):  # play/<seat>/<policy>/return
            key = f"policy/{name.split('/')[2]}/episodes"
            numbers[key] = numbers.get(key, 0.0) + count
    return numbers


def _values(rollout: Rollout) -> tuple[Mapping[str, list[float]], Mapping[str, list[float]]]:
    """This process's values, by name: those of which the mean is told, and those of which percentiles are."""
    sums: dict[str, list[float]] = defaultdict(list)
    spread: dict[str, list[float]] = defaultdict(list)
    for episode in rollout.episodes:
        sums["solve_rate"].append(float(episode.outcome.solved))
        for seat, policy in episode.policies.items():
            turns = episode.turns_of(seat)
            prefix = f"play/{seat}/{policy}"
            sums[f"{prefix}/return"].append(episode.total(seat))
            sums[f"{prefix}/team_reward"].append(episode.team_reward(seat))
            sums[f"{prefix}/cost"].append(episode.cost(seat))
            sums[f"{prefix}/solve_rate"].append(float(episode.outcome.solved))
            sums[f"{prefix}/effort"].append(episode.outcome.effort.get(seat, 0.0))
            lengths = [float(len(turn.reply.token_ids)) for turn in turns]
            sums[f"{prefix}/tokens"].append(sum(lengths))
            spread[f"{prefix}/reply_tokens"].extend(lengths)
            for number in reported(range(len(turns))):
                spread[f"{prefix}/reply_tokens_turn{number + 1}"].append(lengths[number])
            sums["replies_cut"].extend(float(turn.reply.finish != "stop") for turn in turns)
        for name, value in episode.outcome.metrics.items():
            sums[f"task/{name}"].append(value)
    for (_, adapter), nats in rollout.tether_nats().items():
        sums[f"policy/{adapter}/kl_to_partner"].append(nats)
        spread[f"policy/{adapter}/kl_to_partner"].append(nats)
    for sample in rollout.samples:
        if sample.nats is not None:
            which = torch.tensor(sample.row.turns)
            for turn in reported(sample.row.turns):
                nats = sample.nats[which == turn].sum().item()
                sums[f"policy/{sample.adapter}/kl_to_partner_turn{turn + 1}"].append(nats)
                spread[f"policy/{sample.adapter}/kl_to_partner_turn{turn + 1}"].append(nats)
    for adapter, share in rollout.dead_groups.items():
        sums[f"policy/{adapter}/dead_groups"].append(share)
    return sums, spread


def add_entropies(
    means: TokenMeans, adapter: str, entropies: torch.Tensor, mask: torch.Tensor, turns: Sequence[Sequence[int]]
) -> None:
    """Add a micro-batch's entropies: over all own tokens, and over those of each turn.

    Args:
        means: Added to.
        adapter: Whose.
        entropies: (B, T), in nats.
        mask: (B, T), 1 on own tokens.
        turns: For each row, the turn that a token belongs to; -1 for none.
    """
    entropies = entropies.detach() * mask
    means.add(f"policy/{adapter}/entropy", entropies.sum(), mask.sum())
    width = mask.size(1)
    numbers = torch.tensor([[*row, *[-1] * (width - len(row))] for row in turns], device=mask.device)
    for turn in reported(torch.unique(numbers).tolist()):
        there = numbers == turn
        means.add(f"policy/{adapter}/entropy_turn{turn + 1}", (entropies * there).sum(), (mask * there).sum())


def entropy_gaps(numbers: Mapping[str, float], adversary: str, partner: str) -> dict[str, float]:
    """By how much an adversary's entropy is above its partner's: over all, and for each turn that both have."""
    prefix = f"policy/{partner}/entropy"
    gaps = {}
    for name, theirs in numbers.items():
        suffix = name.removeprefix(prefix)
        ours = numbers.get(f"policy/{adversary}/entropy{suffix}")
        if name.startswith(prefix) and ours is not None:
            gaps[f"policy/{adversary}/entropy_gap{suffix}"] = ours - theirs
    return gaps


def without_entropy(numbers: Mapping[str, float]) -> list[str]:
    """Adapters that nearly always say the most probable, and learn nothing from it: most of their groups earn the same.

    Where rewards still vary within groups, a policy of little entropy has decided, and goes on learning.
    """
    low = [name.split("/")[1] for name, value in numbers.items() if _is_entropy(name) and value < COLLAPSED_ENTROPY]
    return sorted(name for name in low if numbers.get(f"policy/{name}/dead_groups", 1.0) > EQUAL_GROUPS)


def without_variance(numbers: Mapping[str, float]) -> list[str]:
    """Adapters from whose groups nothing is learned: all episodes of almost every group earned the same."""
    return sorted(
        name.split("/")[1]
        for name, value in numbers.items()
        if name.startswith("policy/") and name.endswith("/dead_groups") and value > COLLAPSED_GROUPS
    )


def exploding_policies(numbers: Mapping[str, float], first: Mapping[str, float]) -> list[str]:
    """Adapters whose entropy keeps growing: their entropy bonus outweighs what the task pays.

    Args:
        numbers: Numbers of a step.
        first: Numbers of the first step of the training.
    """
    grown = (
        name for name in numbers if _is_entropy(name) and numbers[name] > EXPLODING_ENTROPY * first.get(name, math.inf)
    )
    return sorted(name.split("/")[1] for name in grown)


def _is_entropy(name: str) -> bool:
    return name.startswith("policy/") and name.endswith("/entropy")


class MetricsFile(TrainerCallback):  # type: ignore[misc]
    """Appends everything that is logged to `metrics.jsonl`; a resumed run first drops what it will log again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._resumed_at = 0
        self._trimmed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember the step from which training goes on."""
        self._resumed_at, self._trimmed = state.global_step, False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line."""
        if state.is_world_process_zero and logs:
            with writing("the metrics", self.path):
                if not self._trimmed:  # only now: a start that fails leaves the file as it was
                    self._trim()
                    self._trimmed = True
                # JSON has no NaN: what is not finite (the explained variance of equal returns) is null.
                known = {name: value if is_finite(value) else None for name, value in logs.items()}
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": state.global_step, **known}, allow_nan=False) + "\n")

    def _trim(self) -> None:
        """Keep the lines up to the step from which training goes on, but no earlier end of training."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= self._resumed_at and "train_runtime" not in line]
            write_whole(self.path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")


def batch_std(returns: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Standard deviation of each adapter's returns over all processes; all of them must call this."""
    values: dict[str, list[float]] = defaultdict(list)
    for process in gather_object([{name: tensor.tolist() for name, tensor in returns.items()}]):
        for name, numbers in process.items():
            values[name].extend(numbers)
    return {name: torch.tensor(numbers).std().item() for name, numbers in values.items()}
