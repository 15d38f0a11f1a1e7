"""Log-probabilities, values and divergences of what was said, computed by the trainer itself.

Everything here is a forward pass over a rollout's rows. Nothing is updated, and what rows are worth is not known.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llm_sra.engines import Engine
from llm_sra.trainer import metrics
from llm_sra.trainer.arms import Arm
from llm_sra.trainer.critic import Critics
from llm_sra.trainer.head import head_on_labels_only
from llm_sra.trainer.keeper import AdapterKeeper
from llm_sra.trainer.loss import by_length, chunks, importance_ratios, token_statistics
from llm_sra.trainer.rollout import Rollout, Sample
from llm_sra.trainer.rows import collate, joined


class RowScorer(AdapterKeeper):
    """Scores the rows of a rollout."""

    arm: Arm
    engine: Engine
    critics: Critics | None
    _tokenizer: PreTrainedTokenizerBase
    _choices: torch.Tensor | None  # (C,) token ids, if the task's replies are chosen from some
    _entropies: torch.Tensor | None
    _kept_logits: list[torch.Tensor] | None = None
    _means: metrics.TokenMeans

    @torch.no_grad()
    def _score(self, rollout: Rollout, reused: bool) -> None:
        """Log-probabilities before any update: own ones where a later update or the tether needs them.

        Args:
            rollout: Its samples are filled in.
            reused: Whether more than one update of an adapter uses it.
        """
        with self._evaluating():
            for adapter in self.arm.adapters:
                samples = [sample for sample in rollout.samples if sample.adapter == adapter]
                tethered = any(sample.tether for sample in samples)
                for batch in chunks(by_length(samples), self.args.per_device_train_batch_size):
                    needed = reused or tethered or not self.engine.shares_weights
                    own = self._logprobs(batch, adapter) if needed else None
                    if tethered and own is not None:
                        self._tether(batch, own)
                    if own is not None and not self.engine.shares_weights:
                        self._compare_with_engine(batch, adapter, own)
                    base = self._logprobs(batch, None) if self.beta else None
                    values = self.critics.values(adapter, self._inputs(batch)) if self.critics else None
                    for i, sample in enumerate(batch):
                        length = len(sample.row.completion_ids)
                        sample.old_logprobs = own[i, :length].clone() if own is not None and reused else None
                        sample.ref_logprobs = base[i, :length].clone() if base is not None else None
                        sample.values = values[i, :length].cpu() if values is not None else None

    def _tether(self, batch: Sequence[Sample], own: torch.Tensor) -> None:
        """The divergence, log φ - log π, of each token that was said: same tokens, same forward pass on both sides."""
        for tether in {sample.tether for sample in batch}:
            rows = [i for i, sample in enumerate(batch) if sample.tether == tether]
            partner = self._logprobs([batch[i] for i in rows], tether)
            for j, i in enumerate(rows):
                row = batch[i].row
                said = torch.tensor([turn >= 0 for turn in row.turns], device=own.device)
                length = len(row.completion_ids)
                batch[i].nats = ((own[i, :length] - partner[j, :length]) * said).cpu()

    def _compare_with_engine(self, batch: Sequence[Sample], adapter: str, own: torch.Tensor) -> None:
        """Weigh tokens by the trainer's over the engine's probability of them, and report how far apart these are."""
        args = self.args
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

    def _logprobs(self, batch: Sequence[Sample], adapter: str | None) -> torch.Tensor:
        """(B, T) log-probabilities of the completions under an adapter, or under the base."""
        rows = joined(self._inputs(batch))
        with self.bank.using(adapter):
            logprobs: torch.Tensor = self._get_per_token_logps_and_entropies(self.bank.model, *rows)[0]
        return logprobs

    @torch.no_grad()
    def _partner_logits(self, batch: Sequence[Sample], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits of the live partner that each row is tethered to; shapes as of `_logits`."""
        logits: torch.Tensor | None = None
        for tether in sorted({sample.tether for sample in batch if sample.tether} or {next(iter(self.bank.names))}):
            with self.bank.using(tether):
                these = self._logits(self.bank.model, *joined(inputs))
            rows = torch.tensor([sample.tether == tether for sample in batch], device=these.device)
            logits = these if logits is None else torch.where(rows[:, None, None], these, logits)
        assert logits is not None
        return logits

    def _logits(
        self, model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, width: int
    ) -> torch.Tensor:
        """(B, T, V) logits of the last `width` tokens, divided by the temperature; (B, T, C) where there are C choices.

        Of the active adapter.
        """
        with self.accelerator.autocast():
            logits: torch.Tensor = model(
                input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=width + 1
            ).logits
        logits = logits[:, :-1] / self.temperature
        return logits if self._choices is None else logits[..., self._choices]

    @contextmanager
    def _keeping_logits(self, wanted: bool) -> Iterator[list[torch.Tensor]]:
        """If wanted, the logits that log-probabilities inside the block are taken from, one entry a forward pass."""
        kept: list[torch.Tensor] = []
        self._kept_logits = kept if wanted else None
        try:
            yield kept
        finally:
            self._kept_logits = None

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """TRL's, or those of the task's choices alone; keeps the entropies, from which the bonus is made.

        TRL's never holds all logits; where these are asked for, they are computed, and the rest is taken from them.
        """
        if self._choices is None and self._kept_logits is None:
            with head_on_labels_only(self.bank.base):
                result: tuple[Any, ...] = super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
                )
        else:
            logits = self._logits(model, input_ids, attention_mask, logits_to_keep)
            if self._kept_logits is not None:
                self._kept_logits.append(logits)
            result = (*token_statistics(logits, input_ids[:, -logits_to_keep:], self._choices), None)
        self._entropies = result[1]
        return result

    def _inputs(self, batch: Sequence[Sample]) -> dict[str, torch.Tensor]:
        return collate([sample.row for sample in batch], self._tokenizer.pad_token_id, self.args.device)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.bank.model.training
        self.bank.model.eval()
        try:
            yield
        finally:
            self.bank.model.train(was_training)
