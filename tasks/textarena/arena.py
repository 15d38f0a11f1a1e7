"""Games of TextArena: made, and gone on with as values. It knows neither seats nor pay."""

import copy
from collections.abc import Mapping
from typing import Any

from tasks.forward import chance

VIEWS = ("-train", "-raw")  # ends of TextArena's names that change nothing but what is shown


def begun(name: str, options: Mapping[str, Any], seed: int) -> Any:
    """A game for two, with TextArena's wrappers, as a seed deals it.

    Args:
        name: As TextArena calls it: `KuhnPoker-v0`.
        options: What it is made with instead of its own values.
        seed: Of what it draws, below 2**32.

    Raises:
        ValueError: If TextArena is not installed, there is no such game, or two cannot play it here.
    """
    arena = _textarena()
    if name.endswith(VIEWS) or name not in arena.envs.registration.ENV_REGISTRY:
        raise ValueError(f"TextArena has no game {name!r} (named without {' or '.join(VIEWS)})")
    try:
        with chance(seed):
            env = arena.make(name, **options)
            env.reset(num_players=2, seed=seed)
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"TextArena's {name} cannot be played here by two: {said}") from error
    return env


def after(env: Any, reply: str, seed: int) -> tuple[Any, bool]:
    """A copy of a game after a reply, and whether the reply was no legal move.

    A reply that makes a game fail, or go on without its player, loses it: two are too few to go on.
    """
    new = copy.deepcopy(env)
    player, errors = inside(new).state.current_player_id, inside(new).state.error_count
    try:
        with chance(seed):
            new.step(action=reply)
    except Exception:
        new = copy.deepcopy(env)
        inside(new).state.game_info[player]["invalid_move"] = True
    state = inside(new).state
    lost = state.game_info[player]["invalid_move"]
    if lost and not state.done:
        state.rewards, state.done = {player: -1, 1 - player: 1}, True
    return new, lost or state.error_count > errors


def inside(env: Any) -> Any:
    """The environment within its wrappers."""
    while "env" in vars(env):
        env = env.env
    return env


def _textarena() -> Any:
    try:
        import textarena
    except ImportError as error:
        raise ValueError(f"textarena cannot be imported ({error}): pip install 'textarena==0.7.*'") from error
    return textarena
