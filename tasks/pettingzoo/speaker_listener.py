"""mpe2's speaker and listener in words: an example of an environment whose observations are shown as text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.pettingzoo.environment import Environment

COLOURS = ("red", "green", "blue")  # of the landmarks, in mpe2's order; the speaker's actions 0 to 2
MOVES = ("stay", "left", "right", "down", "up")  # the listener's actions 0 to 4
NEAR = 0.1  # as far as this on both axes, a landmark is here
Seen = Mapping[str, Any]


class SpeakerListener(Environment):
    """The speaker sees which of three landmarks is the goal, and says a colour; the listener hears it, and moves.

    They act at once, so that the listener's first move is blind. It is shown where the landmark lies that it last heard
    of: the direction in which it is farther away. Both are paid by how much nearer the listener came to the goal (mpe2
    itself pays minus the squared distance at each of its steps, most of which is the deal's and not the players').

    Args:
        turns: Replies of each.
        hold: Steps of mpe2 for which what they do is held.
        goal: The team solved it if the listener came nearer by more than this; the landmarks lie in a square of side 2.

    Raises:
        ValueError: If PettingZoo or mpe2 is not installed.
    """

    def __init__(self, *, turns: int = 4, hold: int = 3, goal: float = 0.5) -> None:
        self.turns, self.hold, self.goal = turns, hold, goal
        super().__init__(shared=True, letters=True)

    def make(self) -> Any:
        """The environment, in its parallel version."""
        try:
            from mpe2 import simple_speaker_listener_v4
        except ImportError as error:
            raise ValueError(f"mpe2 cannot be imported ({error}): pip install 'mpe2==1.1.*'") from error
        return _Held(simple_speaker_listener_v4.parallel_env(max_cycles=self.turns * self.hold), self.hold)

    def show(self, agent: str, observation: Any) -> str:
        """The goal's colour for the speaker; for the listener, where the landmark lies that it heard of."""
        if agent == "speaker_0":
            return f"goal: {COLOURS[int(np.argmax(observation))]}"
        heard = observation[8:]
        return f"landmark: {_way(_place(observation, int(np.argmax(heard)))) if heard.any() else 'unknown'}"

    def name(self, agent: str, action: int) -> str:
        """A colour, or a move."""
        return (COLOURS if agent == "speaker_0" else MOVES)[action]

    def solved(self, returns: Mapping[str, float]) -> bool:
        """Whether the listener came nearer by more than the goal."""
        return min(returns.values()) > self.goal


class _Held:
    """A parallel environment of speaker and listener whose actions are held, and which pays by distance."""

    def __init__(self, env: Any, hold: int) -> None:
        self._env, self._hold = env, hold
        self.possible_agents, self.action_space = env.possible_agents, env.action_space

    @property
    def agents(self) -> list[str]:
        """Those that are alive."""
        return list(self._env.agents)

    def reset(self, seed: int) -> Any:
        seen, infos = self._env.reset(seed=seed)
        self._far = _distance(seen)
        return seen, infos

    def step(self, actions: Mapping[str, int]) -> Any:
        """Some steps with the same actions; the distance that was gained is paid."""
        for _ in range(self._hold):
            seen, _, over, cuts, infos = self._env.step(dict(actions))
        before, self._far = self._far, _distance(seen)
        return seen, dict.fromkeys(actions, before - self._far), over, cuts, infos


def _place(observation: Any, landmark: int) -> Any:
    """Where a landmark lies, from the listener: right and up."""
    return observation[2:8].reshape(3, 2)[landmark]


def _distance(seen: Seen) -> float:
    """Between the listener and the goal."""
    return float(np.hypot(*_place(seen["listener_0"], int(np.argmax(seen["speaker_0"])))))


def _way(place: Any) -> str:
    """The direction in which a place is farther away, or `here`."""
    right, up = place
    if max(abs(right), abs(up)) <= NEAR:
        return "here"
    if abs(right) >= abs(up):
        return "right" if right > 0 else "left"
    return "up" if up > 0 else "down"
