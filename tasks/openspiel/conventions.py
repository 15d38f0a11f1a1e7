"""Scripted partners for single games of OpenSpiel: each keeps to one convention of what a signal means."""

import random
import re
from collections.abc import Callable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.moves import shown_moves


class Code(ScriptedPartner):
    """Names what it has in `lewis_signaling` and `trade_comm` by a number that is shifted, and reads it so.

    Attributes:
        shift: What is added to a state or item, modulo how many there are, to name it.
    """

    shift = 0

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """A message or utterance for what it has, or the action or trade that follows from what was said."""
        view = messages[-1]["content"]
        moves = shown_moves(view)
        if (state := _number(r"State: (\d+)", view)) is not None:
            return f"Message {(state + self.shift) % len(moves)}"
        if (said := _number(r"Message: (\d+)", view)) is not None:
            return f"Action {(said - self.shift) % len(moves)}"
        player, item = _number(r"Current turn: (\d+)", view), _number(r"My item: (\d+)", view)
        if player is None or item is None:
            raise ValueError(f"this partner plays lewis_signaling and trade_comm, got {view[:80]!r}")
        if moves[0].startswith("Utter"):
            return f"Utter {(item + self.shift) % len(moves)}"
        words = re.findall(r"\d+", view.partition("Comm history:")[2].partition("\n")[0])
        kinds = round(len(moves) ** 0.5)  # each item for each
        return f"Trade {item}:{(int(words[1 - player]) - self.shift) % kinds}"


class Shifted(Code):
    """One further."""

    shift = 1


class ShiftedTwice(Code):
    """Two further."""

    shift = 2


class Safe(ScriptedPartner):
    """Plays the action of `tiny_hanabi` that pays 8 with itself, whatever the cards are."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """The second move."""
        return shown_moves(messages[-1]["content"])[1]


class Signaller(ScriptedPartner):
    """Tells its card in `tiny_hanabi` by the last action (d0) or the first (d1): the one convention that pays 10."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """As first, its card; as second, the action that pays most if the first one's action told its card."""
        view = messages[-1]["content"]
        mine, action = _number(r"p1:d(\d)", view), _number(r"p0:a(\d)", view)
        if mine is None:
            return "p0a2" if "p0:d0" in view else "p0a0"
        if action == 1:
            return "p1a1"
        return "p1a2" if (action == 2) == (mine == 1) else "p1a0"


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


CONVENTIONS: Mapping[str, Mapping[str, Callable[[], ScriptedPartner]]] = {
    "lewis_signaling": {"plain": Code, "shifted": Shifted, "shifted_twice": ShiftedTwice},
    "tiny_hanabi": {"safe": Safe, "signaller": Signaller},
    "trade_comm": {"plain": Code, "shifted": Shifted, "shifted_twice": ShiftedTwice},
}
