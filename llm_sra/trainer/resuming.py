"""What a resumed training takes from its checkpoint, and what from its configuration.

Rates, weight decay and the like come from the configuration: the optimizer's saved state would silently restore the
earlier ones. Options that cannot take effect in a resumed training may not change.
"""

import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from llm_sra.untrusted import one_line

# Each has its mark in what a checkpoint holds.
FIXED = ("optim", "arm", "population", "sharing", "lora_r", "lora_alpha", "use_rslora", "use_dora", "initial_adapter")
CONTROLLER = ("tau", "tau_schedule")  # fixed where a controller has moved τ on from its start


# All that torch makes of bytes that are no state, and of a state of something else.
_UNREADABLE = (
    EOFError, pickle.UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError
)  # fmt: skip


class ResumeError(ValueError):
    """An option cannot take effect in a resumed training."""


def check_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that the options that changed can take effect.

    Args:
        before: The arguments in the run's `config.yaml`.
        now: Those of the resumed training.

    Raises:
        ResumeError: If one cannot; names it, and both values.
    """
    controlled = "target_kl" in (before.get("tau_schedule"), now.get("tau_schedule"))
    for name in (*FIXED, *(CONTROLLER if controlled else ())):
        if name not in before or name not in now:
            continue
        old, new = (str(getattr(value, "value", value)) for value in (before[name], now[name]))
        if old != new and before[name] != now[name]:  # earlier versions kept 10 where this one keeps 10.0
            raise ResumeError(
                f"{name} was {old} and is now {new}, which cannot take effect in a resumed training: resume with "
                f"--{name} {old}, or start a new run with another --output_dir"
            )


@contextmanager
def reading_state(what: str) -> Iterator[None]:
    """Name what of a checkpoint cannot be read, or is of another training, if the block fails.

    Raises:
        ResumeError: If it does.
    """
    try:
        yield
    except _UNREADABLE as error:
        # torch's own words on a pickle advise to load it by other means, which would run it.
        cause = one_line(error)[:300] if not isinstance(error, pickle.UnpicklingError) else "it holds more than tensors"
        raise ResumeError(
            f"{what} in the checkpoint does not fit what is trained now: {cause or type(error).__name__}. Resume with "
            "the options of the training that wrote it, or from another checkpoint"
        ) from error


def load_with_present_options(optimizer: Any, scheduler: Any, load: Callable[[], None]) -> None:
    """Load the states of optimizer and scheduler, but keep this configuration's rates and other options.

    Args:
        optimizer: As it was made for this training.
        scheduler: Scheduler of the optimizer's rates, as it was made for this training.
        load: Loads both states.

    Raises:
        ResumeError: If a rate has changed that the scheduler cannot take up, or the states are of another training.
    """
    present = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    with reading_state("the optimizer's state"):
        load()
    scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate's wrapper
    for index, (group, options) in enumerate(zip(optimizer.param_groups, present, strict=True)):
        rate, saved = options.get("initial_lr", options["lr"]), group.get("initial_lr", group["lr"])
        group.update({key: value for key, value in options.items() if key not in ("lr", "initial_lr")})
        if not math.isclose(float(rate), float(saved), rel_tol=1e-12, abs_tol=0.0):
            _change_rate(scheduler, group, index, float(rate), float(saved))


def _change_rate(scheduler: Any, group: dict[str, Any], index: int, rate: float, saved: float) -> None:
    if not isinstance(scheduler, LambdaLR):
        raise ResumeError(
            f"the learning rate was {saved:g} and is now {rate:g}, which cannot take effect in a resumed training "
            f"with this lr_scheduler_type: resume with {saved:g}, or start a new run with another --output_dir"
        )
    group["initial_lr"] = scheduler.base_lrs[index] = rate
    now = rate * scheduler.lr_lambdas[index](scheduler.last_epoch)
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(now)
    else:
        group["lr"] = now
    scheduler._last_lr[index] = now
