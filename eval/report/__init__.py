"""`llm-sra report`: one page, and the same as Markdown, on what runs were compared and with what result.

`gather` reads; `headline` and `robustness` put results into words and tables; `curves` and `figures` draw; `sections`
orders it all; `page`, `markdown` and `write` write. `episodes` go into the page alone.
"""

from eval.report.gather import Gathered, ReportError, gather
from eval.report.write import write_report

__all__ = ["Gathered", "ReportError", "gather", "write_report"]
