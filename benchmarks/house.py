"""Measures a checkout's layout: entries per folder, import circles, the widest function, long files, type errors.

python -m benchmarks.house [PATH]

Reads source alone and imports none of it, so that any commit's checkout can be counted.
"""

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("llm_sra", "tasks", "recipes", "eval")
LONG = 400  # lines


@dataclass(frozen=True)
class Function:
    """A function and its number of parameters, without `self` and `cls`.

    Attributes:
        name: Its module and name.
        parameters: How many.
    """

    name: str
    parameters: int


def entries(folder: Path) -> int:
    """The number of files and folders directly in a folder, without Python's caches."""
    return sum(1 for path in folder.iterdir() if path.name != "__pycache__" and path.suffix != ".pyc")


def sources(root: Path) -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for path in (path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> dict[str, set[str]]:
    """By module, the modules of the checkout that it imports, also inside functions."""
    files = sources(root)
    return {name: set(_imported(name, path, files)) - {name} for name, path in files.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (the strongly connected components of two or more).

    Two modules are in one group if each is reached from the other.
    """
    reached = {name: _reached(name, graph) for name in graph}
    groups = {
        frozenset({name} | {other for other in there if name in reached[other]}) for name, there in reached.items()
    }
    return sorted(sorted(group) for group in groups if len(group) > 1)


def widest(root: Path) -> Function:
    """The function with most parameters; of several the first by name."""
    found = [
        Function(f"{name}.{node.name}", _parameters(node))
        for name, path in sources(root).items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return min(found, key=lambda function: (-function.parameters, function.name))


def strict_errors(root: Path) -> int:
    """What `mypy --strict` finds in the checkout, with its own configuration."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", "/dev/null"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mypy failed in {root}: {done.stderr or done.stdout}")
    return sum(": error:" in line for line in done.stdout.splitlines())


def table(root: Path) -> str:
    """The numbers of a checkout as Markdown."""
    graph, wide = imports(root), widest(root)
    files = (path for folder in (*PACKAGES, "tests", "benchmarks") for path in (root / folder).rglob("*.py"))
    long = sorted(str(path.relative_to(root)) for path in files if _long(path))
    rows = [(f"entries of `{name}/`", str(entries(root / name))) for name in PACKAGES]
    rows += [
        ("import circles", "; ".join(" and ".join(group) for group in circles(graph)) or "0"),
        ("parameters of the widest function", f"{wide.parameters} (`{wide.name}`)"),
        (f"files over {LONG} lines", ", ".join(long) or "0"),
        ("bytes of README.md", f"{(root / 'README.md').stat().st_size:,}"),
        ("errors of mypy --strict", str(strict_errors(root))),
    ]
    return "\n".join(["| what | number |", "|---|---|", *(f"| {what} | {number} |" for what, number in rows)])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser("benchmarks.house", description="Print the layout of a checkout in numbers.")
    parser.add_argument("path", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    print(table(parser.parse_args(argv).path.resolve()))


def _imported(name: str, path: Path, files: dict[str, Path]) -> Iterator[str]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            wanted = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for target in wanted:
            parts = target.split(".")
            prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            yield from [next((prefix for prefix in prefixes if prefix in files), name)]


def _reached(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    open_ends = [start]
    while open_ends:
        for other in graph.get(open_ends.pop(), set()) - seen:
            seen.add(other)
            open_ends.append(other)
    return seen


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def _long(path: Path) -> bool:
    return len(path.read_text(encoding="utf-8").splitlines()) > LONG


if __name__ == "__main__":
    main()
