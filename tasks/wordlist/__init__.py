"""Wordlist: two seats fill one list of animals, colours, ... in turns; a task for models that have read English."""

from tasks.wordlist.task import WordList

__all__ = ["WordList"]
