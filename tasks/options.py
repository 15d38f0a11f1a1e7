"""What the shipped tasks ask of their options, and of the problems that are asked for: the right kind, within range."""

import math
from collections.abc import Collection


def check_asked(split: str, splits: Collection[str], count: int | None) -> None:
    """Check what problems are asked for.

    Raises:
        ValueError: If there is no such split, or the count is below 0.
    """
    if split not in splits:
        raise ValueError(f"split must be one of {', '.join(splits)}, got {split!r}")
    if count is not None and count < 0:
        raise ValueError(f"count must be 0 or more (None for all problems), got {count}")


def check_whole(task: str, least: int | None = None, most: int | None = None, /, **options: object) -> None:
    """Check options that are whole numbers.

    Args:
        task: Its name.
        least: The least of them; None: any.
        most: The largest; None: any.
        options: By name.

    Raises:
        TypeError: If one is no whole number.
        ValueError: If one is out of range.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{task} option `{name}` must be a whole number, got {value!r}")
        if least is not None and (value < least or (most is not None and value > most)):
            allowed = f"{least} or more" if most is None else f"from {least} to {most}"
            raise ValueError(f"{task} option `{name}` must be {allowed}, got {value}")


def check_numbers(task: str, most: float = math.inf, /, **options: object) -> None:
    """Check options that are finite numbers from 0.

    Args:
        task: Its name.
        most: The largest.
        options: By name.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is not finite, or out of range.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{task} option `{name}` must be a number, got {value!r}")
        if not math.isfinite(value) or not 0 <= value <= most:
            allowed = "finite and 0 or more" if math.isinf(most) else f"in [0, {most:g}]"
            raise ValueError(f"{task} option `{name}` must be {allowed}, got {value}")


def check_switches(task: str, /, **options: object) -> None:
    """Check options that are on or off.

    Raises:
        TypeError: If one is neither.
    """
    for name, value in options.items():
        if not isinstance(value, bool):
            raise TypeError(f"{task} option `{name}` must be true or false, got {value!r}")
