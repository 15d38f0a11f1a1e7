"""Arms: which matches a training plays, and what each policy in them is trained for.

Arms differ in nothing else: they share episodes per step, prompts, rewards and estimator.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from llm_sra.policies.base import EnginePolicy, Match, Policy
from llm_sra.task import Sampling

ArmName = Literal["ippo", "srpo", "adversary", "fcp", "mep", "untrained"]
Sharing = Literal["seat", "shared"]
ARMS: tuple[str, ...] = get_args(ArmName)
LIVE = "live"  # the match in which all heroes play together
Partners = Mapping[str, Mapping[str, Policy]]  # by name, then by seat


@dataclass(frozen=True, slots=True)
class Player:
    """A policy under training, in a seat of a match.

    Attributes:
        adapter: Name of the policy's adapter.
        hero: The seat whose return counts: its own for a hero, that of the hero it works against for an adversary.
        tether: Adapter of the live partner that an adversary is tethered to; None for a hero.
    """

    adapter: str
    hero: str
    tether: str | None = None


@dataclass(frozen=True)
class TrainingMatch:
    """A match and its players by seat; in seats without a player sit policies that the match does not train.

    Attributes:
        match: Who sits where.
        players: By seat.
        partner: Name of the sampled partner; None in a match without one.
    """

    match: Match
    players: dict[str, Player]
    partner: str | None = None


@dataclass(frozen=True)
class MatchSet:
    """Matches that play the same problems and share the episodes of each problem equally.

    Attributes:
        matches: One; or one for each sampled partner of a hero.
        share: Share of the step's problems, in (0, 1].
    """

    matches: tuple[TrainingMatch, ...]
    share: float

    @property
    def hero(self) -> str:
        """Seat of the hero whose partners are sampled; of other match sets the first seat that is trained."""
        return next(iter(self.matches[0].players))

    @property
    def sampled(self) -> bool:
        """Whether its matches are those of a hero with sampled partners."""
        return self.matches[0].partner is not None


@dataclass(frozen=True)
class Roles:
    """The policies of an arm.

    Attributes:
        heroes: Adapter by seat: the policies that are evaluated and exported.
        adversaries: Adapter to the adapter that it starts as a copy of.
        members: Further teams of a population, by seat; its first is that of the heroes.
    """

    heroes: dict[str, str]
    adversaries: dict[str, str]
    members: tuple[dict[str, str], ...] = field(default=(), kw_only=True)

    @property
    def seats(self) -> dict[str, tuple[str, ...]]:
        """The seats that each adapter sits in: a hero's own, an adversary's all but its hero's."""
        sits = [(adapter, seat) for team in (self.heroes, *self.members) for seat, adapter in team.items()]
        for hero in self.heroes:
            for sharing in get_args(Sharing):
                sits += [(adversary_of(hero, sharing), seat) for seat in self.heroes if seat != hero]
        return {adapter: tuple(dict.fromkeys(s for a, s in sits if a == adapter)) for adapter in self.adapters}

    @property
    def learners(self) -> tuple[str, ...]:
        """All adapters but the adversaries, the heroes' first."""
        return tuple(dict.fromkeys(adapter for team in (self.heroes, *self.members) for adapter in team.values()))

    @property
    def adapters(self) -> tuple[str, ...]:
        """All adapters, heroes first."""
        return (*self.learners, *self.adversaries)

    @property
    def peers(self) -> dict[str, tuple[str, ...]]:
        """Of a population, the policies of the same seat by adapter, itself among them; empty without members."""
        if not self.members:
            return {}
        seats = [tuple(team[seat] for team in (self.heroes, *self.members)) for seat in self.heroes]
        return {adapter: alike for alike in seats for adapter in alike}


@dataclass(frozen=True)
class Arm(Roles):
    """What a training plays: its roles, and the match sets that share a step's problems."""

    match_sets: tuple[MatchSet, ...]

    @property
    def matches(self) -> tuple[TrainingMatch, ...]:
        """All matches of all match sets."""
        return tuple(training for match_set in self.match_sets for training in match_set.matches)


