"""Prompts are read before replies are drawn: each but once for each adapter, and nothing that was read before.

What is kept from turn to turn, and how a batch's columns are laid out, is in `prefixes`. Replies are drawn elsewhere.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, DynamicCache

from llm_sra.engines.base import Completion, Request
from llm_sra.engines.prefixes import Layout, Owner, Prefixes, keeps_all, last_turn, states_of
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.mixed_adapters import Rows

LEAST_EARLIER = 32  # tokens of earlier turns, half of a prompt at least, that are read by themselves
PREFIX_BYTES = 2**30  # of keys and values that are kept from turn to turn

Prompt = tuple[str | None, tuple[int, ...]]  # an adapter, and what it is asked
Runs = Callable[[Rows], AbstractContextManager[None]]  # inside the block, each row runs with its adapter


@dataclass(frozen=True)
class ReadPrompts:
    """The prompts of a batch, and what a model made of them.

    Attributes:
        layout: Of the P different prompts.
        ids: (P, width) their tokens.
        mask: (P, width), 1 where there is a token.
        rows: Of each request, which prompt it has.
        cache: Their keys and values; None: nothing was read.
        logits: (P, V) of the first tokens of replies; None as well.
    """

    layout: Layout
    ids: torch.Tensor
    mask: torch.Tensor
    rows: list[int]
    cache: Cache | None = None
    logits: torch.Tensor | None = None


class PromptReader:
    """Reads prompts with a bank's model, and keeps keys and values for prompts that begin alike.

    Models that cannot go on from any keys and values read nothing here.

    Args:
        bank: The model and its adapters.
        end_of_turn: Token that ends a turn in prompts, if there is one.
    """

    def __init__(self, bank: AdapterBank, end_of_turn: int | None) -> None:
        self.end_of_turn = end_of_turn
        self._bank = bank
        self._prefixes = Prefixes(PREFIX_BYTES) if keeps_all(bank.base) else None

    def forget(self) -> None:
        """Drop all that is kept."""
        if self._prefixes is not None:
            self._prefixes.clear()

    def read(self, requests: Sequence[Request], pad: int, running: Runs) -> ReadPrompts:
        """Read all prompts: each but once, and not what was read before. Without a cache nothing is read yet.

        Args:
            requests: B of them.
            pad: Token that fills rows up.
            running: Runs rows with their adapters.
        """
        if self._prefixes is None:
            layout = Layout.of([one.prompt_ids for one in requests], [0] * len(requests))
            return ReadPrompts(layout, *layout.tensors(pad, self._bank.model.device), list(range(len(requests))))
        places = {key: i for i, key in enumerate(dict.fromkeys((r.adapter, r.prompt_ids) for r in requests))}
        prompts = [ids for _, ids in places]
        states = self._known(list(places), pad, running)
        layout = _laid_out(prompts, states)
        cache = layout.cache(states, layout.width + requests[0].max_tokens) or DynamicCache()
        ids, mask = layout.tensors(pad, self._bank.model.device)
        last = layout.width - 1  # by itself: a prompt that is known but for it has the same logits to the last bit
        with running([adapter for adapter, _ in places]):
            self._run(self._bank.base.base_model, ids, mask, slice(layout.old, last), cache)
            output = self._run(self._bank.base, ids, mask, slice(last, layout.width), cache)
        rows = [places[request.adapter, request.prompt_ids] for request in requests]
        return ReadPrompts(layout, ids, mask, rows, cache, output.logits[:, -1])

    def keep(self, request: Request, done: Completion, layout: Layout, prompt: int, cache: Cache, place: int) -> None:
        """Remember what was read of a prompt and said, for the next turn; without a cache of one's own never called.

        Args:
            request: What was asked.
            done: What was said.
            layout: Of the prompts.
            prompt: Which of them it was.
            cache: What was read, the reply's tokens included.
            place: The row of the cache.
        """
        assert self._prefixes is not None
        read = cache.get_seq_length() - layout.width  # of the reply: the last token was never an input
        said, owner = done.token_ids[:read], self._owner(request.adapter)
        if (owner, request.prompt_ids + said) not in self._prefixes:  # else: equal prompts, the same word
            known, rest = layout.spans(prompt)
            states = states_of(cache, place, [known, slice(rest.start, rest.stop + len(said))])
            self._prefixes.keep(owner, request.prompt_ids + said, states)

    def _known(self, asked: Sequence[Prompt], pad: int, running: Runs) -> list[torch.Tensor | None]:
        """What is known of adapters' prompts, after the turns before their last one were read: each but once.

        Prompts often differ in their last turn alone. Where it begins is seen in each prompt by itself, so that a
        prompt is read in the same passes whatever else is asked.
        """
        assert self._prefixes is not None
        states = [self._prefixes.find(self._owner(adapter), ids[:-1]) for adapter, ids in asked]
        earlier = [(adapter, ids[: last_turn(ids, self.end_of_turn)]) for adapter, ids in asked]
        late = [
            len(before) >= max(_length(known) + LEAST_EARLIER, len(ids) / 2)
            for (_, before), known, (_, ids) in zip(earlier, states, asked, strict=True)
        ]
        unread = {key: known for key, one, known in zip(earlier, late, states, strict=True) if one}
        if not unread:
            return states
        found = list(unread.values())  # of each no more than a part, which all prompts that begin so have in common
        layout = _laid_out([ids for _, ids in unread], found)
        cache = layout.cache(found, layout.width) or DynamicCache()
        ids, mask = layout.tensors(pad, self._bank.model.device)
        with running([adapter for adapter, _ in unread]):
            self._run(self._bank.base.base_model, ids, mask, slice(layout.old, layout.width), cache)
        read = {key: states_of(cache, place, layout.spans(place)) for place, key in enumerate(unread)}
        return [read[key] if one else known for key, one, known in zip(earlier, late, states, strict=True)]

    def _run(self, model: Any, ids: torch.Tensor, mask: torch.Tensor, columns: slice, cache: Cache) -> Any:
        """Read some columns behind those in a cache; None if there are none."""
        if columns.stop <= columns.start:
            return None
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        return model(
            input_ids=ids[:, columns],
            attention_mask=mask[:, : columns.stop],
            position_ids=positions[:, columns],
            past_key_values=cache,
            use_cache=True,
        )

    def _owner(self, adapter: str | None) -> Owner:
        return ("", 0) if adapter is None else (adapter, self._bank.revision(adapter))


def _length(states: torch.Tensor | None) -> int:
    """Of how many tokens these are the keys and values."""
    return 0 if states is None else states.shape[3]


def _laid_out(prompts: Sequence[tuple[int, ...]], states: list[torch.Tensor | None]) -> Layout:
    """Prompts beside what is known of them, which is left out where some row knows too little for others to gain."""
    layout = Layout.of(prompts, [_length(one) for one in states])
    return layout if 2 * layout.new <= max(map(len, prompts)) else Layout.of(prompts, [0] * len(prompts))
