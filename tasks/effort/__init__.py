"""Effort: any two-player matrix game as text, so that training can be checked against exact equilibria."""

from tasks.effort.task import Effort

__all__ = ["Effort"]
