"""Worksheet: two seats fill one sheet, line by line, to add up a few numbers. The embedded default task."""

from tasks.worksheet.task import Worksheet

__all__ = ["Worksheet"]
