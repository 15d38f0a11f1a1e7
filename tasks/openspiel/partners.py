"""Scripted partners: those of all games with moves, and tables of probabilities, as solvers of OpenSpiel find them."""

import json
import random
from pathlib import Path
from typing import Any

from llm_sra.task import ScriptedPartner
from tasks.movers import MOVERS
from tasks.moves import move_name, shown_observation

PARTNERS = MOVERS


class Tabular(ScriptedPartner):
    """Plays a table of probabilities, such as a solver of OpenSpiel finds; `write_policy` writes it.

    Args:
        path: JSON file: for each information state, the probabilities of the moves by their names.

    Raises:
        ValueError: If a view's information state is not in the table; on views that explain the game, too.
    """

    def __init__(self, path: str | Path) -> None:
        self._table: dict[str, dict[str, float]] = json.loads(Path(path).read_text(encoding="utf-8"))

    def reply(self, messages: list[dict[str, str]], rng: random.Random) -> str:
        """A move drawn by the table."""
        state = shown_observation(messages[-1]["content"])
        if state not in self._table:
            raise ValueError(f"the table has no information state {state[:80]!r}: was it made for another game?")
        moves = self._table[state]
        return rng.choices(list(moves), list(moves.values()))[0]


def write_policy(policy: Any, path: str | Path) -> None:
    """Write a policy of OpenSpiel as a table that `Tabular` plays.

    Args:
        policy: An `open_spiel.python.policy.Policy` of a game with information states as text.
        path: The file.
    """
    from open_spiel.python.policy import tabular_policy_from_callable

    game = policy.game
    whole = tabular_policy_from_callable(game, policy.action_probabilities)
    table: dict[str, dict[str, float]] = {}
    for key, place in whole.state_lookup.items():
        state = whole.states[place]
        player = state.current_player()
        chances = whole.action_probabilities(state, player)
        table[key.strip("\n")] = {move_name(state.action_to_string(player, a)): float(p) for a, p in chances.items()}
    Path(path).write_text(json.dumps(table, indent=1), encoding="utf-8")
