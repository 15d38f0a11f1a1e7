"""The rules of the relay: two seats write one solution in turns, on a scratchpad that both see.

`scratchpad` holds the solution, `answers` reads the answer, `data` loads the problems.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from llm_sra.task import Message, Outcome, Reward, merge_roles
from tasks.gsm8k.repetition import repetition
from tasks.gsm8k.scratchpad import Scratchpad, opening


class Relay:
    """The rules.

    A reply is a step: it continues, corrects, or finishes with `#### number`. The first reply that has one ends the
    episode, and its last `#### number` is the final answer. Otherwise the episode ends after `turns` turns. All seats
    get 1 if the final answer is right.

    Args:
        seats: The seats, in the order in which they write.
        turns: Most turns of an episode.
        instructions: Text above the question, the same for every seat.
    """

    def __init__(self, seats: Sequence[str], turns: int, instructions: str) -> None:
        self.seats, self.turns, self._instructions = tuple(seats), turns, instructions

    def start(self, question: str, reference: Fraction) -> Scratchpad:
        """An empty scratchpad."""
        return Scratchpad(question, reference)

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
        """Write one step; if it finishes with the right answer, all are paid."""
        state = state.with_step(replies[self._writer(len(state.steps))])
        return state, dict.fromkeys(self.seats, Reward(team=float(state.solved)))

    def outcome(self, state: Scratchpad) -> Outcome:
        """Whether the final answer is right. A seat's effort is what it wrote, in hundreds of characters.

        `finished`: whether there is a final answer. `finished/SEAT`: whether the seat gave it. `steps/SEAT`: number of
        its replies that are not blank. `repetition/TURN/SEAT`: share of the 4-grams of words of its TURN-th reply,
        counted from 0, that are repeated within the reply.
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
