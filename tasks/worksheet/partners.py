"""Scripted partners for the worksheet. Each reads the sheet from its messages alone and keeps no memory.

All but the saboteur, the spoiler and the vandal pass once the chain of right partial sums is complete.
"""

import random
from collections.abc import Callable, Mapping
from typing import ClassVar

from llm_sra.task import ScriptedPartner
from tasks.worksheet.sheet import CROSS_OUT, PASS, read


class Diligent(ScriptedPartner):
    """Always writes the next right line."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return read(messages).next_line


class Lazy(ScriptedPartner):
    """Always passes."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return PASS


class Half(ScriptedPartner):
    """Writes the next right line with probability 0.5 at each turn; else passes."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return read(messages).next_line if rng.random() < 0.5 else PASS


class Sloppy(ScriptedPartner):
    """Writes the next right line, but with probability 0.3 a plausible wrong one instead."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sheet = read(messages)
        if sheet.complete:
            return PASS
        return sheet.wrong_line(rng) if rng.random() < 0.3 else sheet.next_line


class Late(ScriptedPartner):
    """Passes until its own last turn, then writes the next right line: at most one link of the chain.

    Args:
        turns: Turns of an episode, both seats together; the task's default if not given.
    """

    def __init__(self, turns: int = 6) -> None:
        self.turns = turns

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sheet = read(messages)
        is_last_turn = len(sheet.lines) + 2 >= self.turns
        return sheet.next_line if is_last_turn else PASS


class Saboteur(ScriptedPartner):
    """Always writes a plausible wrong line, also after the chain is complete."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return read(messages).wrong_line(rng)


class Spoiler(ScriptedPartner):
    """Writes the next right line, but with probability 0.1 crosses out the sheet, also after the chain is complete."""

    rate: ClassVar[float] = 0.1

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return CROSS_OUT if rng.random() < self.rate else read(messages).next_line


class Vandal(Spoiler):
    """As the spoiler, with probability 0.2."""

    rate = 0.2


class Repairer(ScriptedPartner):
    """Writes the next right line directly after a wrong line of the other seat; else passes."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        sheet = read(messages)
        return sheet.next_line if sheet.verdicts[-1:] == ("wrong",) else PASS


PARTNERS: Mapping[str, Callable[[], ScriptedPartner]] = {
    "diligent": Diligent,
    "lazy": Lazy,
    "half": Half,
    "sloppy": Sloppy,
    "late": Late,
    "saboteur": Saboteur,
    "spoiler": Spoiler,
    "vandal": Vandal,
    "repairer": Repairer,
}