def assign_roles(
    name: str, seats: Sequence[str], sharing: str, tau: float, sampled: bool = False, population: int | None = None
) -> Roles:
    """The policies that an arm trains; arguments as of `build_arm`, `sampled` if it has partners."""
    heroes = {seat: "hero" if sharing == "shared" else seat for seat in seats}
    if name == "mep":
        numbers = range(2, (population or 1) + 1)
        return Roles(heroes, {}, members=tuple({seat: f"{heroes[seat]}-{k}" for seat in seats} for k in numbers))
    if not has_adversaries(name, tau, sampled):
        return Roles(heroes, {})
    adversaries = {
        adversary_of(seat, sharing): heroes[next(other for other in seats if other != seat)] for seat in seats
    }
    return Roles(heroes, adversaries)


def build_arm(
    name: str,
    seats: Sequence[str],
    sharing: str,
    tau: float,
    sampling: Sampling,
    partners: Partners | None = None,
    live_share: float = 0.0,
    population: int | None = None,
    engines: Mapping[str, str] | None = None,
) -> Arm:
    """The matches of an arm.

    `ippo`: all heroes play together. `srpo`: one match for each seat, in which its hero meets its adversary; the
    adversary fills all other seats and is tethered, in each, to the live partner of that seat. With `tau` 0 the live
    partner takes the adversary's seat, so `srpo` reduces to `ippo`. `adversary`: as `srpo`, with a tether of weight 0.
    With `partners`, which `fcp` needs, each hero meets each of them instead, on the same problems, and only the hero is
    trained. `mep` trains a population of teams, each of which plays by itself. `untrained` plays the matches of `ippo`.

    Args:
        name: One of `ARMS`.
        seats: The task's seats.
        sharing: `seat` or `shared` (one hero in every seat, one adversary).
        tau: Degree of risk aversion; `inf` for no tether.
        sampling: How all policies draw tokens.
        partners: Sampled partners, each with a policy for every seat.
        live_share: Share of the problems that all heroes play together in any case, in [0, 1).
        population: How many teams `mep` trains.
        engines: Name of the engine of each adapter; None: all have that of `EnginePolicy`.
    """
    roles = assign_roles(name, seats, sharing, tau, partners is not None, population)

    def learner(player: Player) -> EnginePolicy:
        policy = EnginePolicy(player.adapter, adapter=player.adapter, sampling=sampling)
        return replace(policy, engine=engines[player.adapter]) if engines else policy

    def training_match(
        match: str, players: dict[str, Player], others: Mapping[str, Policy] | None = None, partner: str | None = None
    ) -> TrainingMatch:
        policies = {seat: learner(players[seat]) if seat in players else (others or {})[seat] for seat in seats}
        return TrainingMatch(Match(match, policies), players, partner)

    def team(match: str, adapters: Mapping[str, str]) -> TrainingMatch:
        return training_match(match, {seat: Player(adapters[seat], hero=seat) for seat in seats})

    together = team(LIVE, roles.heroes)
    if partners is not None:
        match_sets = [
            tuple(
                training_match(f"{hero}-with-{other}", {hero: Player(roles.heroes[hero], hero)}, policies, other)
                for other, policies in partners.items()
            )
            for hero in seats
        ]
    elif not roles.adversaries:
        teams = [together, *(team(f"{LIVE}-{k}", adapters) for k, adapters in enumerate(roles.members, start=2))]
        shares = tuple(MatchSet((one,), 1 / len(teams)) for one in teams)
        return Arm(roles.heroes, {}, shares, members=roles.members)
    else:
        match_sets = []
        for hero in seats:
            adversary = adversary_of(hero, sharing)
            players = {
                seat: Player(roles.heroes[seat], hero)
                if seat == hero
                else Player(adversary, hero, tether=roles.heroes[seat])
                for seat in seats
            }
            match_sets.append((training_match(f"adversary-of-{hero}", players),))
    shared_out = [MatchSet(matches, (1 - live_share) / len(match_sets)) for matches in match_sets]
    if live_share:
        shared_out.append(MatchSet((together,), live_share))
    return Arm(roles.heroes, roles.adversaries, tuple(shared_out))


def tether_strength(name: str, tau: float) -> float:
    """The τ of an arm's adversaries: infinite, which is no tether, for `adversary`."""
    return math.inf if name == "adversary" else tau


def has_adversaries(name: str, tau: float, sampled: bool) -> bool:
    """Whether an arm learns adversaries; `sampled` if it has partners."""
    return not sampled and name in ("srpo", "adversary") and tether_strength(name, tau) != 0


def adversary_of(hero: str, sharing: str) -> str:
    """Adapter of the adversary of the hero in a seat; arguments as of `build_arm`."""
    return "adversary" if sharing == "shared" else f"adversary-of-{hero}"
