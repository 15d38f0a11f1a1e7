"""A cache of keys and values of earlier tokens, for prompts that begin with them.

A seat's next prompt mostly begins with its last prompt and reply, and the episodes of a group begin with one prompt.
The states of each row are kept by themselves, without padding, so that any later batch can begin with them.

This module runs no model and knows no weights: entries are stored under an owner that the caller names.
"""

import inspect
from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

Owner = tuple[str, int]  # an adapter, and the revision of its weights
Key = tuple[Owner, tuple[int, ...]]


class Prefixes:
    """Cached keys and values, by owner and tokens.

    Args:
        limit: Most bytes to keep; the oldest entries go first.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: dict[Key, torch.Tensor] = {}
        self._sorted: list[Key] = []

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def clear(self) -> None:
        """Forget everything."""
        self._kept, self._sorted, self._bytes = {}, [], 0

    def find(self, owner: Owner, ids: tuple[int, ...]) -> torch.Tensor | None:
        """(layers, 2, heads, T, size): keys and values of the longest beginning of `ids` that is known, T tokens."""
        place = bisect(self._sorted, (owner, ids))
        near = [key for key in self._sorted[max(place - 1, 0) : place + 1] if key[0] == owner]
        # In sorted order, what has the longest beginning in common with it stands beside it.
        best, length = None, 0
        for key in near:
            shared = next((i for i, (a, b) in enumerate(zip(key[1], ids, strict=False)) if a != b), None)
            shared = min(len(key[1]), len(ids)) if shared is None else shared
            if shared > length:
                best, length = key, shared
        return None if best is None else self._kept[best][:, :, :, :length]

    def keep(self, owner: Owner, ids: tuple[int, ...], states: torch.Tensor) -> None:
        """Keep (layers, 2, heads, len(ids), size) keys and values of some tokens, read from the beginning."""
        key = owner, ids
        if key in self._kept:
            return
        self._kept[key] = states
        insort(self._sorted, key)
        self._bytes += states.nbytes
        while self._bytes > self._limit:
            oldest = next(iter(self._kept))
            self._bytes -= self._kept.pop(oldest).nbytes
            self._sorted.remove(oldest)


@dataclass(frozen=True)
class Layout:
    """The columns of a batch of prompts: `[padding, known tokens | padding, tokens to read | last token]`.

    Attributes:
        prompts: B of them.
        known: How many tokens of each prompt are known; fewer than the prompt has.
        old: Columns of known tokens.
        new: Columns of tokens to read, without the last.
    """

    prompts: Sequence[tuple[int, ...]]
    known: Sequence[int]
    old: int
    new: int

    @classmethod
    def of(cls, prompts: Sequence[tuple[int, ...]], known: Sequence[int]) -> "Layout":
        """Lay out prompts of which so many tokens are known."""
        rest = [len(ids) - 1 - count for ids, count in zip(prompts, known, strict=True)]
        return cls(prompts, known, max(known), max(rest))

    @property
    def width(self) -> int:
        """Columns in all."""
        return self.old + self.new + 1

    def spans(self, row: int) -> tuple[slice, slice]:
        """The columns of a row's known tokens, and those of all others."""
        known, end = self.known[row], self.old + self.new
        return slice(self.old - known, self.old), slice(end - (len(self.prompts[row]) - 1 - known), end + 1)

    def tensors(self, pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, width) token ids, and the mask of those that are no padding."""
        ids = np.full((len(self.prompts), self.width), pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(self.prompts):
            known, rest = self.spans(row)
            ids[row, known], ids[row, rest] = prompt[: self.known[row]], prompt[self.known[row] :]
            mask[row, known] = mask[row, rest] = 1
        return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)

    def cache(self, states: Sequence[torch.Tensor | None], room: int) -> Cache | None:
        """A cache that holds what is known; None if that is nothing.

        Args:
            states: Of each row, as `Prefixes.find` gives them.
            room: Columns that it has in all.
        """
        first = next((one for one in states if one is not None), None)
        if first is None or not self.old:
            return None
        layers, _, heads, _, size = first.shape
        whole = first.new_zeros(layers, 2, len(states), heads, room, size)
        for row, one in enumerate(states):
            if one is not None and self.known[row]:
                whole[:, :, row, :, self.spans(row)[0]] = one
        cache = DynamicCache()
        cache.layers = [_Roomy(layer.unbind(), self.old) for layer in whole]
        return cache


class _Roomy(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values with room for more tokens: adding a token copies that token alone.

    Args:
        whole: Keys and values, (B, heads, room, size) each.
        columns: How many of the columns hold tokens.
    """

    def __init__(self, whole: Sequence[torch.Tensor], columns: int) -> None:
        super().__init__()
        self.lazy_initialization(*whole)
        self._whole = whole
        self.keys, self.values = (one[:, :, :columns] for one in whole)

    @classmethod
    def of(cls, layer: DynamicLayer, room: int) -> "_Roomy":
        """A layer with so many columns; itself where it has them."""
        if isinstance(layer, cls) and layer._whole[0].size(2) == room:
            return layer
        whole = [one.new_empty(*one.shape[:2], room, one.shape[3]) for one in (layer.keys, layer.values)]
        roomy = cls(whole, 0)
        roomy.update(layer.keys, layer.values)
        return roomy

    def rows(self, index: torch.Tensor) -> "_Roomy":
        """A layer that has these rows."""
        return _Roomy([one.index_select(0, index) for one in self._whole], self.keys.size(2))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new ones behind the others; returns views of all."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        for whole, states in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, start:end] = states
        self.keys, self.values = (whole[:, :, :end] for whole in self._whole)
        return self.keys, self.values


def keeps_all(model: PreTrainedModel) -> bool:
    """Whether a model can continue from any keys and values: it has no sliding windows and takes positions."""
    layers = DynamicCache(config=model.config).layers
    takes = inspect.signature(model.forward).parameters
    whole = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return whole and "position_ids" in takes and "logits_to_keep" in takes


def last_turn(ids: tuple[int, ...], end: int | None) -> int:
    """Where the last turn of a prompt begins: behind the last but one of the tokens that end a turn; 0 without."""
    places = [place for place, token in enumerate(ids) if token == end]
    return places[-2] + 1 if len(places) > 1 else 0


def repeated(cache: Cache, rows: Sequence[int], room: int) -> Cache:
    """A cache of so many columns whose rows are those of another; where it has them already, they are not copied."""
    layers = [_Roomy.of(layer, room) for layer in cache.layers]
    if list(rows) != list(range(len(layers[0].keys))):
        index = torch.tensor(rows, device=layers[0].keys.device)
        layers = [layer.rows(index) for layer in layers]
    wider = DynamicCache()
    wider.layers = layers
    return wider


def states_of(cache: Cache, row: int, columns: Sequence[slice]) -> torch.Tensor:
    """(layers, 2, heads, T, size): a copy of some columns of a row."""
    parts = [
        torch.cat([one[row, :, span] for span in columns], dim=1)
        for layer in cache.layers
        for one in (layer.keys, layer.values)
    ]
    stacked = torch.stack(parts)
    return stacked.view(len(cache.layers), 2, *stacked.shape[1:])
