"""Whose fault it is when a turn gets no reply: the policies that were asked, carried beside the error.

`playing` asks inside `asking`. Whether play goes on without them is its caller's decision.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from llm_sra.policies.base import Policy


class FailedError(Exception):
    """Policies of matches did not answer.

    Attributes:
        policies: As they are seated.
        error: What was raised.
    """

    def __init__(self, policies: tuple[Policy, ...], error: Exception) -> None:
        super().__init__(str(error))
        self.policies, self.error = policies, error


@contextmanager
def asking(*policies: Policy) -> Iterator[None]:
    """Say that an error inside the block is these policies'.

    Raises:
        FailedError: Instead of the error.
    """
    try:
        yield
    except Exception as error:
        raise FailedError(policies, error) from error
