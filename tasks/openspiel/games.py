"""Which games of OpenSpiel can be played here as text; games that draw by themselves and take a seed."""

from typing import Any

SEATS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
SEEDS = ("rng_seed", "seed")  # parameters of games that draw by themselves


def openspiel() -> Any:
    """The package.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import pyspiel
    except ImportError as error:
        raise ValueError("openspiel needs the package open_spiel: pip install 'open_spiel==2.0.*'") from error
    return pyspiel


def seed_of(spiel: Any, kind: Any) -> str:
    """The parameter that seeds a game which draws by itself; empty for one that asks what chance does."""
    if kind.chance_mode != spiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        return ""
    return next((name for name in SEEDS if name in kind.parameter_specification), "")


def check_playable(spiel: Any, game: Any) -> None:
    """See that a game can be played here.

    Raises:
        ValueError: If it cannot.
    """
    kind = game.get_type()
    if not 2 <= game.num_players() <= len(SEATS):
        raise ValueError(f"{kind.short_name} has {game.num_players()} players: two to {len(SEATS)} can play here")
    if kind.dynamics == spiel.GameType.Dynamics.MEAN_FIELD:
        raise ValueError(f"{kind.short_name} is a mean-field game: it has no players that could speak")
    if not (kind.provides_information_state_string or kind.provides_observation_string):
        raise ValueError(f"{kind.short_name} writes nothing of what a player sees, so that no model could play it")
    if kind.chance_mode == spiel.GameType.ChanceMode.SAMPLED_STOCHASTIC and not seed_of(spiel, kind):
        raise ValueError(f"{kind.short_name} draws by itself and takes no seed: its episodes could not be repeated")
    if not game.max_utility() > game.min_utility():
        raise ValueError(f"{kind.short_name} pays the same whatever is played")
