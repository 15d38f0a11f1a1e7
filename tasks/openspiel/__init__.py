"""OpenSpiel: its games for two and more players as tasks, with their observations and actions as text."""

from tasks.openspiel.task import OpenSpiel

__all__ = ["OpenSpiel"]
