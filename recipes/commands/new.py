"""`llm-sra new`: write a task of one's own to start from."""

import argparse
import keyword
import re
from collections.abc import Sequence
from pathlib import Path

from llm_sra.files import write_whole

STARTER = Path(__file__).resolve().parent.parent / "starter_task.py"
CLASS = "Proofread"  # of the starter


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file, and print what to do with it.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ValueError: If the file's name is none of a Python file, or the class's is none of a class.
        FileExistsError: If the file is there.
    """
    args = parser().parse_args(argv)
    if args.file.suffix != ".py":
        raise ValueError(f"TASKFILE must end in .py, got {args.file}")
    name = args.name or "".join(part.capitalize() for part in re.findall(r"[A-Za-z0-9]+", args.file.stem))
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"no class can be called {name!r}: choose one with --name")
    if args.file.exists():
        raise FileExistsError(f"{args.file} exists, and is left as it is: name another file")
    text = STARTER.read_text(encoding="utf-8")
    text = text.replace("recipes/starter_task.py", str(args.file)).replace(CLASS, name)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.file, text)
    spec = f"{args.file}:{name}"
    print(
        f"written: {args.file}\n"
        f"play:    python {args.file}\n"
        f"check:   llm-sra check {spec}\n"
        f"train:   llm-sra train --config worksheet/srpo --task {spec} --output_dir runs/{args.file.stem}"
    )


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra new",
        description="Write a task with comments, in one Python file, that plays as it is. Change it to yours.",
    )
    parser.add_argument("file", metavar="TASKFILE", type=Path, help="path/to/file.py, which must not exist")
    parser.add_argument("--name", help="of the class (default: the file's name, as in plan_code.py:PlanCode)")
    return parser
