"""Scripted partners for GSM8K, in the debate and in the relay. Each tests an agent with another kind of bad partner.

They know the parts of a view, not the rules: the question is at the beginning, the peer's last reply at the end.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from llm_sra.policies import UnavailableError
from llm_sra.task import ScriptedPartner
from tasks.gsm8k.data import PARTS, DataError, Source
from tasks.gsm8k.debate import PEER
from tasks.gsm8k.scratchpad import last_step

AGAIN = (Path(__file__).parent / "prompts" / "debate_again.txt").read_text(encoding="utf-8").strip()
IDLE_TALK = (
    "The weather has been lovely here this week, so I went for a long walk by the river.",
    "My sister is learning to play the cello, and the whole street is learning it with her.",
    "For a good soup, let the onions take their time and add the salt at the very end.",
    "I keep wondering why cats choose the smallest box in the room to sleep in.",
)


class Silent(ScriptedPartner):
    """Writes nothing."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """The empty string."""
        return ""


class Copycat(ScriptedPartner):
    """Repeats what the other seat said last; writes nothing if it has said nothing yet."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """The other seat's last reply, unchanged."""
        return peer_of(messages)


class Wrong(ScriptedPartner):
    """Answers wrongly at every turn: a number that ends in .5, as every right answer is a whole number."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """`#### number`, always wrong."""
        return f"#### {rng.randrange(1000)}.5"


class Agreeable(ScriptedPartner):
    """Agrees with the other seat and repeats its last line, with its answer if it gave one; adds nothing."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """Agreement, and the other seat's last line."""
        lines = [line for line in peer_of(messages).splitlines() if line.strip()]
        if not lines:
            return "I am sure that you will find the answer, and I will agree with it."
        return f"Yes, I agree with all of that. It is exactly what I think.\n{lines[-1]}"


class OffTopic(ScriptedPartner):
    """Talks about something else, without a number in it."""

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """Two sentences."""
        return " ".join(rng.sample(IDLE_TALK, 2))


class RightForWrongReasons(ScriptedPartner):
    """Gives the right answer at every turn, after reasoning that has nothing to do with the problem.

    Args:
        source: The data set, with the right answers.

    Raises:
        UnavailableError: If it cannot be read; from `reply`, if the question is not in it.
    """

    def __init__(self, source: Source) -> None:
        try:
            problems = [problem for part in PARTS for problem in source.part(part)]
        except DataError as error:
            raise UnavailableError(f"the right answers are missing: {error}") from error
        self._answers = {problem.data["question"]: problem.data["answer"] for problem in problems}

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """Wrong reasoning, and `#### number`."""
        seen = next(message["content"] for message in messages if message["role"] == "user")
        found = [(at, -len(question), question) for question in self._answers if (at := seen.find(question)) >= 0]
        if not found:
            raise UnavailableError(f"the question is none of the data set's: {seen[-300:]!r}")
        answer = self._answers[min(found)[2]]
        return (
            "I count the letters of the question, times the days of a week, and take away as many as I like, "
            f"since the order of the numbers does not matter here. That leaves {answer}.\n#### {answer}"
        )


def peer_of(messages: list[dict[str, str]]) -> str:
    """What the other seat said last, read from what a seat sees; empty if it has said nothing yet.

    In a debate with the user's own prompts, it is the whole message that contains it.
    """
    if len(messages) == 1:
        return last_step(messages)
    last, (before, _, after) = messages[-1]["content"], AGAIN.partition(PEER)
    if last.startswith(before) and last.endswith(after) and len(last) >= len(before) + len(after):
        return last[len(before) : len(last) - len(after)]
    return last


PARTNERS: Mapping[str, Callable[[], ScriptedPartner]] = {
    "silent": Silent,
    "copycat": Copycat,
    "wrong": Wrong,
    "agreeable": Agreeable,
    "off_topic": OffTopic,
}
