"""Fields whose values are names: which names there are, and what is said of others.

The names are the fields' `Literal` types, or those of a registry where new entries may come.
"""

from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from llm_sra.errors import did_you_mean
from llm_sra.objectives.baselines import BASELINES
from llm_sra.objectives.risk import RISKS
from llm_sra.trainer.estimators import algorithms, levels


def check_choices(config: Any) -> None:
    """Check that every field whose values are names has one of them.

    Args:
        config: A dataclass.

    Raises:
        ValueError: If one has not; names the field, the value, what is allowed, and the nearest of that.
    """
    cls: Any = type(config)
    for field, allowed in literal_choices(cls).items():
        check_choice(field, getattr(config, field), allowed)
    for field, names in (("risk", RISKS), ("advantage_baseline", BASELINES), ("algorithm", algorithms())):
        check_choice(field, getattr(config, field), tuple(names))
    check_choice("advantage_level", config.advantage_level, (None, *levels(config.algorithm)))


def check_choice(field: str, value: object, allowed: Iterable[object]) -> None:
    """Check that a value is one of those allowed; None among them is not named.

    Raises:
        ValueError: If it is not.
    """
    if value not in tuple(allowed):
        names = [str(name) for name in allowed if name is not None]
        raise ValueError(f"{field} must be one of {', '.join(names)}, got {value!r}{did_you_mean(value, names)}")


@cache
def literal_choices(cls: type) -> dict[str, tuple[object, ...]]:
    """By name, what each field of `Literal` type of a dataclass can be."""
    hints = get_type_hints(cls)
    found = {field.name: _allowed(hints[field.name]) for field in fields(cls)}
    return {name: allowed for name, allowed in found.items() if allowed}


def _allowed(hint: Any) -> tuple[object, ...]:
    """Values of `Literal[...]` or of `Literal[...] | None`; empty for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = get_args(hint)
    literals = [part for part in parts if get_origin(part) is Literal]
    if len(literals) == 1 and set(parts) - set(literals) == {type(None)}:
        return (*get_args(literals[0]), None)
    return ()
