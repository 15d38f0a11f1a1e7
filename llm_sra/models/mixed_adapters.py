"""Several LoRA adapters in one batch: rows of different adapters go through each layer together.

PEFT's own mixed batches (`adapter_names`) loop over the adapters in every layer at every token. Here the matrices of
all adapters stand side by side, gathered once a batch: one product with every A, zeros in the columns of other
adapters, one product with every B, which holds the scaling. Zeros add nothing, so a row's result is that of its own
adapter. The copies are as large as the adapters, however many rows there are.

Only for inference, and only for plain LoRA on linear layers: `can_share` says which adapters these are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear, LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

Rows = Sequence[str | None]


class CannotShareError(RuntimeError):
    """Adapters cannot run in one batch: play each of them in a batch of its own."""


@dataclass(frozen=True)
class _Gathered:
    """What one layer has of the adapters.

    Attributes:
        layer: Computes the base's output.
        ranks: Of each adapter; 0 where this layer is not among its targets.
        down: (inputs, sum of ranks): every A.
        up: (sum of ranks, outputs): every B, times its scaling.
    """

    layer: Linear
    ranks: tuple[int, ...]
    down: torch.Tensor
    up: torch.Tensor


def can_share(model: PeftModel, name: str) -> bool:
    """Whether an adapter can run in one batch with others.

    It can if all that it has is plain LoRA on linear layers: no DoRA or other variant, no biases, no embeddings,
    convolutions, stacks of experts (`target_parameters`) or quantised layers, no modules or tokens trained whole.

    Args:
        model: With the adapter on it.
        name: Of the adapter.
    """
    if model.peft_config[name].bias != "none":
        return False
    for module in model.modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            if name in module._get_available_adapters():
                return False
        elif isinstance(module, LoraLayer) and (name in module.lora_A or name in module.lora_embedding_A):
            if type(module) is not Linear or module.merged or name in module.lora_variant or module.lora_bias[name]:
                return False
            parts = module.lora_A[name].weight, module.lora_B[name].weight
            if any(type(part.data) is not torch.Tensor or not part.numel() for part in parts):
                return False  # another process has parts of it
    return True


class MixedAdapters:
    """The gathered matrices of some adapters on a model; weights that change later are not seen.

    Args:
        model: With the adapters on it.
        names: Of the adapters; `can_share` must hold for all of them.
    """

    @torch.no_grad()
    def __init__(self, model: PeftModel, names: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        layers = [module for module in model.modules() if isinstance(module, Linear)]
        self._layers = [one for layer in layers if (one := self._gather(layer))]

    def _gather(self, layer: Linear) -> _Gathered | None:
        mine = [name for name in self._places if name in layer.lora_A]
        if not mine:
            return None
        down = torch.cat([layer.lora_A[name].weight for name in mine]).t()
        up = torch.cat([layer.lora_B[name].weight * layer.scaling[name] for name in mine], dim=1).t()
        ranks = tuple(layer.r[name] if name in mine else 0 for name in self._places)
        return _Gathered(layer, ranks, down, up)

    @contextmanager
    def rows(self, names: Rows) -> Iterator[None]:
        """Inside the block, row i of every batch runs with adapter `names[i]`, or with the base alone for None.

        The model's own adapters must be off (`AdapterBank.using(None)`), as what is not gathered here runs as it is.

        Raises:
            CannotShareError: If the matrices of one adapter hold numbers that are not finite and would spoil the rows
                of others; or, inside the block, if a layer is not given (rows, tokens, inputs).
        """
        places = [-1 if name is None else self._places[name] for name in names]
        alone = len(self._places) == 1 and -1 not in places
        if not alone and not torch.isfinite(nn.utils.get_total_norm([one.up for one in self._layers])):
            raise CannotShareError("an adapter has weights that are not finite")
        masks: dict[tuple[Any, ...], torch.Tensor] = {}
        before = [one.layer.__dict__.get("forward") for one in self._layers]
        try:
            for one in self._layers:
                key = one.ranks, one.down.device
                if not alone and key not in masks:
                    masks[key] = _others(places, *key)
                one.layer.forward = _forward(one, masks.get(key))
            yield
        finally:
            for one, forward in zip(self._layers, before, strict=True):
                if forward is None:
                    one.layer.__dict__.pop("forward", None)
                else:
                    one.layer.forward = forward


def _others(places: Sequence[int], ranks: Sequence[int], device: torch.device) -> torch.Tensor:
    """(rows, 1, sum of ranks): true in the columns that are not of the row's own adapter."""
    owners = torch.arange(len(ranks)).repeat_interleave(torch.tensor(ranks))
    return (torch.tensor(places)[:, None, None] != owners).to(device)


def _forward(one: _Gathered, others: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    """The forward pass of a layer; without `others`, all rows are of one adapter."""

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result: torch.Tensor = one.layer.base_layer(x, *args, **kwargs)
        flat = x.reshape(-1, one.down.size(0))
        inner = torch.mm(flat if flat.dtype == one.down.dtype else flat.to(one.down.dtype), one.down)
        if others is not None:
            if x.dim() != 3 or x.size(0) != others.size(0):
                raise CannotShareError(
                    f"a layer was given {tuple(x.shape)}, expected ({others.size(0)}, tokens, {x.size(-1)}): it cannot "
                    "be seen whose row is whose"
                )
            inner.view(x.size(0), -1, inner.size(1)).masked_fill_(others, 0)
        wide = result.reshape(-1, one.up.size(1))
        if wide.dtype == inner.dtype == one.up.dtype:
            return torch.addmm(wide, inner, one.up).view(result.shape)
        return (wide + torch.mm(inner, one.up)).to(result.dtype).view(result.shape)

    return forward
