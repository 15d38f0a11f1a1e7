"""Every field of a recipe as a flag, without TRL: for help, for completion, and for mistakes that need no training.

TRL and transformers, whose fields these are, take seconds to import. So their names, defaults and words are kept in
`fields.json` beside this module: `python -m recipes.commands.train_help` writes it anew, and a test says when that is
due. What a value must be is not kept there: it is checked by the same functions as in a training.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from llm_sra.registry import shipped_tasks, task_class
from llm_sra.trainer.parse import ConfigError, check_flags, check_keys, read_recipe
from llm_sra.trainer.values import RANGES, as_number, check_choice

TABLE = Path(__file__).with_name("fields.json")
KINDS: Mapping[str, type[int] | type[float]] = {"int": int, "float": float}


def read_table() -> list[dict[str, Any]]:
    """What is known of each flag; a switch that is on has a second one, `--no_NAME`."""
    table: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


class FieldsParser(argparse.ArgumentParser):
    """The parser of every field; checks kinds and names in the words of a training."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        return read_value(action, text)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Done as the value is read."""


def read_value(action: argparse.Action, text: str) -> Any:
    """A field's value from text, as far as TRL is not needed for it.

    Returns:
        A number for a field that is one; None for `none`, which the training takes or refuses; else the text.

    Raises:
        ValueError: If it is no number, or not among the field's names.
    """
    if text.lower() in ("none", "null") and text not in (action.choices or ()):
        return None
    if action.choices is not None:
        check_choice(action.dest, text, action.choices)
    return as_number(action.dest, text, action.type) if action.type in (int, float) else text


def fields_parser(**options: Any) -> FieldsParser:
    """The parser of every field.

    Args:
        **options: Of `argparse.ArgumentParser`.
    """
    parser = FieldsParser(add_help=False, allow_abbrev=False, **options)
    for row in read_table():
        field = {key: row[key] for key in ("dest", "default", "help")}
        if row["nargs"] == 0:
            parser.add_argument(*row["flags"], action="store_false", **field)
        else:
            parser.add_argument(
                *row["flags"], nargs=row["nargs"], const="true" if row["nargs"] == "?" else None,
                choices=row["choices"], type=KINDS.get(row["kind"], str), metavar=row["metavar"], **field,
            )  # fmt: skip
    return parser


def check_early(recipe: str | Path | None, flags: Sequence[str] = ()) -> None:
    """Refuse what needs no training to be seen, before the imports that take seconds.

    Args:
        recipe: YAML file, or a shipped recipe's name.
        flags: Fields that replace the recipe's, as on the command line.

    Raises:
        ConfigError: If a field is unknown, or its value is no number, no name that it may have, or out of its range.
        UnknownNameError: If there is no such task.
    """
    parser = fields_parser()
    actions = {action.dest: action for action in reversed(parser._actions)}
    check_flags(flags, parser)
    values = read_recipe(recipe) if recipe else {}
    check_keys(values, actions, f"in {recipe}")
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    try:
        given = {name: _read(actions[name], value) for name, value in values.items()}
        given |= vars(parser.parse_known_args(list(flags))[0])
        for one in RANGES:
            if given.get(one.field) is not None and not one.holds(given[one.field]):
                raise ValueError(f"{one.field} must {one.must}, got {given[one.field]!r}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    task = given.get("task")
    if isinstance(task, str) and ":" not in task and task not in shipped_tasks():
        task_class(task)  # says what there is


def _read(action: argparse.Action, value: Any) -> Any:
    return read_value(action, value) if isinstance(value, str) else value
