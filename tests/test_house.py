"""The measures of a checkout's layout, on one that is made up."""

from pathlib import Path

import pytest

from benchmarks.house import Function, circles, entries, imports, widest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("llm_sra/rooms", "tasks", "recipes", "eval", "llm_sra/__pycache__"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "llm_sra/__init__.py").write_text("")
    (tmp_path / "llm_sra/one.py").write_text("from llm_sra.two import f\ndef wide(self, a, *b, c=1, **d): ...\n")
    (tmp_path / "llm_sra/two.py").write_text("def f(a, b, c):\n    from llm_sra import three\n")
    (tmp_path / "llm_sra/three.py").write_text("from . import one\nimport os\n")
    (tmp_path / "llm_sra/rooms/__init__.py").write_text("from llm_sra.rooms.part import g\n")
    (tmp_path / "llm_sra/rooms/part.py").write_text("from ..two import f\nclass A:\n    def g(self, x): ...\n")
    return tmp_path


def test_entries_are_files_and_folders_but_no_caches(root: Path) -> None:
    assert entries(root / "llm_sra") == 5


def test_imports_within_functions_and_relative_ones_are_followed(root: Path) -> None:
    assert imports(root) == {
        "llm_sra": set(),
        "llm_sra.one": {"llm_sra.two"},
        "llm_sra.two": {"llm_sra.three"},
        "llm_sra.three": {"llm_sra.one"},
        "llm_sra.rooms": {"llm_sra.rooms.part"},
        "llm_sra.rooms.part": {"llm_sra.two"},
    }


def test_a_circle_of_three_is_one_circle(root: Path) -> None:
    assert circles(imports(root)) == [["llm_sra.one", "llm_sra.three", "llm_sra.two"]]


def test_the_widest_function_is_the_one_with_most_parameters_without_self_and_stars(root: Path) -> None:
    assert widest(root) == Function("llm_sra.two.f", 3)
