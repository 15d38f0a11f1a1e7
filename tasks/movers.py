"""Scripted partners for all tasks that show a seat its moves: they read their moves in what they are shown."""

import random
from collections.abc import Callable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.moves import shown_moves


class Random(ScriptedPartner):
    """Plays each of its moves equally often."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """One of the moves."""
        return rng.choice(shown_moves(messages[-1]["content"]))


class FirstLegal(ScriptedPartner):
    """Always plays the first of its moves."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """The first move."""
        return shown_moves(messages[-1]["content"])[0]


class LastLegal(ScriptedPartner):
    """Always plays the last of its moves."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """The last move."""
        return shown_moves(messages[-1]["content"])[-1]


class Ends(ScriptedPartner):
    """Plays the first or the last of its moves, equally often."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """One of the two."""
        moves = shown_moves(messages[-1]["content"])
        return rng.choice((moves[0], moves[-1]))


MOVERS: Mapping[str, Callable[[], ScriptedPartner]] = {
    "random": Random,
    "first_legal": FirstLegal,
    "last_legal": LastLegal,
    "ends": Ends,
}
