"""PettingZoo's two interfaces as one: who acts next, what they observe, and which moves are legal. It knows no text."""

import copy
from collections.abc import Mapping
from typing import Any


class Stage:
    """An environment that is played: of agents that act in turn (AEC), or at once (parallel).

    Agents that are dead take no part. At the end, `seen` is empty.

    Args:
        env: The environment.
        seed: Of its `reset`.

    Attributes:
        seen: By agent that acts next, what it observes.
        moves: By agent that acts next, its legal actions; none, if they are no list.
    """

    def __init__(self, env: Any, seed: int) -> None:
        self._env, self._at_once = env, not hasattr(env, "agent_iter")  # only AEC environments have it
        self._look(env.reset(seed=seed))

    def act(self, actions: Mapping[str, Any]) -> tuple[dict[str, float], bool]:
        """One step: what each agent is paid now, and whether one was truncated.

        Args:
            actions: Of the agents in `seen`.
        """
        if self._at_once:
            seen, paid, _, cuts, infos = self._env.step(dict(actions))
            cut = any(cuts.values())
            self._look((seen, infos))
        else:
            self._env.step(*actions.values())
            paid, cut = self._env.rewards, any(self._env.truncations.values())
            paid = dict(paid)  # dead agents take theirs along
            self._look(None)
        return {agent: float(reward) for agent, reward in paid.items()}, bool(cut)

    def _look(self, told: tuple[Mapping[str, Any], Mapping[str, Any]] | None) -> None:
        """Take in what the environment shows; `told` is what a parallel one returned, the other kind is asked."""
        env = self._env
        if self._at_once:
            assert told is not None
            shown, infos = {agent: told[0][agent] for agent in env.agents}, told[1]
        else:
            while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
                env.step(None)
            shown = {env.agent_selection: env.observe(env.agent_selection)} if env.agents else {}
            infos = env.infos
        self.seen = copy.deepcopy(shown)  # some environments write over what they showed
        self.moves = {agent: _legal(env.action_space(agent), seen, infos.get(agent)) for agent, seen in shown.items()}


def moves_of(space: Any) -> tuple[int, ...]:
    """The actions of a space that is a list of moves (gymnasium's `Discrete`); none of another."""
    listed = hasattr(space, "n") and hasattr(space, "start")
    return tuple(int(space.start) + number for number in range(int(space.n))) if listed else ()


def _legal(space: Any, seen: Any, info: Mapping[str, Any] | None) -> tuple[int, ...]:
    """The moves of an agent: those that the mask allows, or all; none if its actions are no list."""
    every = moves_of(space)
    mask = seen.get("action_mask") if isinstance(seen, Mapping) else None
    mask = (info or {}).get("action_mask") if mask is None else mask
    if mask is None or not every:
        return every
    return tuple(move for move, allowed in zip(every, mask, strict=True) if allowed) or every
