"""The public interface is the one of `api.txt`: a name or a signature that changes unannounced breaks users' code.

`python tests/test_api.py` writes the file anew.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from difflib import unified_diff
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SNAPSHOT = Path(__file__).with_name("api.txt")
MODULES = ("llm_sra", "llm_sra.task", "llm_sra.policies", "llm_sra.playing")
ADVICE = (
    "the public interface is not the one of tests/api.txt (above: what differs). If that is on purpose, say in "
    "CHANGELOG.md what users must change, and run: .venv/bin/python tests/test_api.py"
)


def interface() -> str:
    """Public names with their signatures as the source has them, so that they read the same on every Python."""
    return "\n\n".join("\n".join([name, *described(import_module(name))]) for name in MODULES) + "\n"


def described(module: ModuleType) -> Iterator[str]:
    for name in sorted(public_names(module)):
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield from (f"    {line}" for line in lines_of(definition(value)))
            for keywords in unpacked(value):
                yield from (f"        {line}" for line in lines_of(definition(keywords)))
        else:
            yield f"    {name}"


def definition(value: Any) -> ast.stmt:
    [node] = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    return node


def unpacked(value: Any) -> Iterator[type]:
    """The records of keywords that a function takes as `**keywords: Unpack[Record]`: part of its signature."""
    node = definition(value)
    wanted = node.args.kwarg.annotation if isinstance(node, ast.FunctionDef) and node.args.kwarg else None
    found = re.fullmatch(r"Unpack\[(\w+)\]", ast.unparse(wanted)) if wanted else None
    if found:
        yield inspect.unwrap(value).__globals__[found[1]]


def public_names(module: ModuleType) -> set[str]:
    """Those of `__all__`, or else those that the module's own source defines."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    names: set[str] = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def lines_of(node: ast.stmt) -> Iterator[str]:
    """A definition without its body; of a class its public attributes and methods, and how it is made."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if not node.name.startswith("_") or node.name == "__init__":
            marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            yield f"{marks}def {node.name}({ast.unparse(node.args)}){returns}"
    elif isinstance(node, ast.ClassDef):
        marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
        yield f"{marks}class {node.name}({', '.join(map(ast.unparse, node.bases))})"
        for part in node.body:
            yield from (f"    {line}" for line in lines_of(part))
    elif isinstance(node, ast.AnnAssign | ast.Assign):
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if not ast.unparse(target).startswith("_"):
            yield ast.unparse(node)


def test_the_public_interface_is_the_announced_one() -> None:
    kept, found = SNAPSHOT.read_text(encoding="utf-8"), interface()
    if kept != found:
        changes = unified_diff(kept.splitlines(), found.splitlines(), "announced", "found", lineterm="", n=0)
        pytest.fail("\n".join([*changes, "", ADVICE]), pytrace=False)


def test_a_changed_signature_is_seen() -> None:
    before, after = (
        list(lines_of(ast.parse(f"class A(B):\n    x: int = 1\n    def f(self, a{more}) -> int: ...\n").body[0]))
        for more in ("", ", b=2")
    )
    assert before == ["class A(B)", "    x: int = 1", "    def f(self, a) -> int"]
    assert after == ["class A(B)", "    x: int = 1", "    def f(self, a, b=2) -> int"]


def test_what_is_private_may_change() -> None:
    text = "class A:\n    _x = 1\n    def _f(self): ...\n    def __init__(self, y: int): ...\n"
    assert list(lines_of(ast.parse(text).body[0])) == ["class A()", "    def __init__(self, y: int)"]


if __name__ == "__main__":
    SNAPSHOT.write_text(interface(), encoding="utf-8")
