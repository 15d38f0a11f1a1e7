"""Imports point one way: the table below is the one of the design, and the checkout's imports are held against it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("llm_sra", "tasks", "recipes", "eval")

# Who may import whom, of ours. A unit is a module or folder of llm_sra, or one of the packages beside it; each may
# import itself. A name that ends in ".*" stands for all units of that package but llm_sra.games, the oracle.
MAY_IMPORT = {
    "llm_sra.task": (),
    "llm_sra.adapters": (),
    "llm_sra.risk": (),
    "llm_sra.diagnostics": (),
    "llm_sra.games": ("llm_sra.risk",),
    "llm_sra.models": (),
    "llm_sra.runs": ("llm_sra.task",),
    "llm_sra.loading": ("llm_sra.task",),
    "llm_sra.rosters": ("llm_sra.task", "llm_sra.loading", "llm_sra.policies"),
    "llm_sra.policies": ("llm_sra.task",),
    "llm_sra.render": ("llm_sra.task",),
    "llm_sra.engines": ("llm_sra.task", "llm_sra.adapters", "llm_sra.render"),
    "llm_sra.play": ("llm_sra.task", "llm_sra.policies", "llm_sra.engines", "llm_sra.render"),
    "llm_sra.credit": ("llm_sra.task", "llm_sra.risk"),
    "llm_sra.divergence": (
        "llm_sra.task",
        "llm_sra.policies",
        "llm_sra.engines",
        "llm_sra.matrix",
        "llm_sra.rosters",
    ),
    "llm_sra.cards": ("llm_sra.engines", "llm_sra.runs"),
    "llm_sra.hub": (),
    "llm_sra.exporting": (
        "llm_sra.task",
        "llm_sra.adapters",
        "llm_sra.cards",
        "llm_sra.hub",
        "llm_sra.loading",
        "llm_sra.models",
        "llm_sra.runs",
    ),
    "llm_sra.identity": ("llm_sra.policies",),
    "llm_sra.store": ("llm_sra.task", "llm_sra.identity"),
    "llm_sra.studio": ("llm_sra.*",),
    "llm_sra.matrix": ("llm_sra.task", "llm_sra.policies", "llm_sra.rosters", "llm_sra.studio"),
    "llm_sra.records": ("llm_sra.diagnostics", "llm_sra.matrix", "llm_sra.store"),
    "llm_sra.filling": ("llm_sra.task", "llm_sra.policies", "llm_sra.engines", "llm_sra.play", "llm_sra.store"),
    "llm_sra.world": ("llm_sra.task", "llm_sra.identity", "llm_sra.loading", "llm_sra.runs"),
    "llm_sra.evaluation": ("llm_sra.*",),
    "llm_sra.trainer": ("llm_sra.*",),
    "llm_sra.training": ("llm_sra.*",),
    "llm_sra": ("llm_sra.*",),  # its __init__.py, which re-exports
    "tasks": ("llm_sra.task", "llm_sra.policies", "llm_sra.games"),
    "eval": ("llm_sra.*", "llm_sra", "llm_sra.games", "tasks"),
    "recipes": ("llm_sra.*", "llm_sra", "llm_sra.games", "tasks", "eval"),
}


def unit_of(module: str) -> str:
    """`llm_sra.engines.base` -> `llm_sra.engines`; `tasks.worksheet` -> `tasks`; `llm_sra.train` -> `llm_sra`."""
    parts = module.split(".")
    unit = ".".join(parts[:2]) if parts[0] == "llm_sra" else parts[0]
    return unit if unit in MAY_IMPORT else parts[0]


def imported_modules(path: Path, root: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in it; a name taken from a module counts as part of it."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def edges(root: Path) -> dict[tuple[str, str], str]:
    """Every import of one unit by another, and a file that holds it."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root).with_suffix("").parts
            importer = unit_of(".".join(name[:-1] if name[-1] == "__init__" else name))
            for module in imported_modules(path, root):
                imported = unit_of(module)
                if module.split(".")[0] in PACKAGES and imported != importer:
                    found[importer, imported] = str(path.relative_to(root))
    return found


def allowed(importer: str, imported: str) -> bool:
    whole = "llm_sra.*" in MAY_IMPORT[importer] and imported.startswith("llm_sra.") and imported != "llm_sra.games"
    return whole or imported in MAY_IMPORT[importer]


def against_the_table(root: Path) -> list[str]:
    return [f"{path}: {a} may not import {b}" for (a, b), path in edges(root).items() if not allowed(a, b)]


def test_imports_follow_the_table():
    assert against_the_table(ROOT) == []


def test_no_units_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for importer, imported in edges(ROOT):
        graph.setdefault(importer, set()).add(imported)
    TopologicalSorter(graph).prepare()  # raises CycleError and names the circle


def test_every_unit_has_a_row_in_the_table():
    paths = [path for path in (ROOT / "llm_sra").iterdir() if path.suffix == ".py" or path.is_dir()]
    units = {f"llm_sra.{path.stem}" for path in paths if not path.name.startswith("__")}
    assert units <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("file", "text", "offence"),
    [
        ("llm_sra/play.py", "import tasks.worksheet", "llm_sra.play may not import tasks"),
        ("llm_sra/training.py", "def f():\n    from recipes import cli", "llm_sra.training may not import recipes"),
        ("llm_sra/trainer/rows.py", "from llm_sra import games", "llm_sra.trainer may not import llm_sra.games"),
        ("llm_sra/engines/base.py", "from ..play import play", "llm_sra.engines may not import llm_sra.play"),
        ("llm_sra/engines/__init__.py", "from .. import play", "llm_sra.engines may not import llm_sra.play"),
        ("llm_sra/render.py", "from llm_sra import train", "llm_sra.render may not import llm_sra"),
        ("tasks/worksheet/task.py", "from llm_sra.play import x", "tasks may not import llm_sra.play"),
        ("eval/cross_play.py", "from recipes.cli import main", "eval may not import recipes"),
    ],
)
def test_an_import_against_the_direction_is_found(tmp_path, file, text, offence):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert against_the_table(tmp_path) == [f"{file}: {offence}"]


def test_imports_along_the_direction_pass(tmp_path):
    for folder in ("llm_sra", "recipes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "llm_sra/play.py").write_text("from . import render\nfrom .engines.base import Engine\nimport torch")
    (tmp_path / "recipes/cli.py").write_text("import llm_sra.runs\nfrom eval import report\nimport tasks")
    assert against_the_table(tmp_path) == []
