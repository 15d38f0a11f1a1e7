"""Kitchen: two seats carry onions to one pot on a small grid, and every move costs the seat that makes it."""

from tasks.kitchen.task import Kitchen

__all__ = ["Kitchen"]
