"""`llm-sra report`: one page, and the same as Markdown, on what runs were compared and with what result.

`gather` reads; `headline` and `robustness` make sentences and tables of results; `curves` and `figures` draw;
`sections` puts all of it in order; `page`, `markdown` and `write` write. Only the page holds `episodes`.
"""

from eval.report.gather import Gathered, ReportError, gather
from eval.report.write import write_report

__all__ = ["Gathered", "ReportError", "gather", "write_report"]
