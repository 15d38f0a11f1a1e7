"""Ends a template that does not end by itself: its steps are counted as it runs.

Templates come with models, from strangers. Jinja's sandbox limits one `range`, and not a loop within a loop.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STEPS = 1_000_000  # lines of a compiled template; those of public models take some dozens a message
_COMPILED = "<template>"  # what jinja calls the file of a template that it compiled from a string


class EndlessError(Exception):
    """A template took more steps than any needs."""


@contextmanager
def bounded(steps: int = STEPS) -> Iterator[None]:
    """Inside the block, templates in this thread take so many steps at most.

    Raises:
        EndlessError: From the template, if it takes more.
    """
    taken = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken > steps:
            raise EndlessError(f"it takes more than {steps:,} steps")
        return count

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        return count if frame.f_code.co_filename == _COMPILED else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)
