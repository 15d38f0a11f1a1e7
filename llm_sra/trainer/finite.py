"""Says where a number that is NaN or infinite arose: in weights, in what a rollout was credited, or in a loss.

Nothing is replaced. That a gradient is finite is looked at in each update; only if it is not is the rest searched.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch

from llm_sra.errors import NumberError
from llm_sra.trainer.rollout import Sample

CREDITED = ("advantages", "nats", "values", "old_logprobs", "ref_logprobs", "importance")
WORDS = {
    "nats": "log-probability ratios to its partner",
    "old_logprobs": "log-probabilities before the update",
    "ref_logprobs": "log-probabilities of the base model",
    "importance": "importance ratios",
}
SMALLER = "Lower learning_rate or max_grad_norm, or train in float32"


def check_weights(names: Iterable[str], parameters: Mapping[str, Sequence[torch.nn.Parameter]]) -> None:
    """Check that an optimizer step left weights finite.

    Args:
        names: Adapters and critics that were updated.
        parameters: Parameters of each of them.

    Raises:
        NumberError: Names the one whose weights are not.
    """
    names = list(names)
    norms = [torch.nn.utils.get_total_norm([p.detach() for p in parameters[name]]) for name in names]
    if norms and not torch.stack(norms).isfinite().all():
        name = next(name for name, norm in zip(names, norms, strict=True) if not norm.isfinite())
        raise NumberError(f"an update made the weights of adapter {name!r} NaN or infinite. {SMALLER}")


def gradient_error(
    name: str,
    norm: float,
    parameters: Sequence[torch.nn.Parameter],
    samples: Sequence[Sample],
    parts: Mapping[str, torch.Tensor],
    base: Iterable[tuple[str, torch.nn.Parameter]],
) -> NumberError:
    """The error for a gradient that is not finite.

    Args:
        name: Name of the adapter or critic.
        norm: Norm of its gradient.
        parameters: Its weights.
        samples: What it was trained on.
        parts: By name, the sum of each part of its loss.
        base: The base model's weights, by name.
    """
    cause, advice = _cause(parameters, samples, parts, base)
    return NumberError(
        f"the gradient of adapter {name!r} is {norm}: {cause}. No weights were updated with it. {advice}"
    )


def _cause(
    parameters: Sequence[torch.nn.Parameter],
    samples: Sequence[Sample],
    parts: Mapping[str, torch.Tensor],
    base: Iterable[tuple[str, torch.nn.Parameter]],
) -> tuple[str, str]:
    """Where it arose, the earliest place first, and what to do."""
    if not all(parameter.isfinite().all() for parameter in parameters):
        return "its weights hold NaN or infinity", "Resume from an earlier checkpoint"
    if bad := next((weight for weight, parameter in base if not parameter.isfinite().all()), None):
        return (
            f"the base model's weights hold NaN or infinity, first in {bad}",
            "Load the model anew, or in another dtype",
        )
    for what in CREDITED:
        rows = [tensor for sample in samples if (tensor := getattr(sample, what)) is not None]
        wrong = sum(not tensor.isfinite().all() for tensor in rows)
        if wrong:
            advice = "Scale down what the task pays" if what == "advantages" else SMALLER
            return f"the {WORDS.get(what, what)} of {wrong} of its {len(rows)} rows are not finite", advice
    if wrong_parts := {part: value.item() for part, value in parts.items() if not value.isfinite()}:
        return ", ".join(f"{part} is {value}" for part, value in wrong_parts.items()), SMALLER
    finite = ", ".join(f"{part} {value.item():.3g}" for part, value in parts.items())
    return f"all parts of its loss are finite on this process ({finite}), so the backward pass overflowed", SMALLER


def is_finite(number: object) -> bool:
    """Whether a value can be written as JSON: it is a finite number, or no float at all."""
    return not isinstance(number, float) or math.isfinite(number)
