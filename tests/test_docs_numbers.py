"""Numbers in sentences are those of the tables that they are taken from.

A paragraph with a decimal number says in a comment where its numbers stand: `<!-- rows: TABLE > ROW; ... -->` names
rows of tables, `<!-- only here -->` says that no table has them. `TABLE` is part of a heading above the table or of the
line right above it, `ROW` the first word or words of a row (`ROW*`: its beginning); `PAGE: TABLE > ROW` is another
page's. A number may be rounded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import pytest
from support import ROOT

BENCHMARKS = ROOT / "benchmarks" / "README.md"
TASKS = sorted((ROOT / "docs" / "tasks").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    BENCHMARKS,
    *(ROOT / "docs" / name for name in ("quickstart.md", "paper.md", "equilibria.md")),
    *TASKS,
]
MEASURED = "What was measured"  # on the page of a task, the section that this module is about
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = re.compile(r"<!--\s+rows:\s+(.*?)\s+-->", re.DOTALL)
ONLY_HERE = re.compile(r"<!--\s+only\s+here\s+-->")
NO_FIGURE = re.compile(r"<!--.*?-->|`[^`]*`|\]\([^)]*\)|\b(?:arXiv\s|Python\s|Apache-)\d+\.\d+", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?![\w.]*\d)(?!\w)")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        heads: The headings above the table, and the line right above it.
        cells: Of the row, as they are written.
    """

    heads: tuple[str, ...]
    cells: tuple[str, ...]


def blocks(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Paragraphs, items of lists and tables, each below the headings that it stands under."""
    heads: dict[int, str] = {}
    for part in re.split(r"\n\s*\n|\n(?=#+ |- |\d+\. )|(?<=\n)(?=\|)(?<!\|\n)", FENCE.sub("", text)):
        part = part.strip()
        if heading := re.match(r"(#+) (.+)", part):
            level = len(heading[1])
            heads = {depth: head for depth, head in heads.items() if depth < level} | {level: heading[2]}
            part = part[heading.end() :].strip()
        if part:
            yield tuple(heads.values()), part


@cache
def table_rows(text: str) -> tuple[Row, ...]:
    """All rows of all tables of a page, without their headers."""
    found: list[Row] = []
    above = ""
    for heads, part in blocks(text):
        if part.startswith("|"):
            cells = [tuple(cell.strip(" *") for cell in line.strip("|").split("|")) for line in part.splitlines()]
            found += [Row((*heads, above), row) for row in cells[2:]]
        above = part.splitlines()[-1]
    return tuple(found)


def sentences(page: Path) -> list[str]:
    """The paragraphs of a page with a decimal number in them; of a task's page, those under `MEASURED`."""
    parts = [(heads, part) for heads, part in blocks(page.read_text(encoding="utf-8")) if not part.startswith("|")]
    if page in TASKS:
        parts = [(heads, part) for heads, part in parts if any(head.startswith(MEASURED) for head in heads)]
    return [part for _, part in parts if numbers(part)]


def numbers(text: str) -> list[str]:
    """The decimal numbers of a text, but for those in comments, code, links and versions."""
    return NUMBER.findall(NO_FIGURE.sub("", text))


def begins(cell: str, row: str) -> bool:
    """Whether a row's first cell is the one that a comment means."""
    return cell.startswith(row[:-1]) if row.endswith("*") else f"{cell} ".startswith(f"{row} ")


def named_rows(page: Path, places: str) -> list[Row]:
    """The rows that a comment names."""
    found = []
    for place in " ".join(places.split()).split("; "):
        other, colon, rest = place.rpartition(": ")
        table, arrow, first = rest.partition(" > ")
        assert arrow, f"expected TABLE > ROW, got {place!r}"
        text = (page.parent / other if colon else page).read_text(encoding="utf-8")
        rows = [
            row
            for row in table_rows(text)
            if any(table.lower() in head.lower() for head in row.heads) and begins(row.cells[0], first)
        ]
        assert rows, f"{page.name}: no row {place!r}"
        found += rows
    return found


def is_among(number: str, cells: set[str]) -> bool:
    """Whether a number is one of these, rounded to its own digits; a sign that it does not have is not asked for."""
    digits = Decimal(1).scaleb(-len(number.partition(".")[2]))
    for cell in cells:
        value, said = Decimal(cell), Decimal(number)
        if number[0] not in "+-":
            value = abs(value)
        if value.quantize(digits, ROUND_HALF_UP) == said:
            return True
    return False


def missing(page: Path, part: str) -> list[str]:
    """The numbers of a paragraph that are in no row that it names."""
    if ONLY_HERE.search(part):
        return []
    places = ROWS.search(part)
    if not places:
        return numbers(part)
    cells = {number for row in named_rows(page, places[1]) for cell in row.cells for number in NUMBER.findall(cell)}
    return [number for number in numbers(part) if not is_among(number, cells)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_numbers_in_sentences_are_those_of_the_tables(page: Path) -> None:
    wrong = {part: missing(page, part) for part in sentences(page)}
    assert {part: found for part, found in wrong.items() if found} == {}


def test_pages_with_figures_have_sentences_that_are_held_against_tables() -> None:
    assert len([part for page in PAGES for part in sentences(page) if ROWS.search(part)]) >= 12


def test_a_number_that_differs_from_its_table_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    table = (
        "## Arms\n\nSampled:\n\n| arm | ippo | interval |\n|---|---|---|\n"
        "| srpo | +0.24 | [-0.19, 0.29] |\n| **fcp** | 2.58 | |\n"
    )
    said = "SRPO is 0.24 ahead (-0.19 to 0.29); fcp says 2.6. <!-- rows: sampled > srpo; sampled > fcp -->"
    page.write_text(f"{table}\n{said}\n")
    assert sentences(page) == [said]
    assert missing(page, said) == []
    assert missing(page, said.replace("0.24", "0.25")) == ["0.25"]
    assert missing(page, said.replace("-0.19", "+0.19")) == ["+0.19"]
    assert missing(page, said.replace("; sampled > fcp", "")) == ["2.6"]
    assert missing(page, "It is 0.24.") == ["0.24"]  # says nothing of where it stands
    with pytest.raises(AssertionError, match="no row"):
        missing(page, said.replace("sampled > srpo", "greedy > srpo"))


def test_the_readmes_results_are_those_of_the_quickstarts_page() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    output = next(block for _, block in FENCE.findall(text) if block.startswith("Share of problems solved, sampled"))
    shown = {tuple(re.split(r"\s{2,}", line.strip())) for line in output.splitlines()}
    rows = [row.cells for row in table_rows((ROOT / "README.md").read_text(encoding="utf-8")) if len(row.cells) == 5]
    assert len(rows) == 11
    assert [row for row in rows if row not in shown] == []


@pytest.mark.parametrize("task", ["kitchen", "tag", "hanabi"])
def test_the_differences_on_the_benchmarks_page_are_those_of_the_tasks_page(task: str) -> None:
    rows = named_rows(BENCHMARKS, f"The paper's other benchmarks > {task.capitalize() if task == 'hanabi' else task}")
    page = (ROOT / "docs" / "tasks" / f"{task}.md").read_text(encoding="utf-8")
    own = [
        row.cells
        for row in table_rows(page)
        if row.cells[0].startswith("SRPO - IPPO, ") and "return" not in row.cells[0]
    ]
    known = {number for cells in own for cell in cells for number in NUMBER.findall(cell)}
    shown = [number for row in rows for cell in row.cells for number in NUMBER.findall(cell)]
    assert len(shown) >= 8
    assert [number for number in shown if number not in known] == []
