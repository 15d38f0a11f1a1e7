"""The language-model head in pieces: log-probabilities and entropies of tokens from their hidden states.

The logits of a piece are dropped as soon as its numbers are made, and made again in the backward pass. So memory does
not grow with rows times tokens times vocabulary. The head is the model's own, soft caps and scales included; where only
log-probabilities and entropies are asked for it is TRL's fused one.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from llm_sra.objectives import exact_tether
from llm_sra.trainer.loss import missing_probability, restricted, token_statistics
from llm_sra.trainer.reading import States

PIECE = 2**22  # logits of a piece; some tensors of as many float32 live at once, 16 MiB each
TRL_TILE = 32768  # words that TRL's head takes at once


@dataclass(frozen=True)
class TokenStatistics:
    """What is known of tokens; 0 where there is none.

    Attributes:
        logprobs: (B, T), of the sampled tokens, in nats.
        entropies: (B, T), of the distributions that they were drawn from, in nats.
        missing: (B, T), -log P(choices) without restriction; None without choices.
        divergences: (B, T), KL(partner ‖ own) in nats; None without partner.
    """

    logprobs: torch.Tensor
    entropies: torch.Tensor
    missing: torch.Tensor | None = None
    divergences: torch.Tensor | None = None


def statistics_of(
    logits: torch.Tensor, ids: torch.Tensor, choices: torch.Tensor | None, theirs: torch.Tensor | None
) -> TokenStatistics:
    """Statistics of tokens from all logits that they were drawn by.

    Args:
        logits: (..., V), divided by the temperature.
        ids: (...), the tokens.
        choices: (C,) token ids, or (..., C), each token's own, if replies are chosen from some; None: the whole
            vocabulary. See `restricted`.
        theirs: (..., V), logits of a partner on the same tokens, to measure the divergence from it; None: it is not.
    """
    chosen = logits if choices is None else restricted(logits, choices)
    missing = None if choices is None else missing_probability(logits, chosen)
    logprobs, entropies = token_statistics(chosen, ids, choices)
    divergences = None
    if theirs is not None:
        divergences = exact_tether(theirs if choices is None else restricted(theirs, choices), chosen)
    return TokenStatistics(logprobs, entropies, missing, divergences)


class Head:
    """Applies a model's head, which has no adapters.

    Args:
        model: The base model; has TRL's fused head.
        temperature: Divides all logits.
        choices: (C,) token ids, if replies are chosen from some; (S, C), those of each seat, filled up with -1, if
            the seats' choices differ; None: the whole vocabulary.
        autocast: Context in which the model computes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        temperature: float,
        choices: torch.Tensor | None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model, self._temperature, self._choices, self._autocast = model, temperature, choices, autocast

    def statistics(
        self,
        states: States,
        ids: torch.Tensor,
        mask: torch.Tensor,
        partner: torch.Tensor | None = None,
        seats: torch.Tensor | None = None,
    ) -> TokenStatistics:
        """Statistics of tokens.

        Args:
            states: What they are predicted from.
            ids: (B, T), the tokens.
            mask: (B, T), 1 where there is a token.
            partner: (B, T, H), states of a partner on the same tokens, to measure the divergence from it.
            seats: (B,), number of the seat that each row is of, where the seats' choices differ.
        """
        there = mask.bool()
        places, labels = states.index[there], ids[there]
        others = None if partner is None else partner[there]
        whose = None if seats is None else seats[:, None].expand_as(ids)[there]
        back = None
        if states.shared and others is None:  # what is predicted from one state is projected once for each token
            size = self._model.config.get_text_config().vocab_size
            lists = 1 if self._choices is None or whose is None else len(self._choices)
            keys = (places * size + labels) * lists + (0 if whose is None else whose)
            keys, back = torch.unique(keys, return_inverse=True)
            places, labels, whose = (
                keys // (lists * size),
                keys // lists % size,
                whose if whose is None else keys % lists,
            )
        numbers = self._of(states.table.index_select(0, places), labels, others, whose)
        if back is not None:
            numbers = tuple(one if one is None else one[back] for one in numbers)
        full = (
            one
            if one is None
            else one.new_zeros(there.shape).masked_scatter(there, one)  # keeps an empty batch's graph
            for one in numbers
        )
        logprobs, entropies, missing, divergences = full
        assert logprobs is not None and entropies is not None
        return TokenStatistics(logprobs, entropies, missing, divergences)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, V) logits of (N, H) states, divided by the temperature."""
        with self._given(hidden), self._autocast():
            logits: torch.Tensor = self._model(input_ids=hidden.new_zeros(1, len(hidden), dtype=torch.long)).logits
        return logits[0] / self._temperature

    def _of(
        self, hidden: torch.Tensor, labels: torch.Tensor, partner: torch.Tensor | None, whose: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """Log-probabilities, entropies, what is missing and divergences, (N,) each."""
        words = self._model.get_output_embeddings().weight.size(0)
        if self._choices is None and partner is None:
            on_gpu = hidden.device.type != "cpu"  # there TRL's kernel holds one tile and nothing else
            size = len(hidden) if on_gpu else PIECE // min(words, TRL_TILE)
            pieces = [self._fused(*piece) for piece in _cut(max(size, 1), hidden, labels)]
        else:
            size = max(PIECE // words, 1)
            pieces = [self._again(*piece) for piece in _cut(size, hidden, labels, partner, whose)]
        return tuple(None if each[0] is None else torch.cat(each) for each in zip(*pieces, strict=True))

    def _fused(self, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with self._given(hidden), self._autocast():
            output = self._model(input_ids=labels[None], shift_labels=labels[None], fused_lm_head=True)
        return output.log_probs[0], output.entropy[0], None, None

    def _again(self, *piece: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """`_whole`, made again in the backward pass."""
        if not torch.is_grad_enabled():
            return self._whole(*piece)
        result: tuple[torch.Tensor | None, ...] = checkpoint(
            self._whole, *piece, use_reentrant=False, preserve_rng_state=False
        )
        return result

    def _whole(self, *piece: Any) -> tuple[torch.Tensor | None, ...]:
        hidden, labels, partner, whose = piece
        logits, theirs = self.logits(hidden), None
        if partner is not None:
            with torch.no_grad():
                theirs = self.logits(partner)
        choices = self._choices if self._choices is None or whose is None else self._choices[whose]
        found = statistics_of(logits, labels, choices, theirs)
        return found.logprobs, found.entropies, found.missing, found.divergences

    @contextmanager
    def _given(self, hidden: torch.Tensor) -> Iterator[None]:
        """Inside the block the model does not run its layers, but has these states (N, H) of one row."""
        backbone = self._model.base_model
        before = vars(backbone).get("forward")
        vars(backbone)["forward"] = lambda *args, **kwargs: MoeModelOutputWithPast(last_hidden_state=hidden[None])
        try:
            yield
        finally:
            del vars(backbone)["forward"]
            if before is not None:
                vars(backbone)["forward"] = before


def _cut(size: int, *tensors: torch.Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Tensors of N entries in pieces of at most `size`; one piece where N is 0."""
    count = max(len(one) for one in tensors if one is not None)
    for start in range(0, max(count, 1), size):
        yield tuple(None if one is None else one[start : start + size] for one in tensors)
