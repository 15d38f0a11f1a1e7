"""Forward passes over rows: log-probabilities, entropies and divergences of completions.

TRL asks its trainer for log-probabilities through one method; that method delegates to `Forward.statistics`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from llm_sra.models.adapters import AdapterBank
from llm_sra.models.renderer import Renderer
from llm_sra.task import Task
from llm_sra.trainer.head import Head, TokenStatistics, statistics_of
from llm_sra.trainer.reading import Reader
from llm_sra.trainer.rollout import Sample
from llm_sra.trainer.rows import joined


class Forward:
    """Forward passes of a bank's adapters.

    Args:
        bank: The adapters.
        temperature: Divides all logits.
        choices: (C,) token ids, if the task's replies are chosen from some; (S, C), those of each of `seats`, filled up
            with -1, if these differ; None: the whole vocabulary.
        autocast: Context in which the model computes.
        reader: Gives the hidden states of rows.
        seats: The seats whose policies live on the model.
    """

    def __init__(
        self,
        bank: AdapterBank,
        temperature: float,
        choices: torch.Tensor | None,
        autocast: Callable[[], AbstractContextManager[Any]],
        reader: Reader,
        seats: Sequence[str] = (),
    ) -> None:
        self.bank, self.reader = bank, reader
        self.latest: TokenStatistics | None = None  # of the latest pass
        self._temperature, self._choices, self._autocast = temperature, choices, autocast
        self._head = Head(bank.base, temperature, choices, autocast)
        self._partner: torch.Tensor | None = None
        self._numbers = {seat: number for number, seat in enumerate(seats)}
        self._seats: torch.Tensor | None = None  # (B,), numbers of the rows' seats, where the seats' choices differ
        self._said: torch.Tensor | None = None  # (B, T), whether a token was said, not read; None: all were

    def statistics(
        self, model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Log-probabilities and entropies of the last `width` tokens, in the form of TRL's method.

        Inside `reading` only of those that were said: what a seat reads between its replies goes through no head. All
        that was found is kept in `latest`: the entropy bonus and other terms of the loss are made of it.

        Args:
            model: Under the active adapter: the bank's, or one that wraps it and has to be called as a whole.
            input_ids: (B, P + T).
            attention_mask: (B, P + T).
            width: T.
        """
        ids, mask = input_ids[:, -width:], attention_mask[:, -width:]
        if model is self.bank.model:
            states = self.reader.states(input_ids, attention_mask, width)
            said = mask if self._said is None else mask * self._said[:, :width]
            self.latest = self._head.statistics(states, ids, said, self._partner, self._seats)
        else:
            self.latest = self._wrapped(model, input_ids, attention_mask, width)
        return self.latest.logprobs, self.latest.entropies, None

    def _wrapped(
        self, model: torch.nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, width: int
    ) -> TokenStatistics:
        """Statistics from all logits at once: only the wrapper can gather the weights, the head's among them."""
        with self._autocast():
            output = model(input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=width + 1)
        logits: torch.Tensor = output.logits[:, :-1] / self._temperature
        theirs = None
        if self._partner is not None:
            with torch.no_grad():
                theirs = self._head.logits(self._partner.flatten(0, 1)).view(logits.shape)
        choices = self._choices
        if choices is not None and self._seats is not None:
            choices = choices[self._seats][:, None].expand(-1, width, -1)
        return statistics_of(logits, input_ids[:, -width:], choices, theirs)

    @torch.no_grad()
    def partner_states(self, batch: Sequence[Sample], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, T, H) hidden states of the live partner that each row is tethered to."""
        found: torch.Tensor | None = None
        for tether in sorted({sample.tether for sample in batch if sample.tether} or {next(iter(self.bank.names))}):
            with self.bank.using(tether):
                these = self.reader.states(*joined(inputs)).rows()
            rows = torch.tensor([sample.tether == tether for sample in batch], device=these.device)
            found = these if found is None else torch.where(rows[:, None, None], these, found)
        assert found is not None
        return found

    @contextmanager
    def reading(self, batch: Sequence[Sample], partner: torch.Tensor | None = None) -> Iterator[None]:
        """Inside the block, passes are of these rows.

        Args:
            batch: B of them.
            partner: (B, T, H), states of a partner that the divergence is measured from; None: it is not.
        """
        self._partner = partner
        least = torch.zeros(2, dtype=torch.bool)  # columns of `collate`
        said = pad_sequence([*(sample.row.said for sample in batch), least], batch_first=True)[:-1]
        self._said = said.to(self.bank.model.device)
        if self._choices is not None and self._choices.dim() == 2:
            numbers = [self._numbers.get(sample.row.seat, 0) for sample in batch]  # rows that fill up have no seat
            self._seats = torch.tensor(numbers, device=self._choices.device)
        try:
            yield
        finally:
            self._partner = self._seats = self._said = None


def choice_ids(task: Task, seats: Sequence[str], renderer: Renderer, device: torch.device) -> torch.Tensor | None:
    """Token ids of a task's choices, None without any.

    Args:
        task: Has the choices.
        seats: Those whose policies live on the renderer's model.
        renderer: Has the tokenizer.
        device: Of the ids.

    Returns:
        (C,) if all seats of the task have the same, else (S, C), those of each of `seats`, filled up with -1.

    Raises:
        ValueError: If a word is not one token.
    """
    lists = [torch.tensor(renderer.single_tokens(task.choices_of(seat)), device=device) for seat in seats]
    if not isinstance(task.choices, Mapping):
        return lists[0] if len(lists[0]) else None
    return pad_sequence(lists, batch_first=True, padding_value=-1)


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block, and back into its own mode after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
