"""`llm-sra list`: what ships, by the names that recipes, flags and the Python interface take."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llm_sra import registry
from llm_sra.errors import unknown

KINDS: Mapping[str, Callable[[], dict[str, Path]]] = {
    "tasks": registry.shipped_tasks,
    "recipes": registry.shipped_recipes,
    "rosters": registry.shipped_rosters,
    "models": registry.shipped_models,
    "accelerate_configs": registry.shipped_accelerate_configs,
}
USES = {
    "tasks": "llm-sra train --task NAME",
    "recipes": "llm-sra train --config NAME",
    "rosters": "llm-sra eval --roster NAME",
    "models": "llm-sra train --model_name_or_path NAME",
    "accelerate_configs": 'accelerate launch --config_file "$(llm-sra list accelerate_configs --path NAME)"',
}


def main(argv: Sequence[str]) -> None:
    """Print the names, or the file of one.

    Raises:
        UnknownNameError: If nothing of that name ships.
    """
    args = parser().parse_args(argv)
    kinds = {kind: shipped() for kind, shipped in KINDS.items() if args.kind in (None, kind)}
    if args.path is not None:
        found = {name: path for names in kinds.values() for name, path in names.items()}
        if args.path not in found:
            raise unknown(args.kind.removesuffix("s") if args.kind else "name", args.path, found)
        print(found[args.path])
        return
    for kind, names in kinds.items():
        print(f"{kind}  ({USES[kind]})", *(names or ["none"]), sep="\n  ")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra list", description="List what ships, by the names that recipes, flags and Python functions take."
    )
    parser.add_argument("kind", nargs="?", choices=tuple(KINDS), help="one kind alone (default: all)")
    parser.add_argument("--path", metavar="NAME", help="print the file or folder of this one: `list recipes --path X`")
    return parser
