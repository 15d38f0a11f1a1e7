"""What MkDocs is taught: formulas become MathML, links out of `docs/` lead to copies, every task's page is listed.

All as the site is built, so that a page needs neither a script nor another host. Owns no text.
"""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
COPIES = "repository"  # folder of the site with files from outside `docs/`
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
UNKNOWN = {r"\Big\lbrace": r"\left\{", r"\Big\rbrace": r"\right\}"}  # to latex2mathml
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of tasks."""
    tasks = [path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs" / "tasks").glob("*.md"))]
    config.nav = [{"Tasks": tasks} if "Tasks" in part else part for part in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside `docs/` that a page links to, and what these link to in turn."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        for target in targets(path, FENCE.sub("", (ROOT / path).read_text(encoding="utf-8"))):
            if target in seen or target.startswith("docs/") or not (ROOT / target).is_file():
                continue
            seen.add(target)
            files.append(File.generated(config, site_path(target), abs_src_path=str(ROOT / target)))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links by the repository's layout into links by the site's."""
    here = source_path(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = target_of(here, link[2])
        if target is None:
            return link[0]
        if (ROOT / target).is_dir():
            raise PluginError(f"{here}: link to a file, as the site has no page for the folder {link[2]}")
        return f"{link[1]}{posixpath.relpath(site_path(target), posixpath.dirname(page.file.src_uri))}{link[3] or ''})"

    parts = re.split(f"({FENCE.pattern})", markdown, flags=FENCE.flags)
    return "".join(part if number % 2 else LINK.sub(moved, part) for number, part in enumerate(parts))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML."""

    def drawn(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        text = html.unescape(formula[2]).strip()
        for name, known in UNKNOWN.items():
            text = text.replace(name, known)
        return convert(text, display=display)

    return FORMULA.sub(drawn, content)


def targets(path: str, text: str) -> list[str]:
    """What a file links to in the repository."""
    found = (target_of(path, link[2]) for link in LINK.finditer(text))
    return [target for target in found if target is not None]


def target_of(path: str, link: str) -> str | None:
    """The path in the repository that a link leads to; None if it leads to another host."""
    return None if "://" in link else posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{COPIES}/{path}"


def source_path(path: str) -> str:
    """Where a file of the site lies in the repository."""
    return path.removeprefix(f"{COPIES}/") if path.startswith(f"{COPIES}/") else f"docs/{path}"
