"""Watches the calls of a task for states and problems that it changes in place, which views and episodes share."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_sra.errors import defined_at
from llm_sra.task import Task


@dataclass(frozen=True)
class Finding:
    """Something that a task does against the protocol.

    Attributes:
        text: Where, what came, what was expected, what to do.
        breaks: Whether it breaks a promise of the protocol; the others are only doubtful.
        plays: Whether episodes can be played all the same, and are right by themselves.
    """

    text: str
    breaks: bool = True
    plays: bool = False


class Watch:
    """Makes calls of a task, and looks whether they change a state or a problem in place; says each thing once.

    Args:
        task: Whose calls are watched.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._found: dict[str, Finding] = {}

    @property
    def findings(self) -> list[Finding]:
        """What was seen."""
        return list(self._found.values())

    def __call__(self, method: str, what: str, value: Any, where: str, call: Callable[[], Any]) -> Any:
        """Make a call of a method, and look at a value before and after it."""
        before = _Snapshot(value)
        result = call()
        if before.differs(value):
            text = (
                f"{defined_at(type(self._task), method)} changed {what} in place ({_named(value)}), {where}. States "
                "and problems are values, which views and other episodes share: return a new one (dataclasses.replace, "
                "or a copy)"
            )
            self._found.setdefault(f"changed {what}", Finding(text))
        return result

    def state(self, method: str, state: Any, where: str) -> Any:
        """Look at a new state."""
        if isinstance(state, list | dict | set | bytearray):
            text = (
                f"{defined_at(type(self._task), method)} returned a state that is {_named(state)}, {where}: it can be "
                "changed in place by mistake. Use a frozen dataclass or a tuple, and return a new one from `step`"
            )
            self._found.setdefault("mutable", Finding(text, breaks=False))
        return state


def _named(value: object) -> str:
    return f"a {type(value).__name__}"


class _Snapshot:
    """What a value was, by equality where its type has one, else by its bytes."""

    def __init__(self, value: Any) -> None:
        self._by_value = vars(object)["__eq__"] is not getattr(type(value), "__eq__", None)
        try:
            self._kept = copy.deepcopy(value) if self._by_value else pickle.dumps(value)
            self._known = not self.differs(value)
        except Exception:  # neither can be copied: then nothing is said
            self._known = False

    def differs(self, value: Any) -> bool:
        """Whether it is now another one; False if that cannot be said."""
        if not getattr(self, "_known", True):
            return False
        return bool(self._kept != value) if self._by_value else self._kept != pickle.dumps(value)
