"""Computes the language-model head at positions with a label only.

TRL computes log-probabilities and entropies by its fused head, which never holds a whole batch's logits. Without Triton
it projects every position of every row, prompts and padding too, and then drops those without a label. With a
vocabulary of 150,000 that is much of a small model's work. Here these positions are dropped before the projection;
numbers and gradients are the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel


@contextmanager
def head_on_labels_only(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block, `model(..., labels=labels, fused_lm_head=True)` projects the positions that have a label.

    Args:
        model: Has TRL's fused head. Its answers keep their shapes: 0 where there is no label.
    """
    mask = torch.zeros(0, dtype=torch.bool)  # (B, L - 1), of this call

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal mask
        labels = kwargs.pop("labels")[:, 1:]
        mask = labels != -100
        return args, {**kwargs, "shift_labels": labels[mask][None]}

    def cut(module: Any, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, :-1][mask][None]
        return output

    def after(module: Any, args: Any, output: Any) -> Any:
        for name in ("log_probs", "entropy"):
            values = output[name]
            setattr(output, name, values.new_zeros(mask.shape).masked_scatter(mask, values))
        return output

    hooks = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.base_model.register_forward_hook(cut),
        model.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
