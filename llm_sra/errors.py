"""Errors that a user can fix, their place in a user's file, and names that do not exist with the nearest one."""

import difflib
import inspect
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(RuntimeError):
    """Something outside the program failed and the user can fix it; a command prints the message as one line."""


class TaskError(UserError):
    """A user's task, or scripted partner, does not keep to its protocol. Says the user's file and line."""


class NumberError(UserError, FloatingPointError):
    """A number is NaN or infinite. Says where it arose."""


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


def raised_at(error: BaseException, owner: type, method: str) -> str:
    """`FILE:LINE, in FUNCTION` of the deepest line of a user's code that an error passed; of the method if of none.

    Args:
        error: As it was caught.
        owner: The user's class.
        method: That was called.
    """
    own = _file_of(owner)
    passed = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    users = [(code, line) for code, line in passed if code.co_filename == own or not _is_library(code.co_filename)]
    if not users:
        return defined_at(owner, method)
    code, line = users[-1]
    return f"{_short(code.co_filename)}:{line}, in {code.co_name}"


def defined_at(owner: type, method: str) -> str:
    """`FILE:LINE, in METHOD` of the class, or of the base of it, that defines a method; the class's name if unknown."""
    function = inspect.unwrap(getattr(owner, method, owner))
    code = getattr(function, "__code__", None)
    if code is None:
        return f"{owner.__name__}.{method}"
    return f"{_short(code.co_filename)}:{code.co_firstlineno}, in {method}"


def _file_of(owner: type) -> str:
    try:
        return inspect.getfile(owner)
    except (OSError, TypeError):  # made at a prompt
        return ""


def _short(file: str) -> str:
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def _is_library(file: str) -> bool:
    """Whether a file is of this package, of Python or of an installed package."""
    folders = [str(Path(__file__).parent), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))]
    return file.startswith("<") or any(Path(file).is_relative_to(folder) for folder in folders)
