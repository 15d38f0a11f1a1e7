"""Fields whose values are names or numbers: which there are, and what is said of others.

The names are the fields' `Literal` types, or those of a registry where new entries may come.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from llm_sra.objectives.baselines import BASELINES
from llm_sra.objectives.risk import RISKS
from llm_sra.trainer.estimators import algorithms, levels
from llm_sra.trainer.values import as_number, check_choice
from llm_sra.untrusted import shown


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


def take_numbers(config: object) -> None:
    """Make a number of every field that is one: `tau: 3` is 3.0.

    Args:
        config: A dataclass, its fields as they were given.

    Raises:
        ValueError: If one is something else; names the field, what came and what was expected.
    """
    for field, (kind, optional) in number_fields(type(config)).items():  # type: ignore[arg-type]  # a class hashes
        value = getattr(config, field)
        if value is not None or not optional:
            setattr(config, field, as_number(field, value, kind))


def check_texts(cls: type, values: Mapping[str, object]) -> None:
    """Check that fields of text were not given another plain value: YAML makes a number of `2024`.

    Args:
        cls: A dataclass.
        values: By name, as a file has them; dates and switches count as text.

    Raises:
        ValueError: If one was; names the field and what came.
    """
    hints = get_type_hints(cls)
    for name, value in values.items():
        hint = hints.get(name)
        kinds = set(get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else [hint])
        if (
            kinds - {type(None)} == {str}
            and isinstance(value, int | float | list | dict)
            and not isinstance(value, bool)
        ):
            raise ValueError(f"{name} must be text, got {shown(value)}: write it in quotes")


@cache
def number_fields(cls: type) -> dict[str, tuple[type[int | float], bool]]:
    """By name, each field of a dataclass that is a number: of which kind, and whether it may be None."""
    found: dict[str, tuple[type[int | float], bool]] = {}
    hints = get_type_hints(cls)
    for field in fields(cls):
        parts = get_args(hints[field.name]) or (hints[field.name],)
        kinds = [part for part in parts if part is not type(None)]
        if kinds in ([int], [float]):
            found[field.name] = kinds[0], len(parts) > 1 or field.default is None
    return found


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
