"""Scripted partners for GSM8K. None of them can solve a problem; each shows what a seat does with a bad partner."""

import random
from collections.abc import Callable, Mapping

from llm_sra.task import ScriptedPartner
from tasks.gsm8k.scratchpad import last_step


class Silent(ScriptedPartner):
    """Writes nothing."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """The empty string."""
        return ""


class Copycat(ScriptedPartner):
    """Repeats the other seat's last step; writes nothing where there is none."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """The last step, letter by letter."""
        return last_step(messages)


class Wrong(ScriptedPartner):
    """Finishes at its first turn with a wrong answer: a number and a half, where every reference is a whole number."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """`#### number`, always wrong."""
        return f"#### {rng.randrange(1000)}.5"


PARTNERS: Mapping[str, Callable[[], ScriptedPartner]] = {"silent": Silent, "copycat": Copycat, "wrong": Wrong}
