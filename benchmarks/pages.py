"""Tables in pages of the documentation: each stands between two lines that name the command that makes it."""

from pathlib import Path

from llm_sra.files import write_whole


def between(page: Path, begin: str, end: str) -> str:
    """What stands between two lines of a page.

    Args:
        page: Markdown.
        begin: The line before it, with its line break.
        end: The line after it, the same.
    """
    return page.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0].strip("\n")


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two lines of a page.

    Args:
        page: Markdown.
        begin: The line before it, with its line break.
        end: The line after it, the same.
        text: What is put there, ended by a line break.
    """
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    write_whole(page, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
