"""TextArena: its games for two as tasks."""

from tasks.textarena.task import TextArena

__all__ = ["TextArena"]
