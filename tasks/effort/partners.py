"""Scripted partners for matrix games. Each reads the words that it may say from its messages, and no more."""

import random
from collections.abc import Callable, Mapping

from llm_sra.task import ScriptedPartner

ASK = "Answer with one word: "  # how the last line of what a seat sees begins


def words(messages: list[dict[str, str]]) -> list[str]:
    """The words that a seat may say, in the order of its actions.

    Raises:
        ValueError: If the messages do not end with the task's question.
    """
    line = messages[-1]["content"].rpartition("\n")[2]
    if not line.startswith(ASK):
        raise ValueError(f"expected messages that end with a line like '{ASK}rest, work', got {line!r}")
    return line.removeprefix(ASK).split(", ")


class FirstAction(ScriptedPartner):
    """Always says the word of the first action: rests, hunts the hare."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return words(messages)[0]


class LastAction(ScriptedPartner):
    """Always says the word of the last action: works, hunts the stag."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return words(messages)[-1]


class Random(ScriptedPartner):
    """Says any of the words, all with the same probability."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        return rng.choice(words(messages))


PARTNERS: Mapping[str, Callable[[], ScriptedPartner]] = {
    "first_action": FirstAction,
    "last_action": LastAction,
    "random": Random,
}
