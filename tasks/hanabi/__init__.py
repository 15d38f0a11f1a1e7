"""Hanabi: each seat sees all cards except its own; a few hints tell the others what to play."""

from tasks.hanabi.task import Hanabi

__all__ = ["Hanabi"]
