"""What single values must be: one of some names, a number, in a range. Imports neither TRL nor torch.

So a command can refuse a value before it loads what takes seconds. What values must be together is in `config_rules`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from llm_sra.errors import did_you_mean
from llm_sra.untrusted import shown


def check_choice(field: str, value: object, allowed: Iterable[object]) -> None:
    """Check that a value is one of those allowed; None among them is not named.

    Raises:
        ValueError: If it is not.
    """
    if value not in tuple(allowed):
        names = [str(name) for name in allowed if name is not None]
        raise ValueError(f"{field} must be one of {', '.join(names)}, got {value!r}{did_you_mean(value, names)}")


def as_number(field: str, value: object, kind: type[int | float]) -> int | float:
    """A value as a number.

    Args:
        field: Whose value it is, for the error.
        value: A number, or one as text.
        kind: `int`, or `float`, which takes whole numbers, too.

    Raises:
        ValueError: If it is none (NaN is none), or not whole where it must be.
    """
    numbers = (str, Integral) if kind is int else (str, Real)
    try:
        if isinstance(value, numbers) and not isinstance(value, bool):
            number = kind(value)  # type: ignore[arg-type]  # text that is no number, and numbers too large, are below
            if number == number:  # not NaN
                return number
    except (ValueError, OverflowError):
        pass
    expected = "a whole number" if kind is int else "a number"
    raise ValueError(f"{field} must be {expected}, got {shown(value)}")


@dataclass(frozen=True, slots=True)
class Range:
    """What a number must be; NaN is never in a range.

    Attributes:
        field: Whose value it is.
        within: Whether a number is in the range.
        must: The range in words, after "must".
        optional: Whether None is allowed.
    """

    field: str
    within: Callable[[Any], bool]
    must: str
    optional: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is a number in the range, or None where that is allowed."""
        return (self.optional and value is None) or (isinstance(value, int | float) and self.within(value))


def at_least(field: str, least: float, optional: bool = False) -> Range:
    """A range without an upper end."""
    return Range(field, lambda value: value >= least, f"be {least} or more", optional)


RANGES = (
    at_least("tau", 0),
    at_least("entropy_coef", 0),
    at_least("adversary_entropy_coef", 0),
    at_least("choices_coef", 0),
    at_least("alignment_coef", 0),
    at_least("influence_coef", 0),
    at_least("population_entropy_coef", 0),
    at_least("population", 2, optional=True),
    at_least("adversary_updates", 1),
    at_least("problems_per_step", 1),
    at_least("num_iterations", 1),
    at_least("num_generations", 2),
    at_least("rollout_batch_size", 1),
    at_least("dev_problems", 1),
    at_least("log_episodes", -1),
    at_least("tau_schedule_steps", 1, optional=True),
    at_least("partners_per_step", 1, optional=True),
    at_least("adversary_reset_steps", 1, optional=True),
    Range("learning_rate", lambda value: 0 <= value < math.inf, "be finite, 0 or more"),
    Range("seed", lambda value: 0 <= value < 2**32, "be a whole number from 0 to 4294967295"),  # numpy takes no other
    Range("gamma", lambda value: 0 <= value <= 1, "lie in [0, 1]"),
    Range("gae_lambda", lambda value: 0 <= value <= 1, "lie in [0, 1]"),
    Range("risk_smoothing", lambda value: 0 <= value < 1, "lie in [0, 1)"),
    Range("adversary_mix", lambda value: 0 <= value < 1, "lie in [0, 1)"),
    Range("value_clip", lambda value: value > 0, "be above 0, or left out", optional=True),
    Range("target_kl", lambda value: value > 0, "be above 0, or left out", optional=True),
    Range("temperature", lambda value: value > 0, "be above 0 (greedy replies teach nothing)"),
)
