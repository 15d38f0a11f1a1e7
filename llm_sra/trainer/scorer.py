"""Scores of a rollout's rows before any update: log-probabilities, critics' values, divergences, importance ratios.

Everything here is a forward pass. Nothing is updated, and no advantage is computed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from llm_sra.objectives.population import surprise
from llm_sra.trainer.bases import Bases
from llm_sra.trainer.config import SRPOConfig
from llm_sra.trainer.critic import Critics
from llm_sra.trainer.loss import importance_ratios
from llm_sra.trainer.metrics import TokenMeans
from llm_sra.trainer.rollout import Rollout, Sample
from llm_sra.trainer.rows import collate, joined


class Scorer:
    """Scores the rows of a rollout.

    Args:
        args: See `SRPOConfig`.
        bases: Where the adapters live.
        critics: If there are any.
        statistics: (model, ids, mask, width) to log-probabilities (B, width) and two values more: TRL's method.
        means: Gets what is measured by token.
    """

    def __init__(
        self,
        args: SRPOConfig,
        bases: Bases,
        critics: Critics | None,
        statistics: Callable[..., tuple[Any, ...]],
        means: TokenMeans,
    ) -> None:
        self._args, self._bases, self._critics, self._statistics, self._means = args, bases, critics, statistics, means

    @torch.no_grad()
    def score(
        self,
        rollout: Rollout,
        adapters: Sequence[str],
        reused: bool,
        peers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Fill in the scores that credit and loss need.

        Args:
            rollout: Its samples are filled in.
            adapters: Whose rows.
            reused: Whether more than one update of an adapter uses the rollout: then old log-probabilities are kept.
            peers: Of a population, by adapter the policies of its seat.
        """
        size = self._args.per_device_train_batch_size
        with self._bases.evaluation_mode():
            for adapter in adapters:
                samples = [sample for sample in rollout.samples if sample.adapter == adapter]
                tethered = any(sample.tether for sample in samples)
                for batch in self._bases.of(adapter).reader.batches(samples, size):
                    self._score_batch(batch, adapter, tethered, reused)
                    if peers and adapter in peers:
                        self._reward_surprise(batch, adapter, peers[adapter])

    def logprobs(self, batch: Sequence[Sample], adapter: str | None) -> torch.Tensor:
        """(B, T) log-probabilities of completions under an adapter of the rows' base, or under the base itself."""
        base = self._bases.of(batch[0].adapter)
        rows = joined(self._inputs(batch))
        with base.bank.using(adapter), base.forward.reading(batch):
            logprobs: torch.Tensor = self._statistics(base.bank.model, *rows)[0]
        return logprobs

    @torch.no_grad()
    def reply_logprobs(self, samples: Sequence[Sample]) -> list[float]:
        """Of each row, the log-probability of all that was said in it, under its adapter."""
        found: dict[int, float] = {}
        size = self._args.per_device_train_batch_size
        with self._bases.evaluation_mode():
            for adapter in dict.fromkeys(sample.adapter for sample in samples):
                mine = [sample for sample in samples if sample.adapter == adapter]
                for batch in self._bases.of(adapter).reader.batches(mine, size):
                    for sample, logprobs in zip(batch, self.logprobs(batch, adapter), strict=True):
                        found[id(sample)] = logprobs[: len(sample.row.completion_ids)].sum().item()
        return [found[id(sample)] for sample in samples]

    def _score_batch(self, batch: Sequence[Sample], adapter: str, tethered: bool, reused: bool) -> None:
        here = self._bases.of(adapter).engine.shares_weights
        needed = reused or tethered or not here
        own = self.logprobs(batch, adapter) if needed else None
        if tethered and own is not None:
            self._measure_divergence(batch, own)
        if own is not None and not here:
            self._compare_with_engine(batch, adapter, own)
        base = self.logprobs(batch, None) if self._args.beta else None
        values = self._critics.values(adapter, self._inputs(batch)) if self._critics else None
        for i, sample in enumerate(batch):
            length = len(sample.row.completion_ids)
            sample.old_logprobs = own[i, :length].clone() if own is not None and reused else None
            sample.ref_logprobs = base[i, :length].clone() if base is not None else None
            sample.values = values[i, :length].cpu() if values is not None else None

    def _measure_divergence(self, batch: Sequence[Sample], own: torch.Tensor) -> None:
        """Log φ - log π of each token that was said: the same tokens, in the same forward pass on both sides."""
        for tether in {sample.tether for sample in batch}:
            rows = [i for i, sample in enumerate(batch) if sample.tether == tether]
            partner = self.logprobs([batch[i] for i in rows], tether)
            for j, i in enumerate(rows):
                row = batch[i].row
                said = row.said.to(own.device)
                length = len(row.completion_ids)
                batch[i].nats = ((own[i, :length] - partner[j, :length]) * said).cpu()

    def _reward_surprise(self, batch: Sequence[Sample], adapter: str, peers: Sequence[str]) -> None:
        """What each token that was said earns for being improbable under the mean of the population's policies."""
        found = surprise(torch.stack([self.logprobs(batch, peer) for peer in peers])).cpu()
        for sample, nats in zip(batch, found, strict=True):
            said = sample.row.said
            mine = nats[: len(said)] * said
            sample.bonus = self._args.population_entropy_coef * mine
            self._means.add(f"policy/{adapter}/surprise", mine.sum(), said.sum())

    def _compare_with_engine(self, batch: Sequence[Sample], adapter: str, own: torch.Tensor) -> None:
        """Importance ratios, the trainer's probability of a token over the engine's; the difference is logged."""
        args = self._args
        inputs = self._inputs(batch)
        mask, sampled = inputs["tool_mask"], inputs["sampling_per_token_logps"]
        bounds = args.vllm_importance_sampling_clip_max, args.vllm_importance_sampling_clip_min
        ratios = importance_ratios(own, sampled, mask, args.vllm_importance_sampling_mode, *bounds)
        prefix = f"policy/{adapter}"
        self._means.add(f"{prefix}/engine_logprob_difference", ((own - sampled).abs() * mask).sum(), mask.sum())
        self._means.add(f"{prefix}/importance_ratio", (ratios * mask).sum(), mask.sum())
        if args.vllm_importance_sampling_correction:
            for sample, row in zip(batch, ratios, strict=True):
                sample.importance = row[: len(sample.row.completion_ids)].clone()

    def _inputs(self, batch: Sequence[Sample]) -> dict[str, torch.Tensor]:
        pad_id = self._bases.of(batch[0].adapter).pad_id
        return collate([sample.row for sample in batch], pad_id, self._args.device)
