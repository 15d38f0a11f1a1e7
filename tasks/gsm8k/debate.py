"""The rules of the debate: all seats answer at once, round after round, and each sees its peers' last answers.

Source: the LLM task of arXiv 2602.21515. `answers` reads the answers, `data` loads the problems.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from llm_sra.task import Message, Outcome, Reward
from tasks.gsm8k.answers import final_answer
from tasks.gsm8k.repetition import repetition

QUESTION, PEER = "{question}", "{peer}"
PLACEHOLDER = r"\{question\}|\{peer\}"
SHORTEST = 20  # least characters of a quote: a shorter text may be the reply's own


@dataclass(frozen=True)
class Rounds:
    """A problem and what was answered so far.

    Attributes:
        question: The problem.
        reference: Its right answer.
        said: The replies of each round, by seat.
        answers: The answers of each round, by seat; None if a reply has none.
    """

    question: str
    reference: Fraction
    said: tuple[Mapping[str, str], ...] = ()
    answers: tuple[Mapping[str, Fraction | None], ...] = ()

    def right(self, number: int, seat: str) -> bool:
        """Whether a seat's answer of a round is the reference."""
        return self.answers[number][seat] == self.reference


class Debate:
    """The rules.

    In round 0 a seat sees the question; later the question, its own last reply and those of its peers. A seat earns γ^r
    in round r if its own reply of that round is right. `solved` means that all are right in the last round. It pays
    nothing: if it did, an adversary could prevent that reward by answering wrongly itself.

    Args:
        seats: The seats, which all answer in every round.
        rounds: Number of rounds, 1 or more.
        gamma: Discount from one round to the next, in [0, 1].
        first: Prompt of round 0; `{question}` stands for the question.
        again: Prompt of later rounds; `{peer}` stands for what the others said.
        strict: Read only `#### number` as an answer.

    A quote, text that a reply copies word for word from its prompt (question, instruction), is not read and earns
    nothing.
    """

    def __init__(
        self, seats: Sequence[str], rounds: int, gamma: float, first: str, again: str, strict: bool = False
    ) -> None:
        self.seats, self.rounds, self.gamma, self.strict = tuple(seats), rounds, gamma, strict
        self._first, self._again = first, again
        parts = (part.strip() for prompt in (first, again) for part in re.split(PLACEHOLDER, prompt))
        self._instructions = tuple(part for part in parts if len(part) >= SHORTEST)

    def start(self, question: str, reference: Fraction) -> Rounds:
        """The state before the first round."""
        return Rounds(question, reference)

    def actors(self, state: Rounds) -> tuple[str, ...]:
        """All seats at once, until the rounds are over."""
        return self.seats if len(state.said) < self.rounds else ()

    def view(self, state: Rounds, seat: str) -> Sequence[Message]:
        """The question; then the seat's own last reply, and its peers'."""
        messages = [Message("user", self._first.replace(QUESTION, state.question))]
        if state.said:
            last = state.said[-1]
            peers = "\n\n".join(last[other] for other in self.seats if other != seat)
            messages += [Message("assistant", last[seat]), Message("user", self._again.replace(PEER, peers))]
        return messages

    def step(self, state: Rounds, replies: Mapping[str, str]) -> tuple[Rounds, Mapping[str, Reward]]:
        """One round; each seat that is right earns."""
        quotes = (state.question, *self._instructions)
        answers = {seat: final_answer(without_quotes(text, quotes), self.strict) for seat, text in replies.items()}
        worth = self.gamma ** len(state.said)
        state = replace(state, said=(*state.said, dict(replies)), answers=(*state.answers, answers))
        return state, {seat: Reward(own=worth * state.right(-1, seat)) for seat in self.seats}

    def outcome(self, state: Rounds) -> Outcome:
        """Whether all are right in the last round. A seat's effort is what it wrote, in hundreds of characters.

        Answers are read as they are for rewards: with `strict`, a reply without `#### number` is neither right nor
        answered. For every round R and seat: `accuracy/R/SEAT`, `agreement/R` (all give the same answer),
        `answered/R/SEAT`, `repetition/R/SEAT` (share of the reply's 4-grams of words that it had said before). From
        round 1 on: `flips/R/SEAT` (the answer differs from that of the round before); `recovered/R/SEAT` (right now),
        only if the seat was wrong in the round before; `corrupted/R/SEAT` (wrong now), only if it was right. From the
        first round to the last: `recovered/SEAT`, `corrupted/SEAT`.
        """
        last = len(state.said) - 1
        metrics: dict[str, float] = {}
        for number, (said, answers) in enumerate(zip(state.said, state.answers, strict=True)):
            given = set(answers.values())
            metrics[f"agreement/{number}"] = float(len(given) == 1 and None not in given)
            for seat in self.seats:
                metrics[f"accuracy/{number}/{seat}"] = float(state.right(number, seat))
                metrics[f"answered/{number}/{seat}"] = float(answers[seat] is not None)
                metrics[f"repetition/{number}/{seat}"] = repetition(said[seat])
                if number:
                    metrics[f"flips/{number}/{seat}"] = float(answers[seat] != state.answers[number - 1][seat])
                    metrics |= _changed(state, number - 1, number, seat, f"{number}/{seat}")
        if last:
            for seat in self.seats:
                metrics |= _changed(state, 0, last, seat, seat)
        effort = {seat: sum(len(said[seat]) for said in state.said) / 100 for seat in self.seats}
        return Outcome(all(state.right(last, seat) for seat in self.seats), effort, metrics)


def without_quotes(text: str, quotes: Sequence[str]) -> str:
    """A reply without what it quotes word for word."""
    for quote in quotes:
        if len(quote) >= SHORTEST:
            text = text.replace(quote, "\n")
    return text


def _changed(state: Rounds, before: int, after: int, seat: str, name: str) -> dict[str, float]:
    """For a seat that was wrong before, whether it `recovered`; for one that was right, whether it is `corrupted`."""
    began, ended = state.right(before, seat), state.right(after, seat)
    return {f"corrupted/{name}" if began else f"recovered/{name}": float(began != ended)}
