"""`llm-sra completion`: a script that completes commands and flags in bash or zsh."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from recipes.cli import COMMANDS

HOW = {"bash": 'eval "$(llm-sra completion bash)"', "zsh": 'eval "$(llm-sra completion zsh)"'}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the script.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.
    """
    args = parser().parse_args(argv)
    import shtab

    print(shtab.complete(_whole(), shell=args.shell))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra completion",
        description="Print a script that completes commands and flags. "
        + " ".join(f"In {shell}, for this session: {how}." for shell, how in HOW.items()),
    )
    parser.add_argument("shell", choices=tuple(HOW))
    return parser


def _whole() -> argparse.ArgumentParser:
    """Every command with its flags, as one parser."""
    whole = argparse.ArgumentParser("llm-sra")
    whole.add_argument("--version", action="store_true")
    commands = whole.add_subparsers()
    for name, text in COMMANDS.items():
        own = import_module(f"recipes.commands.{name.replace('-', '_')}").parser()
        commands.add_parser(name, parents=[own], add_help=False, help=text)
    return whole
