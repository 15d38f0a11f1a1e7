"""An environment of PettingZoo as a task: two agents share two landmarks, in mpe2's simple_spread.

To try it: `llm-sra check examples/meeting.py:Meeting`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.pettingzoo.environment import Environment

MOVES = ("stay", "left", "right", "down", "up")  # mpe2's actions 0 to 4


class Meeting(Environment):
    """Two agents share two landmarks: the nearer one of them is to each landmark, the more both get."""

    about = "Go where the other one does not go. Places are relative to you: to the right, upwards."

    def __init__(self, *, steps: int = 10) -> None:
        self.steps = steps
        super().__init__(shared=True)

    def make(self) -> Any:
        """The environment; each episode has its own."""
        from mpe2 import simple_spread_v3

        return simple_spread_v3.parallel_env(N=2, max_cycles=self.steps, local_ratio=0.0)

    def show(self, agent: str, observation: Any) -> str:
        """Observation to text: the landmarks and the other agent, in tenths."""
        tenths = [round(float(number) * 10) for number in observation]
        landmarks = f"landmark {tenths[4]} {tenths[5]}\nlandmark {tenths[6]} {tenths[7]}"
        return f"{landmarks}\nother {tenths[8]} {tenths[9]}"

    def read(self, agent: str, reply: str, moves: Sequence[int]) -> int | None:
        """Text to action: the one move that the reply names; None if it names none, or several."""
        named = [move for move in moves if MOVES[move] in reply.lower()]
        return named[0] if len(named) == 1 else None

    def name(self, agent: str, action: int) -> str:
        """What a move is called."""
        return MOVES[action]

    def solved(self, returns: Mapping[str, float]) -> bool:
        """Whether the distances of the landmarks from the nearer agent came to 1 or less a step, in the mean."""
        return min(returns.values()) >= -1.0 * self.steps
