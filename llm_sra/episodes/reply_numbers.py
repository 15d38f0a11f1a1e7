"""Which turns are reported one by one, and how percentiles of numbers about replies are named."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

PERCENTILES = (50, 95)
MOST_TURNS = 8  # of a seat that are reported one by one: the rounds of a debate, not the steps of a walk


def reported(turns: Iterable[int]) -> list[int]:
    """The turns, counted from 0, that are reported one by one; without -1, which stands for no turn."""
    return sorted({turn for turn in turns if 0 <= turn < MOST_TURNS})


def percentiles(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """`NAME_p50` and `NAME_p95` of the values of each name that has any."""
    return {
        f"{name}_p{percent}": float(np.percentile(numbers, percent))
        for name, numbers in values.items()
        if numbers
        for percent in PERCENTILES
    }
