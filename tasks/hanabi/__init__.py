"""Hanabi: each seat sees all cards but its own, and tells the others with few hints what to play."""

from tasks.hanabi.task import Hanabi

__all__ = ["Hanabi"]
