"""Several LoRA adapters in one batch: rows of different adapters go through each layer together.

PEFT's own mixed batches (`adapter_names`) loop over the adapters in every layer at every token. Here the matrices of
all adapters stand side by side, gathered once a batch: one product with every A, zeros in the columns of other
adapters, one product with every B, which holds the scaling. Zeros add nothing, so a row's result is that of its own
adapter. The copies are as large as the adapters, however many rows there are.

Only for inference, and only for plain LoRA on linear layers: `MixedAdapters.apart` names the others.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
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
        ranks: Rank of each adapter; 0 where this layer is not among its targets.
        down: (inputs, sum of ranks): every A.
        up: (sum of ranks, outputs): every B, times its scaling.
    """

    layer: Linear
    ranks: tuple[int, ...]
    down: torch.Tensor
    up: torch.Tensor


class MixedAdapters:
    """The adapters of a model as they can run together; the model is looked through once.

    Attributes:
        apart: The adapters that cannot share a batch. One can if all that it has is plain LoRA on linear layers: no
            DoRA or other variant, no biases, no embeddings, convolutions, stacks of experts (`target_parameters`) or
            quantised layers, no modules or tokens trained whole, and no part in another process.

    Args:
        model: With adapters on it.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model, self._configs = model, list(model.peft_config.values())
        self._tuned = [one for one in model.modules() if isinstance(one, (BaseTunerLayer, AuxiliaryTrainingWrapper))]
        self.apart = frozenset(name for name in model.peft_config if not self._can_share(name))

    def describes(self, model: PeftModel) -> bool:
        """Whether this is the model, with the adapters that it had."""
        now = list(model.peft_config.values())
        return model is self._model and len(now) == len(self._configs) and all(map(is_, now, self._configs))

    def gather(self, names: Sequence[str]) -> "GatheredAdapters":
        """Copy the present weights of adapters, none of which may be `apart`."""
        return GatheredAdapters(self._tuned, names)

    def _can_share(self, name: str) -> bool:
        return self._model.peft_config[name].bias == "none" and all(_shares(one, name) for one in self._tuned)


def _shares(module: Any, name: str) -> bool:
    """Whether a module has nothing of an adapter, or plain LoRA."""
    if isinstance(module, AuxiliaryTrainingWrapper):
        return name not in module._get_available_adapters()
    if not isinstance(module, LoraLayer):  # in a wrapper
        return True
    if name not in module.lora_A and name not in module.lora_embedding_A:
        return True
    if type(module) is not Linear or name in module.lora_variant or module.lora_bias[name]:
        return False
    weights = module.lora_A[name].weight, module.lora_B[name].weight
    return all(type(weight) is nn.Parameter and weight.numel() for weight in weights)


class GatheredAdapters:
    """The matrices of some adapters side by side; what their weights become later is not seen.

    Args:
        tuned: All modules of a model that have adapters.
        names: The adapters.
    """

    @torch.no_grad()
    def __init__(self, tuned: Sequence[nn.Module], names: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(names)}
        mine = [one for one in tuned if isinstance(one, Linear) and any(name in one.lora_A for name in names)]
        self._layers = [self._gather(layer) for layer in mine]
        self._others = [one for one in tuned if all(one is not layer for layer in mine)]

    def _gather(self, layer: Linear) -> _Gathered:
        mine = [name for name in self._places if name in layer.lora_A]
        down = torch.cat([layer.lora_A[name].weight for name in mine]).t()
        up = torch.cat([layer.lora_B[name].weight * layer.scaling[name] for name in mine], dim=1).t()
        ranks = tuple(layer.r[name] if name in mine else 0 for name in self._places)
        return _Gathered(layer, ranks, down, up)

    def _merged(self) -> bool:
        layers = [*self._others, *(one.layer for one in self._layers)]
        return any(isinstance(layer, LoraLayer) and layer.merged for layer in layers)

    @contextmanager
    def rows(self, names: Rows) -> Iterator[None]:
        """Inside the block, row i of every batch runs with adapter `names[i]`, or with the base alone for None.

        Which adapter the model has active makes no difference.

        Raises:
            CannotShareError: If an adapter holds numbers that are not finite, which would spoil the rows of others, or
                is merged into the base; or, inside the block, if a layer is not given (rows, tokens, inputs).
        """
        places = [-1 if name is None else self._places[name] for name in names]
        alone = len(self._places) == 1 and -1 not in places
        if not alone and not torch.isfinite(nn.utils.get_total_norm([one.up for one in self._layers])):
            raise CannotShareError("an adapter has weights that are not finite")
        if self._merged():
            raise CannotShareError("an adapter is merged into the base model: unmerge it")
        masks: dict[tuple[Any, ...], torch.Tensor] = {}
        with ExitStack() as stack:
            for one in self._layers:
                key = one.ranks, one.down.device
                if not alone and key not in masks:
                    masks[key] = _others(places, *key)
                stack.enter_context(_set(one.layer, "forward", _forward(one, masks.get(key))))
            for other in self._others:
                stack.enter_context(_set(other, "_disable_adapters", True))
            yield


@contextmanager
def _set(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """Give a module another attribute of its own inside the block."""
    own = vars(module)
    before = {name: own[name]} if name in own else {}
    own[name] = value
    try:
        yield
    finally:
        del own[name]
        own.update(before)


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
