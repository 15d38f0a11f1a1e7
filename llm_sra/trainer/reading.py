"""Hidden states of rows: a common beginning is read once, forward and backward, where the model allows it.

Which beginnings are common is decided in `prefix_plan`. Gradients flow through the keys and values of a beginning from
all rows that follow it, so log-probabilities and gradients are those of reading every row by itself, up to the order
in which floats are added.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from inspect import signature
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from llm_sra.trainer.loss import by_length, cheapest_order, chunks
from llm_sra.trainer.prefix_plan import PAYS, Costs, Ints, Level, Plan, plan
from llm_sra.trainer.rollout import Sample
from llm_sra.trainer.rows import Row

ATTENTION = ("sdpa", "eager")  # take a mask for each pair of tokens
ROTARY = ("default", "linear", "llama3", "yarn")  # do not depend on how long the longest row is


@dataclass(frozen=True)
class States:
    """Hidden states, each once.

    Attributes:
        table: (M, H), states of tokens; several places can have the same.
        index: (B, T), where in the table the state is that each place's token is predicted from.
        shared: Whether places can have the same state.
    """

    table: torch.Tensor
    index: torch.Tensor
    shared: bool

    def rows(self) -> torch.Tensor:
        """(B, T, H)."""
        return self.table[self.index]


class Reader:
    """Runs a model without its head over rows.

    Args:
        model: The base model, with the adapters in it; the active one is used.
        autocast: Context in which the model computes.
        share: Whether common beginnings may be read once.
    """

    def __init__(
        self, model: PreTrainedModel, autocast: Callable[[], AbstractContextManager[Any]], share: bool = True
    ) -> None:
        self._model, self._autocast, self._share = model, autocast, share
        self.costs = Costs(model.config.get_text_config().hidden_size)

    def states(self, ids: torch.Tensor, mask: torch.Tensor, width: int) -> States:
        """States that the last tokens of rows are predicted from.

        Args:
            ids: (B, L) tokens, each row's in neighbouring columns.
            mask: (B, L), 1 where there is a token.
            width: T, of how many last columns the states are wanted.
        """
        chosen = self._plan(ids, mask) if self.shares() else None
        if chosen is None:
            with self._autocast():
                output = self._model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
            hidden = output.last_hidden_state[:, -width - 1 : -1]
            index = torch.arange(ids.size(0) * width, device=ids.device).view(-1, width)
            return States(hidden.reshape(-1, hidden.size(-1)), index, shared=False)
        with self._autocast():
            table = self._read(chosen, mask.device)
        return States(table, torch.from_numpy(_places(chosen, mask, width)).to(table.device), shared=True)

    def shares(self) -> bool:
        """Whether common beginnings are read once now: see `_fits`; no dropout, no gradient checkpointing."""
        if not (self._share and self._fits):
            return False
        model = self._model
        return not (model.training and (model.is_gradient_checkpointing or self._drops_out))

    def order(self, samples: Sequence[Sample], size: int) -> list[Sample]:
        """Samples in the order in which micro-batches of `size` neighbours cost least to read; always the same one."""
        if not self.shares():
            return by_length(samples)
        return cheapest_order(samples, size, lambda rows: self._estimate(rows)[0])

    def batches(self, samples: Sequence[Sample], size: int) -> list[list[Sample]]:
        """Micro-batches in that order; always the same ones.

        Args:
            samples: In any order.
            size: How many rows a batch has. It has more if they share so much that they take no more memory than
                `size` rows by themselves, as long as the longest.
        """
        order = self.order(samples, size)
        if not order or not self.shares():
            return [list(batch) for batch in chunks(order, size)]
        return self._halved(order, size, size * _columns([sample.row for sample in order]))

    def _halved(self, order: list[Sample], size: int, room: float) -> list[list[Sample]]:
        """One batch if it has room; else its halves', whose limits are multiples of `size`."""
        if len(order) <= size or self._estimate([sample.row for sample in order])[1] <= room:
            return [order]
        middle = -(-len(order) // size) // 2 * size
        return self._halved(order[:middle], size, room) + self._halved(order[middle:], size, room)

    def _estimate(self, rows: Sequence[Row]) -> tuple[float, float]:
        """What a batch costs to read, in the units of `Costs`, and how many tokens take as much memory."""
        columns = _columns(rows)
        plain = self.costs.lines(len(rows), columns, 0)
        ids = [np.array([*row.prompt_ids, *row.completion_ids], dtype=np.int64) for row in rows]
        found = _planned(tuple(_read_of(one).tobytes() for one in ids), self.costs)
        return (found.cost, found.room) if found.cost < PAYS * plain else (plain, len(rows) * columns)

    def _plan(self, ids: torch.Tensor, mask: torch.Tensor) -> Plan | None:
        """How to read rows; None: each by itself."""
        tokens, there = ids.cpu().numpy(), mask.cpu().numpy().astype(bool)
        if not self._within_windows(int(there.sum(axis=1).max())) or not there.any(axis=1).all():
            return None
        found = _planned(
            tuple(_read_of(row[one]).tobytes() for row, one in zip(tokens, there, strict=True)), self.costs
        )
        return found if found.cost < PAYS * self.costs.lines(ids.size(0), ids.size(1), 0) else None

    def _read(self, chosen: Plan, device: torch.device) -> torch.Tensor:
        """(M, H) states of all columns of a plan's lines, in the order of their slots."""
        states: list[torch.Tensor] = []
        store: list[tuple[torch.Tensor, torch.Tensor]] = []  # by layer: keys and values (M, heads, size)
        for number, level in enumerate(chosen.levels):
            follows, last = level.known.shape[1], number + 1 == len(chosen.levels)
            cache = _cache(store, torch.from_numpy(level.known).to(device)) if follows or not last else None
            output = self._model.base_model(
                input_ids=torch.from_numpy(level.ids).to(device),
                position_ids=torch.from_numpy(level.positions).to(device),
                attention_mask=self._mask(level, device),
                past_key_values=cache,
                use_cache=cache is not None,
            )
            states.append(output.last_hidden_state.flatten(0, 1))
            if not last:
                assert cache is not None
                store = _extended(store, cache, follows)
        return torch.cat(states)

    def _mask(self, level: Level, device: torch.device) -> torch.Tensor:
        """(n, 1, q, k + q): true where a column sees another, or as numbers that are added to the attention."""
        segments, columns = torch.from_numpy(level.segments).to(device), level.ids.shape[1]
        within = (segments[:, :, None] == segments[:, None, :]) & (segments >= 0)[:, :, None]
        within = within.tril() | torch.eye(columns, dtype=torch.bool, device=device)  # none sees nothing: that is NaN
        known = torch.from_numpy(level.known >= 0).to(device)[:, None, :].expand(-1, columns, -1)
        sees = torch.cat([known, within], dim=-1)[:, None]
        if self._model.config.get_text_config()._attn_implementation == "sdpa":
            return sees
        numbers = torch.zeros(sees.shape, dtype=self._model.dtype, device=device)
        return numbers.masked_fill(~sees, torch.finfo(numbers.dtype).min)

    @cached_property
    def _fits(self) -> bool:
        """Whether the model's layers keep keys and values of all tokens, by rotary positions, under any mask."""
        model, config = self._model, self._model.config.get_text_config()
        if not type(model).__module__.startswith("transformers.models."):
            return False
        layers = {type(layer) for layer in DynamicCache(config=config).layers}
        kinds = set(getattr(config, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}
        whole = bool(layers) and layers <= {DynamicLayer, DynamicSlidingWindowLayer} and kinds
        takes = signature(model.base_model.forward).parameters
        takes_all = {"position_ids", "past_key_values", "attention_mask"} <= set(takes)
        return whole and takes_all and _rotary(config) and config._attn_implementation in ATTENTION

    def _within_windows(self, longest: int) -> bool:
        """Whether a row of so many tokens fits into the windows of the model's attention."""
        config = self._model.config.get_text_config()
        layers = DynamicCache(config=config).layers
        windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
        return longest <= min(windows, default=longest)

    @cached_property
    def _drops_out(self) -> bool:
        dropouts = (one for one in self._model.modules() if isinstance(one, torch.nn.modules.dropout._DropoutNd))
        attention = getattr(self._model.config.get_text_config(), "attention_dropout", 0.0)
        return bool(attention) or any(one.p > 0 for one in dropouts)


@lru_cache(maxsize=64)
def _planned(rows: tuple[bytes, ...], costs: Costs) -> Plan:
    """The plan for rows; several passes read the same ones."""
    return plan([np.frombuffer(row, dtype=np.int64) for row in rows], costs)


def _columns(rows: Sequence[Row]) -> int:
    """Of a batch as `collate` makes it."""
    return max(len(row.prompt_ids) for row in rows) + max(len(row.completion_ids) for row in rows)


def _read_of(row: Ints) -> Ints:
    """What is read of a row: nothing is predicted from its last token."""
    return row[: max(len(row) - 1, 1)]


def _places(chosen: Plan, mask: torch.Tensor, width: int) -> Ints:
    """(B, width): for each of the last columns, the slot of the token before it."""
    columns = mask.size(1)
    starts = mask.cpu().numpy().astype(bool).argmax(axis=1)
    before = np.arange(columns - width, columns) - 1
    return np.stack(
        [slots[np.clip(before - start, 0, len(slots) - 1)] for slots, start in zip(chosen.slots, starts, strict=True)]
    )


def _cache(store: Sequence[tuple[torch.Tensor, torch.Tensor]], known: torch.Tensor) -> DynamicCache:
    """A cache whose lines follow the tokens in some slots; what stands in a slot of -1 does not matter."""
    cache = DynamicCache()
    if known.size(1):
        flat = known.clamp(min=0).flatten()
        for keys, values in store:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = (
                one.index_select(0, flat).view(*known.shape, *one.shape[1:]).transpose(1, 2) for one in (keys, values)
            )
            cache.layers.append(layer)
    return cache


def _extended(
    store: Sequence[tuple[torch.Tensor, torch.Tensor]], cache: DynamicCache, known: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The store with the columns that a pass added behind those that it knew."""
    new = [
        tuple(one[:, :, known:].transpose(1, 2).flatten(0, 1) for one in (layer.keys, layer.values))
        for layer in cache.layers
    ]
    if not store:
        return [(keys, values) for keys, values in new]
    return [
        (torch.cat([old_keys, keys]), torch.cat([old_values, values]))
        for (old_keys, old_values), (keys, values) in zip(store, new, strict=True)
    ]


def _rotary(config: Any) -> bool:
    """Whether positions are rotary, and rotate by the position alone."""
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        return False
    kinds = parameters.values() if "rope_type" not in parameters else [parameters]
    return all(isinstance(one, dict) and one.get("rope_type") in ROTARY for one in kinds)
