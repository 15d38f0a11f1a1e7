"""Numeric fields of a recipe: a whole number is a number everywhere, and what is none is refused in one line."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_sra.trainer.config import ModelArguments, SRPOConfig
from llm_sra.trainer.literals import number_fields, take_numbers
from llm_sra.trainer.parse import ConfigError, parse

NUMBERS = {**number_fields(ModelArguments), **number_fields(SRPOConfig)}
FLOATS = [name for name, (kind, _) in NUMBERS.items() if kind is float]
WHOLE = [name for name, (kind, _) in NUMBERS.items() if kind is int]


def test_the_fields_that_are_numbers_are_known_whoever_declares_them() -> None:
    assert {"tau", "adam_beta1", "temperature", "target_kl", "lora_dropout"} <= set(FLOATS)
    assert {"lora_r", "max_steps", "seed", "num_generations", "max_completion_length"} <= set(WHOLE)
    assert NUMBERS["tau"] == (float, False) and NUMBERS["target_kl"] == (float, True)
    every = {field.name for cls in (ModelArguments, SRPOConfig) for field in fields(cls)}
    assert len(NUMBERS) > 90 and not every.isdisjoint(NUMBERS)


def given(tmp_path: Path, name: str, value: Any, how: str) -> Any:
    """What a field is if a value is given by a recipe, by a flag or from Python."""
    recipe: dict[str, Any] = {"model_name_or_path": "worksheet/pupil", "use_cpu": True, "bf16": False}
    recipe |= {"output_dir": str(tmp_path / "run"), "report_to": "none"}
    flags: list[str] = []
    overrides: dict[str, Any] = {}
    if how == "recipe":
        recipe[name] = value
    elif how == "flag":
        flags = [f"--{name}", str(value)]
    else:
        overrides = {name: value}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    model, config = parse(tmp_path / "recipe.yaml", flags, overrides)
    return getattr(model if hasattr(model, name) else config, name)


WRITTEN = {
    "adam_beta1": 0, "tau": 3, "temperature": 1, "lora_dropout": 0, "gamma": 1, "weight_decay": 0,
    "learning_rate": "1e-5",  # which YAML takes for text
}  # fmt: skip


@pytest.mark.parametrize("how", ["recipe", "flag", "python"])
def test_a_whole_number_is_a_number_wherever_one_is_wanted(tmp_path: Path, how: str) -> None:
    for name, value in WRITTEN.items():
        found = given(tmp_path, name, value, how)
        assert type(found) is float and found == float(value), name


@pytest.mark.parametrize("cls", [ModelArguments, SRPOConfig])
def test_what_is_no_number_is_refused_by_name_in_every_field(cls: Any, tmp_path: Path) -> None:
    for name, (kind, optional) in number_fields(cls).items():
        wrong: list[tuple[Any, str]] = [(True, "True"), ("many", "'many'"), ([1], r"\[1\]"), ({"a": 1}, "{'a': 1}")]
        wrong += [(1.5, r"1\.5"), ("1.5", r"'1\.5'")] if kind is int else []
        wrong += [] if optional else [(None, "None")]
        expected = "a whole number" if kind is int else "a number"
        for value, got in wrong:
            with pytest.raises(ValueError, match=rf"^{name} must be {expected}, got {got}$"):
                cls(**{name: value})


@pytest.mark.parametrize("how", ["recipe", "flag", "python"])
def test_the_same_is_said_wherever_it_was_written(tmp_path: Path, how: str) -> None:
    for name, expected in (("tau", "a number"), ("adam_beta1", "a number"), ("max_steps", "a whole number")):
        with pytest.raises(ConfigError, match=rf"^{name} must be {expected}, got 'many'$"):
            given(tmp_path, name, "many", how)


@pytest.mark.parametrize("cls", [ModelArguments, SRPOConfig])
def test_every_field_makes_a_whole_number_one_of_its_kind(cls: Any) -> None:
    for name, (kind, _) in number_fields(cls).items():
        config = object.__new__(cls)
        config.__dict__.update({field: 1 for field in number_fields(cls)})
        take_numbers(config)
        assert type(getattr(config, name)) is kind and getattr(config, name) == 1, name
