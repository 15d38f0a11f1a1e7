"""The pages as a site, their links, and what they say of the code: fields, recipes, messages, numbers."""

import ast
import fnmatch
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support import ROOT

from eval.stats import discordance, problems_paired, problems_unpaired
from llm_sra.registry import shipped_models, shipped_recipes, shipped_tasks
from llm_sra.trainer.config import ModelArguments, SRPOConfig
from llm_sra.trainer.objective import ObjectiveArguments

DOCS = ROOT / "docs"
MARKDOWN = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").rglob("*.md"))
PAGES = sorted(DOCS.rglob("*.md"))
WIDEST = 100  # characters
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video)[^>]* src=[\"']?(https?:)?//|<link[^>]* href=[\"']?(https?:)?//"
)
OPENED = re.compile(r"@import|url\(\s*[\"']?(?:https?:)?//")
# `make` installs the lock, which has MkDocs: there it may not be missing.
LOCKED = (Path(sys.prefix) / ".installed").exists()


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of every table with this header."""
    found: list[list[str]] = []
    inside = False
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if line.strip() == header:
            inside = True
        elif inside and cells and set(cells[0]) != {"-"}:
            found.append(cells)
        inside = inside and bool(cells or line.strip() == header)
    return found


# -- the site --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a link or heading that is not there fails."""
    if importlib.util.find_spec("mkdocs") is None and not LOCKED:
        pytest.skip("MkDocs is not installed: pip install -e '.[dev]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", out]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_built(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()
    assert (site / "repository" / "benchmarks" / "index.html").is_file()


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        assert not LOADED.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not OPENED.search(style.read_text(encoding="utf-8")), style


def test_formulas_are_drawn_and_none_is_left_as_source(site: Path) -> None:
    text = (site / "objectives.html").read_text(encoding="utf-8")
    formulas = re.findall(r"<math.*?</math>", text, re.DOTALL)
    assert len(formulas) > 100
    assert not [formula for formula in formulas if "\\" in formula]
    assert "$" not in re.sub(r"<(script|math|code).*?</\1>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", [*MARKDOWN, *EXAMPLES, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_an_example_is_wider_than_a_page(page: Path) -> None:
    """What is wider than a page is cut at its right until one scrolls."""
    blocks = [found[2] for found in FENCE.finditer(page.read_text(encoding="utf-8"))]
    assert [line for block in blocks for line in block.splitlines() if len(line) > WIDEST] == []


# -- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*MARKDOWN, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository_or_are_addresses(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            parts = urlsplit(link)
            assert parts.scheme == "https" and "." in parts.netloc and not parts.username, link
        elif not link.startswith("#"):
            assert (page.parent / link.partition("#")[0]).is_file(), link


# -- recipes ---------------------------------------------------------------------------------------------------------


def default(field: Field) -> str:
    """A field's default as the tables have it."""
    value = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_every_field_of_ours_is_in_the_tables_with_its_default_and_its_words() -> None:
    of_config, of_model = ({field.name: field for field in fields(cls)} for cls in (SRPOConfig, ModelArguments))
    wanted = [
        [f"`{name}`", default(known[name]), known[name].metadata["help"]]
        for cls, known in ((ObjectiveArguments, of_config), (SRPOConfig, of_config), (ModelArguments, of_model))
        for name in cls.__annotations__
    ]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in wanted]
    assert rows("recipes.md", "| field | default | meaning |") == wanted, "the rows should be:\n" + "\n".join(lines)


def test_the_inherited_fields_of_the_table_exist_with_these_defaults() -> None:
    known = {f"`{field.name}`": field for field in fields(SRPOConfig)}
    listed = rows("recipes.md", "| field | default | what |")
    assert len(listed) > 30
    assert [row[:2] for row in listed] == [[row[0], default(known[row[0]])] for row in listed]


def test_every_recipe_is_in_the_table_once() -> None:
    table = " ".join(row[0] for row in rows("recipes.md", "| recipe | what | runs on |"))
    assert sorted(re.findall(r"`([^`]+)`", table)) == sorted(shipped_recipes())


def names_of_what_ships(text: str) -> list[str]:
    """What stands in backticks and begins with a task's name and a slash: the name of a recipe or a model."""
    return re.findall(rf"`((?:{'|'.join(shipped_tasks())})/[^`\s]+)`", FENCE.sub("", text))


@pytest.mark.parametrize("page", [*MARKDOWN, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_recipes_and_models_in_sentences_are_of_what_ships(page: Path) -> None:
    known = [*shipped_recipes(), *shipped_models()]
    named = names_of_what_ships(page.read_text(encoding="utf-8"))
    assert [name for name in named if not fnmatch.filter(known, name)] == []


def test_a_name_that_does_not_ship_would_be_found() -> None:
    assert names_of_what_ships("`worksheet/pupils` and `recipes/worksheet`") == ["worksheet/pupils"]
    assert len(names_of_what_ships((DOCS / "recipes.md").read_text(encoding="utf-8"))) > 30


def test_every_configuration_of_accelerate_is_named_on_the_page_of_engines() -> None:
    text = (DOCS / "engines.md").read_text(encoding="utf-8")
    assert all(path.name in text for path in (ROOT / "accelerate_configs").glob("*.yaml"))


# -- numbers and messages --------------------------------------------------------------------------------------------


def test_the_numbers_of_problems_are_those_of_the_code() -> None:
    listed = rows(
        "report.md", "| rates | different problems, each | the same problems, φ = 0 | the same problems, φ = 0.5 |"
    )
    assert len(listed) == 6
    for rates, *said in listed:
        first, later = map(float, rates.split(" and "))
        paired = [problems_paired(later - first, discordance(first, later, phi)) for phi in (0.0, 0.5)]
        assert said == [str(number) for number in (problems_unpaired(first, later), *paired)]


@cache
def texts() -> tuple[str, ...]:
    """All that the programs say: constants of the source, and the Makefile."""
    found = [re.sub(r'"? *\\\n\s*"?', " ", (ROOT / "Makefile").read_text())]
    for package in ("llm_sra", "recipes", "eval", "tasks"):
        for path in (ROOT / package).rglob("*.py"):
            found += list(constants(ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


def constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield " ".join(node.value.split()) if "\n" in node.value else node.value


def messages() -> list[str]:
    found = FENCE.findall((DOCS / "faq.md").read_text(encoding="utf-8"))
    return [" ".join(text.split()) for language, text in found if language == "text"]


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_page_is_one_that_the_programs_give(message: str) -> None:
    parts = [part for part in message.split("…") if re.search(r"\w", part)]
    assert max(map(len, parts)) >= 12  # or it would be found anywhere
    for part in parts:
        assert any(part.strip() in text for text in texts()), part
