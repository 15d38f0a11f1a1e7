"""Imports point one way: the table below is the one of the design, and the checkout's imports are held against it."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("llm_sra", "tasks", "recipes", "eval")

# Who may import whom, of ours. A room is a module or folder of llm_sra, or one of the packages beside it; each may
# import itself. Every permission here is used.
MAY_IMPORT = {
    "llm_sra.task": (),
    "llm_sra.errors": (),
    "llm_sra.files": (),
    "llm_sra.untrusted": (),
    "llm_sra.registry": ("task", "errors", "untrusted"),
    "llm_sra.runs": ("task", "files", "untrusted", "registry"),
    "llm_sra.models": ("task", "files", "registry", "untrusted"),
    "llm_sra.engines": ("task", "errors", "models"),
    "llm_sra.policies": ("task", "errors", "files", "untrusted", "episodes"),
    "llm_sra.partners": (
        "task", "errors", "registry", "runs", "untrusted", "models", "engines", "policies",
    ),
    "llm_sra.protocol": ("task", "errors"),
    "llm_sra.playing": ("task", "errors", "protocol", "engines", "policies"),
    "llm_sra.episodes": ("task", "files", "untrusted"),
    "llm_sra.objectives": ("errors",),
    "llm_sra.games": (),
    "llm_sra.trainer": (
        "task", "errors", "files", "registry", "models", "engines", "policies", "playing", "episodes", "objectives",
        "protocol", "untrusted",
    ),
    "llm_sra.evaluation": (
        "task", "errors", "files", "runs", "untrusted", "models", "engines", "policies", "partners", "playing",
        "episodes", "protocol",
    ),
    "llm_sra.training": (
        "task", "registry", "runs", "models", "engines", "policies", "partners", "trainer", "evaluation",
        "protocol",
    ),
    "llm_sra.exporting": (
        "task", "errors", "files", "registry", "engines", "models", "runs", "untrusted", "evaluation", "episodes",
        "playing", "policies", "protocol",
    ),
    "llm_sra": ("task", "playing", "training", "evaluation", "exporting"),  # its __init__.py, which re-exports
}  # fmt: skip
MAY_IMPORT = {room: tuple(f"llm_sra.{other}" for other in others) for room, others in MAY_IMPORT.items()}
LIBRARY = tuple(MAY_IMPORT)
MAY_IMPORT |= {
    "tasks": ("llm_sra.task", "llm_sra.policies", "llm_sra.games"),
    "eval": (*LIBRARY, "tasks"),
    "recipes": (*LIBRARY, "tasks", "eval"),
}


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """`llm_sra.engines.base` -> `llm_sra.engines`; `tasks.worksheet` -> `tasks`; `llm_sra.train` -> `llm_sra`."""
    parts = module.split(".")
    room = ".".join(parts[:2]) if parts[0] == "llm_sra" else parts[0]
    return room if room in MAY_IMPORT else parts[0]


def imported_names(path: Path, root: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in it; a name taken from a module counts as part of it."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def files_of(root: Path) -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    return {module_name(path, root): path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))}


def file_imports(root: Path) -> dict[str, set[str]]:
    """By module, the modules of ours whose files it imports: the longest part of a dotted name that is a file."""
    files = files_of(root)
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        for name in imported_names(path, root):
            parts = name.split(".")
            prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            target = next((prefix for prefix in prefixes if prefix in files), None)
            if target is not None and target != module:
                found.setdefault(module, set()).add(target)
    return found


def room_imports(root: Path) -> dict[tuple[str, str], str]:
    """Every import of one room by another, and a file that holds it."""
    found = {}
    for module, path in files_of(root).items():
        for name in imported_names(path, root):
            importer, imported = room_of(module), room_of(name)
            if name.split(".")[0] in PACKAGES and imported != importer:
                found[importer, imported] = str(path.relative_to(root))
    return found


def against_the_table(root: Path) -> list[str]:
    found = room_imports(root).items()
    return [f"{path}: {a} may not import {b}" for (a, b), path in found if b not in MAY_IMPORT[a]]


def test_imports_follow_the_table():
    assert against_the_table(ROOT) == []


def test_every_permission_of_the_library_is_used():
    used = set(room_imports(ROOT))
    assert [(a, b) for a in (*LIBRARY, "tasks") for b in MAY_IMPORT[a] if (a, b) not in used] == []


def test_no_files_import_each_other_in_a_circle():
    TopologicalSorter(file_imports(ROOT)).prepare()  # raises CycleError and names the circle


def test_every_room_has_a_row_in_the_table():
    paths = [path for path in (ROOT / "llm_sra").iterdir() if path.suffix == ".py" or path.is_dir()]
    rooms = {f"llm_sra.{path.stem}" for path in paths if not path.name.startswith("__")}
    assert rooms == {room for room in LIBRARY if room != "llm_sra"}


@pytest.mark.parametrize(
    ("file", "text", "offence"),
    [
        ("llm_sra/playing.py", "import tasks.worksheet", "llm_sra.playing may not import tasks"),
        ("llm_sra/training.py", "def f():\n    from recipes import cli", "llm_sra.training may not import recipes"),
        ("llm_sra/trainer/rows.py", "from llm_sra import games", "llm_sra.trainer may not import llm_sra.games"),
        ("llm_sra/engines/base.py", "from ..playing import play", "llm_sra.engines may not import llm_sra.playing"),
        ("llm_sra/engines/__init__.py", "from .. import playing", "llm_sra.engines may not import llm_sra.playing"),
        ("llm_sra/models/loading.py", "from llm_sra import train", "llm_sra.models may not import llm_sra"),
        ("tasks/worksheet/task.py", "from llm_sra.playing import x", "tasks may not import llm_sra.playing"),
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
    (tmp_path / "llm_sra/playing.py").write_text("from . import task\nfrom .engines.base import Engine\nimport torch")
    (tmp_path / "recipes/cli.py").write_text("import llm_sra.runs\nfrom eval import report\nimport tasks")
    assert against_the_table(tmp_path) == []


def test_a_circle_of_two_files_in_one_room_is_found(tmp_path):
    (tmp_path / "llm_sra" / "policies").mkdir(parents=True)
    (tmp_path / "llm_sra/policies/one.py").write_text("from llm_sra.policies.two import x")
    (tmp_path / "llm_sra/policies/two.py").write_text("def f():\n    from llm_sra.policies import one")
    with pytest.raises(CycleError, match="cycle"):
        TopologicalSorter(file_imports(tmp_path)).prepare()
