"""`llm-sra report`: one page, and the same as Markdown, that says what runs were compared and what came out.

`gather` reads, `settings`, `headline` and `robustness` say what it means, `figures` draws, `sections` puts it in order,
`page` and `markdown` write. Episodes go from `episodes` into the page alone.
"""

from eval.report.gather import Gathered, ReportError, gather
from eval.report.write import write_report

__all__ = ["Gathered", "ReportError", "gather", "write_report"]
