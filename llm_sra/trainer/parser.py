"""The parser of every field of a training, each a flag."""

import argparse
from typing import Any, NoReturn

from trl import TrlParser

from llm_sra.trainer.config import ModelArguments, SRPOConfig
from llm_sra.trainer.literals import number_fields
from llm_sra.trainer.values import as_number, check_choice

NUMBERS = {**number_fields(ModelArguments), **number_fields(SRPOConfig)}


class _Parser(TrlParser):  # type: ignore[misc]
    """TRL's parser; raises ValueError instead of ending the program, in the words of the other checks."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        kind, optional = NUMBERS.get(action.dest, (None, False))
        if kind is None or (optional and text.lower() in ("none", "null")):
            return super()._get_value(action, text)
        return as_number(action.dest, text, kind)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None:
            check_choice(action.dest, value, action.choices)


def make_parser() -> TrlParser:
    """The parser of every field, each a flag."""
    return _Parser([ModelArguments, SRPOConfig], allow_abbrev=False)
