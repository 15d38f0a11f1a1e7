"""Errors that a user can fix, and names that do not exist with the nearest one that does."""

import difflib
from collections.abc import Iterable


class UserError(RuntimeError):
    """Something outside the program failed and the user can fix it; a command prints the message as one line."""


class UnknownNameError(ValueError):
    """A task, partner, arm or key that does not exist; names the nearest one that does."""


class NoFileError(UnknownNameError):
    """The file that a name stands for is not there."""


def did_you_mean(name: object, known: Iterable[str], cutoff: float = 0.5) -> str:
    """`; did you mean 'NAME'?` with the nearest known name; empty if none is near.

    Args:
        name: As it was given.
        known: The names that exist.
        cutoff: How similar two names must be, in [0, 1].
    """
    nearest = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not among the known ones."""
    known = sorted(known)
    hint = did_you_mean(name, known) or "."
    return UnknownNameError(f"unknown {kind} {name!r}{hint} There are: {', '.join(known) or 'none'}")
