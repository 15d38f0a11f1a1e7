"""`llm-sra list`: what ships, by the names that recipes, flags and the Python interface take."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_sra import registry
from llm_sra.errors import unknown


def main(argv: Sequence[str]) -> None:
    """Print the names, or the file of one.

    Raises:
        UnknownNameError: If nothing of that name ships.
    """
    parser = argparse.ArgumentParser(
        "llm-sra list", description="List what ships, by the names that recipes, flags and Python functions take."
    )
    parser.add_argument("kind", nargs="?", choices=tuple(shipped()), help="one kind alone (default: all)")
    parser.add_argument("--path", metavar="NAME", help="print the file or folder of this one: `list recipes --path X`")
    args = parser.parse_args(argv)
    kinds = shipped() if args.kind is None else {args.kind: shipped()[args.kind]}
    if args.path is not None:
        found = {name: path for names in kinds.values() for name, path in names.items()}
        if args.path not in found:
            raise unknown(args.kind or "name", args.path, found)
        print(found[args.path])
        return
    for kind, names in kinds.items():
        print(f"{kind}:", *names, sep="\n  ")


def shipped() -> dict[str, Mapping[str, Path]]:
    """Names and places of all that ships, by kind."""
    return {
        "tasks": registry.shipped_tasks(),
        "recipes": registry.shipped_recipes(),
        "rosters": registry.shipped_rosters(),
        "models": registry.shipped_models(),
        "accelerate_configs": registry.shipped_accelerate_configs(),
    }
