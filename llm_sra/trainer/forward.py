"""Forward passes over rows: log-probabilities, entropies and logits of completions.

TRL asks its trainer for log-probabilities through one method; that method delegates to `Forward.statistics`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from llm_sra.models.adapters import AdapterBank
from llm_sra.trainer.head import head_on_labels_only
from llm_sra.trainer.loss import token_statistics
from llm_sra.trainer.rollout import Sample
from llm_sra.trainer.rows import joined


class Forward:
    """Forward passes of a bank's adapters.

    Args:
        bank: The adapters.
        temperature: Divides all logits.
        choices: (C,) token ids, if the task's replies are chosen from some; None: the whole vocabulary.
        autocast: Context in which the model computes.
    """

    def __init__(
        self,
        bank: AdapterBank,
        temperature: float,
        choices: torch.Tensor | None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.bank, self.temperature, self.choices = bank, temperature, choices
        self.entropies: torch.Tensor | None = None  # (B, T), of the latest pass
        self.missing: torch.Tensor | None = None  # (B, T), -log P(choices) without restriction, of the latest pass
        self._autocast = autocast
        self._kept: list[torch.Tensor] | None = None

    def statistics(
        self,
        trl: Callable[..., tuple[Any, ...]],
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        width: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Log-probabilities and entropies of the last `width` tokens, in the form of TRL's method.

        TRL's method never holds all logits. Where the logits are needed, for choices or for the exact tether, they are
        computed and all else is taken from them. Entropies are kept: the entropy bonus is made of them.

        Args:
            trl: TRL's own method.
            model: Under the active adapter.
            input_ids: (B, P + T).
            attention_mask: (B, P + T).
            width: T.
            *args: For TRL's method.
            **kwargs: For TRL's method.
        """
        if self.choices is None and self._kept is None:
            with head_on_labels_only(self.bank.base):
                result: tuple[Any, ...] = trl(model, input_ids, attention_mask, width, *args, **kwargs)
        else:
            logits = self.logits(model, input_ids, attention_mask, width)
            if self._kept is not None:
                self._kept.append(logits)
            result = (*token_statistics(logits, input_ids[:, -width:], self.choices), None)
        self.entropies = result[1]
        return result

    def logits(
        self, model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, width: int
    ) -> torch.Tensor:
        """(B, T, V) logits of the last `width` tokens under the active adapter, divided by the temperature.

        (B, T, C) where there are C choices.
        """
        with self._autocast():
            output = model(input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=width + 1)
        logits: torch.Tensor = output.logits[:, :-1] / self.temperature
        if self.choices is None:
            return logits
        chosen = logits[..., self.choices]
        self.missing = logits.float().logsumexp(-1) - chosen.float().logsumexp(-1)
        return chosen

    @torch.no_grad()
    def partner_logits(self, batch: Sequence[Sample], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits of the live partner that each row is tethered to; shapes as of `logits`."""
        logits: torch.Tensor | None = None
        for tether in sorted({sample.tether for sample in batch if sample.tether} or {next(iter(self.bank.names))}):
            with self.bank.using(tether):
                these = self.logits(self.bank.model, *joined(inputs))
            rows = torch.tensor([sample.tether == tether for sample in batch], device=these.device)
            logits = these if logits is None else torch.where(rows[:, None, None], these, logits)
        assert logits is not None
        return logits

    @contextmanager
    def keeping_logits(self, wanted: bool) -> Iterator[list[torch.Tensor]]:
        """If wanted, collect the logits that log-probabilities inside the block come from, one entry a forward pass."""
        kept: list[torch.Tensor] = []
        self._kept = kept if wanted else None
        try:
            yield kept
        finally:
            self._kept = None


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block, and back into its own mode after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
