"""Recipes and command lines to configurations; an unknown key is an error that names the nearest known one.

TRL and torch, which take seconds to import, are needed by `parse` alone: a recipe can be read without them.
"""

import argparse
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_sra.errors import NoFileError, did_you_mean
from llm_sra.registry import find_recipe, model_name, task_name, task_options
from llm_sra.untrusted import UntrustedError, read_yaml

if TYPE_CHECKING:
    from llm_sra.trainer.config import ModelArguments, SRPOConfig

# What a recipe says of its own task, which means nothing for another one.
OF_THE_TASK = ("task_args", "max_completion_length", "partners", "dev_roster")
OF_THE_ROSTER = ("eval_strategy", "load_best_model_at_end")  # stays if another development roster is named
logger = logging.getLogger(__name__)


class ConfigError(ValueError):
    """A recipe or a command line cannot be used; says which key, and what to write instead."""


def parse(
    recipe: str | Path | None, flags: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> "tuple[ModelArguments, SRPOConfig]":
    """Configurations from a recipe, and values that override it.

    Args:
        recipe: YAML file with one value per field, or a shipped recipe's name (`worksheet/srpo`). A path in it that
            starts with `./` or `../` is relative to the recipe.
        flags: As on the command line: `--tau 10 --seed 3`.
        overrides: Values under the recipe's keys. `task_args`, here or as a flag, replaces the options that it
            names; the recipe's other options stay if its task does.

    Raises:
        ConfigError: If a key is unknown or a value cannot be used.
    """
    from llm_sra.trainer.config import ModelArguments, SRPOConfig, check_together
    from llm_sra.trainer.literals import check_texts
    from llm_sra.trainer.parser import make_parser

    parser = make_parser()
    known = {action.dest for action in parser._actions}
    check_flags(flags, parser)
    values = read_recipe(recipe) if recipe else {}
    values = _for_task(_named(flags, overrides), values, SRPOConfig.task)
    written = {key: values.get(key) for key in ("task", "task_args")}
    check_keys(values, known, f"in {recipe}")
    check_keys(overrides or {}, known, "among the arguments")
    for key, value in (overrides or {}).items():
        values[key] = str(value) if isinstance(value, Path) else value
    parser.set_defaults_with_config(**values)
    try:
        for cls in (ModelArguments, SRPOConfig):
            check_texts(cls, values)
        model, config, rest = parser.parse_args_into_dataclasses(
            list(flags), return_remaining_strings=True, look_for_args_file=False
        )
        check_together(model, config)
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if rest:
        raise ConfigError(f"cannot tell what {rest[0]!r} on the command line belongs to: write --key value")
    if written["task_args"] and config.task == (written["task"] or SRPOConfig.task):
        assert not isinstance(config.task_args, str)  # the configuration has read it
        config.task_args = {**(task_options(written["task_args"]) or {}), **(config.task_args or {})}
    if not model.model_name_or_path and not model.seat_models:
        raise ConfigError("model_name_or_path is missing: name a Hugging Face model or its folder")
    # So that the run can be evaluated from any folder.
    if model.model_name_or_path:
        model.model_name_or_path = model_name(model.model_name_or_path)
    if model.seat_models:
        assert not isinstance(model.seat_models, str)  # the configuration has read it
        model.seat_models = {seat: model_name(name) for seat, name in model.seat_models.items()}
    config.task = task_name(config.task)
    return model, config


def _named(flags: Sequence[str], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """The task and the development roster that the command line or the arguments name, where they do."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("task", "dev_roster"):
        parser.add_argument(f"--{name}", default=(overrides or {}).get(name, argparse.SUPPRESS))
    try:
        return vars(parser.parse_known_args(list(flags))[0])
    except argparse.ArgumentError:  # a flag without a value, which the parser of all flags explains
        return {}


def _for_task(named: Mapping[str, Any], recipe: Mapping[str, Any], default: str) -> dict[str, Any]:
    """A recipe's values without what holds for its own task alone, if another one is to be trained on."""
    own = recipe.get("task", default)
    if not recipe or named.get("task", own) == own:
        return dict(recipe)
    without = OF_THE_TASK if named.get("dev_roster") else (*OF_THE_TASK, *OF_THE_ROSTER)
    left_out = [key for key in without if key in recipe]
    if left_out:
        what = f"{', '.join(left_out)} {'are' if len(left_out) > 1 else 'is'}"
        logger.warning("The recipe is for task %s: for %s, its %s left out.", own, named["task"], what)
    return {key: value for key, value in recipe.items() if key not in left_out}


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """The values of a recipe, with its own paths made absolute.

    Args:
        recipe: A path, or the name of a shipped recipe.

    Raises:
        ConfigError: If there is no such file, or it is not a YAML mapping.
    """
    try:
        path = find_recipe(recipe)
    except NoFileError as error:
        raise ConfigError(str(error)) from error
    try:
        values = read_yaml(path)
    except UntrustedError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold one `key: value` per line")
    values = {key: relative_to(path.parent, value) for key, value in values.items()}
    if isinstance(values.get("seat_models"), dict):
        values["seat_models"] = {seat: relative_to(path.parent, name) for seat, name in values["seat_models"].items()}
    return values


def relative_to(folder: Path, value: Any) -> Any:
    """A path that starts with `./` or `../`, taken from a file's folder; anything else as it is."""
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str((folder / value).resolve())
    return value


def check_flags(flags: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Check the names of flags, before any value is looked at, whose error would hide that a name is misspelt.

    Args:
        flags: As on the command line.
        parser: Of every field.

    Raises:
        ConfigError: If there is no such flag.
    """
    names = [flag.split("=")[0] for flag in flags if flag.startswith("--")]
    if unknown := [name for name in names if name not in parser._option_string_actions]:
        known = {action.dest for action in parser._actions}
        raise ConfigError(_unknown_key(unknown[0][2:], known, "on the command line"))


def check_keys(keys: Iterable[object], known: Collection[str], where: str) -> None:
    """Check the names of fields.

    Raises:
        ConfigError: If one is no field.
    """
    for key in keys:
        if key not in known:
            raise ConfigError(_unknown_key(key, known, where))


def _unknown_key(key: object, known: Collection[str], where: str) -> str:
    """What is said of a key that is no field."""
    return f"unknown key {key!r} {where}{did_you_mean(key, known, cutoff=0.4)}"
