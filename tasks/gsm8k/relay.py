"""The rules of the relay: two seats write one solution in turns, on a scratchpad that both see.

It does not know how a solution is written down (`scratchpad`), what an answer is (`answers`) or where the problems lie.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from llm_sra.task import Message, Outcome, Reward, merge_roles
from tasks.gsm8k.repetition import repetition
from tasks.gsm8k.scratchpad import Scratchpad, opening


class Relay:
    """The rules.

    A reply is a step: it goes on, corrects, or finishes with `#### number`. The episode ends with the first reply that
    holds one, of which the last is the final answer, or after `turns` turns. All seats get 1 if it is the reference.
    What a reply quotes from its prompt is not read (see `quotes`): an echo of the example neither ends an episode nor
    earns.

    Args:
        seats: In the order in which they write.
        turns: Most turns of an episode.
        instructions: Stand above the question, for every seat.
    """

    def __init__(self, seats: Sequence[str], turns: int, instructions: str) -> None:
        self.seats, self.turns, self._instructions = tuple(seats), turns, instructions

    def start(self, question: str, reference: Fraction) -> Scratchpad:
        """A scratchpad without steps."""
        return Scratchpad(question, reference, instructions=self._instructions)

    def actors(self, state: Scratchpad) -> tuple[str, ...]:
        """The seats in turn, the first one first, until one has finished or the turns are used up."""
        if state.answer is not None or len(state.steps) >= self.turns:
            return ()
        return (self._writer(len(state.steps)),)

    def view(self, state: Scratchpad, seat: str) -> Sequence[Message]:
        """Instructions and question, the same for every seat; then the steps, the seat's own as `assistant`."""
        messages = [Message("user", opening(self._instructions, state.question))]
        for index, step in enumerate(state.steps):
            messages.append(Message("assistant" if self._writer(index) == seat else "user", step))
        return merge_roles(messages)

    def step(self, state: Scratchpad, replies: Mapping[str, str]) -> tuple[Scratchpad, Mapping[str, Reward]]:
        """Write one step; if it finishes rightly all are paid."""
        state = state.with_step(replies[self._writer(len(state.steps))])
        return state, dict.fromkeys(self.seats, Reward(team=float(state.solved)))

    def outcome(self, state: Scratchpad) -> Outcome:
        """Whether the final answer is right. A seat's effort is what it wrote, in hundreds of characters.

        `finished`: whether there is a final answer; `finished/SEAT`: whether the seat gave it; `steps/SEAT`: its
        replies that hold more than white space; `repetition/TURN/SEAT`: share of the 4-grams of words of its TURN-th
        reply, counted from 0, that it had said before in that reply.
        """
        finished = state.answer is not None
        effort: dict[str, float] = {}
        metrics = {"finished": float(finished)}
        for index, seat in enumerate(self.seats):
            steps = state.steps[index :: len(self.seats)]
            effort[seat] = sum(map(len, steps)) / 100
            metrics[f"finished/{seat}"] = float(finished and self._writer(len(state.steps) - 1) == seat)
            metrics[f"steps/{seat}"] = float(sum(bool(step.strip()) for step in steps))
            metrics |= {f"repetition/{turn}/{seat}": repetition(step) for turn, step in enumerate(steps)}
        return Outcome(state.solved, effort, metrics)

    def _writer(self, index: int) -> str:
        return self.seats[index % len(self.seats)]
