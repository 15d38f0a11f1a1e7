"""Arms: which matches a training plays, and what each policy in them is trained for.

All arms share everything but this: episodes per step, prompts, rewards, estimator. Here it is said who sits where.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_sra.policies.base import EnginePolicy, Match
from llm_sra.task import Sampling


@dataclass(frozen=True, slots=True)
class Player:
    """A policy under training, in a seat of a match.

    Attributes:
        adapter: Name of the policy's adapter.
        hero: Whose return counts: the policy's own seat for a hero, another seat for that seat's adversary.
        tether: Adapter of the live partner that an adversary is tethered to; None for a hero.
    """

    adapter: str
    hero: str
    tether: str | None = None


@dataclass(frozen=True)
class TrainingMatch:
    """A match and its players by seat."""

    match: Match
    players: dict[str, Player]


@dataclass(frozen=True)
class Arm:
    """What a training plays.

    Attributes:
        matches: They share the step's episodes equally.
        heroes: Adapter by seat: the policies that are evaluated and exported.
        adversaries: Adapter to the adapter that it starts as a copy of.
    """

    matches: tuple[TrainingMatch, ...]
    heroes: dict[str, str]
    adversaries: dict[str, str]

    @property
    def adapters(self) -> tuple[str, ...]:
        """All adapters, heroes first."""
        return (*dict.fromkeys(self.heroes.values()), *self.adversaries)


def build_arm(name: str, seats: Sequence[str], sharing: str, tau: float, sampling: Sampling) -> Arm:
    """The matches of an arm.

    `ippo`: all heroes play together. `srpo`: in one match for each seat its hero meets its adversary, which fills all
    other seats and is tethered, in each, to the live partner of that seat. At `tau` 0 the adversary is the live
    partner, and the arm is `ippo`.

    Args:
        name: `ippo` or `srpo`.
        seats: The task's seats.
        sharing: `seat` or `shared` (one hero in every seat, one adversary).
        tau: Degree of risk aversion.
        sampling: How all policies draw tokens.
    """
    heroes = {seat: "hero" if sharing == "shared" else seat for seat in seats}

    def seat_them(match: str, players: dict[str, Player]) -> TrainingMatch:
        policies = {
            seat: EnginePolicy(player.adapter, adapter=player.adapter, sampling=sampling)
            for seat, player in players.items()
        }
        return TrainingMatch(Match(match, policies), players)

    if name == "ippo" or tau == 0:
        together = {seat: Player(heroes[seat], hero=seat) for seat in seats}
        return Arm((seat_them("live", together),), heroes, {})
    matches, adversaries = [], {}
    for hero in seats:
        adversary = "adversary" if sharing == "shared" else f"adversary-of-{hero}"
        players = {
            seat: Player(heroes[seat], hero) if seat == hero else Player(adversary, hero, tether=heroes[seat])
            for seat in seats
        }
        matches.append(seat_them(f"adversary-of-{hero}", players))
        adversaries[adversary] = heroes[next(seat for seat in seats if seat != hero)]
    return Arm(tuple(matches), heroes, adversaries)
