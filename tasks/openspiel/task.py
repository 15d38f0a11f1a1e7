"""A game of OpenSpiel as a task: problems, whose turn it is, what moves are paid, and how a game ended.

`tasks.moves` shows and reads moves, `partners` and `conventions` have the scripts.
OpenSpiel comes with the extra `openspiel`.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.adapters import HEADLINE, Table, deal_of, deals, ended
from tasks.moves import LETTERS, read_move, shown_moves, view_text
from tasks.openspiel.conventions import CONVENTIONS
from tasks.openspiel.games import SEATS, check_playable, openspiel, seed_of
from tasks.openspiel.partners import PARTNERS
from tasks.openspiel.words import ABOUT
from tasks.options import check_switches


class OpenSpiel(Task[Table]):
    """A game of OpenSpiel (https://github.com/google-deepmind/open_spiel), sequential or simultaneous.

    A seat sees its information state as OpenSpiel writes it, or the observation of a game that has no such text, and
    its moves by their names. A reply that is no legal move counts as the first legal one, and in `illegal/SEAT`.

    Payoffs are `team` rewards where OpenSpiel calls the utilities of a game identical, else each seat's `own`. What
    chance deals before the first move belongs to the problem, so the episodes of a group have one deal; later chance
    is each episode's own. Small games have fewer deals than problems: there the same deal is in several splits.

    Args:
        game: As OpenSpiel takes it: `tiny_hanabi`, `hanabi(players=2,colors=3)`.
        normalise: Whether payoffs are divided by their range, so that τ and ε mean the same in all games.
        explain: Whether views begin with what the game is about: for models that do not know it.
        strict: Whether a reply must be a move and nothing else.
        letters: Whether moves are shown with letters, and a model chooses among these alone: for games of at most 26
            moves, and models to which each letter is one token. A letter without a move is no legal move.
        moves_first: Whether a view lists the moves above what the seat sees, which then stands next to the reply.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If OpenSpiel is not installed, there is no such game, or it cannot be played as text by two seats or
            more.
    """

    seats: ClassVar[tuple[str, ...]] = SEATS[:2]
    max_reply_tokens: int = 32
    max_reply_chars: int = 500
    headline: str = HEADLINE
    partners: Mapping[str, Callable[[], ScriptedPartner]] = PARTNERS

    def __init__(
        self,
        *,
        game: str = "tiny_hanabi",
        normalise: bool = False,
        explain: bool = False,
        strict: bool = True,
        letters: bool = False,
        moves_first: bool = False,
    ) -> None:
        if not isinstance(game, str):
            raise TypeError(f"openspiel option `game` must be text such as tiny_hanabi, got {game!r}")
        switches = {"normalise": normalise, "explain": explain, "strict": strict, "letters": letters}
        check_switches("openspiel", **switches, moves_first=moves_first)
        self._spiel = openspiel()
        self.game, self.strict, self.letters, self.moves_first = game, strict, letters, moves_first
        try:
            self._game = self._spiel.load_game(game)
        except (self._spiel.SpielError, RuntimeError) as error:
            raise ValueError(f"OpenSpiel has no game {game!r}: {str(error).splitlines()[0]}") from error
        kind = self._kind = self._game.get_type()
        check_playable(self._spiel, self._game)
        self.partners = {**PARTNERS, **CONVENTIONS.get(kind.short_name, {})}
        self.seats = SEATS[: self._game.num_players()]  # type: ignore[misc]  # how many there are is the game's
        self.max_turns = max(1, self._game.max_game_length())
        self._low, self._high = self._game.min_utility(), self._game.max_utility()
        self._scale = (self._high - self._low) if normalise else 1.0
        self._shared = kind.utility == self._spiel.GameType.Utility.IDENTICAL
        if letters:
            if self._game.num_distinct_actions() > len(LETTERS):
                raise ValueError(f"{kind.short_name} has {self._game.num_distinct_actions()} moves, more than letters")
            self.choices = tuple(LETTERS[: self._game.num_distinct_actions()])
        self._about = ABOUT.get(kind.short_name, f"You play {kind.long_name}.") if explain else ""

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Deals: 4,096 of `train`, 512 of `dev` and of `test`."""
        return deals(self.game, split, count, seed)

    def start(self, problem: Problem, rng: random.Random) -> Table:
        """The game after the deal."""
        deal = deal_of(problem, self.game)
        none = (0,) * len(self.seats)
        return self._dealt(problem.id, self._seeded(deal).new_initial_state(), (), none, none, deal)

    def actors(self, state: Table) -> tuple[str, ...]:
        """Who is to move; all seats at once in a simultaneous game."""
        if state.at.is_terminal():
            return ()
        return self.seats if state.at.is_simultaneous_node() else (self.seats[state.at.current_player()],)

    def view(self, state: Table, seat: str) -> Sequence[Message]:
        """What the seat knows, and its moves."""
        player = self.seats.index(seat)
        known = self._kind.provides_information_state_string
        seen = state.at.information_state_string(player) if known else state.at.observation_string(player)
        moves = [state.at.action_to_string(player, action) for action in state.at.legal_actions(player)]
        return [Message("user", view_text(self._about, seen, moves, self.letters, self.moves_first))]

    def step(self, state: Table, replies: Mapping[str, str], rng: random.Random) -> tuple[Table, Mapping[str, Reward]]:
        """The moves, and what chance makes of them."""
        after, actions = state.at.clone(), []
        illegal, made = list(state.illegal), list(state.made)
        for seat in self.actors(state):
            player = self.seats.index(seat)
            legal = state.at.legal_actions(player)
            names = [state.at.action_to_string(player, action) for action in legal]
            place = read_move(replies[seat], names, self.strict, self.letters)
            illegal[player] += place is None
            made[player] += 1
            actions.append(legal[place or 0])
        if state.at.is_simultaneous_node():
            after.apply_actions(actions)
        else:
            after.apply_action(actions[0])
        table = self._dealt(state.problem, after, (*state.moves, *actions), tuple(illegal), tuple(made), rng)
        gains = [(now - before) / self._scale for now, before in zip(table.returns, state.returns, strict=True)]
        paid = [Reward(team=gain) if self._shared else Reward(own=gain) for gain in gains]
        return table, dict(zip(self.seats, paid, strict=True))

    def legal_replies(self) -> Sequence[str]:
        """The letters, or the moves of some games that chance plays."""
        found: dict[str, None] = dict.fromkeys(self.choices)
        for number in range(0 if self.choices else 8):
            rng = random.Random(number)
            state = self.start(Problem(f"words/{number}", {"game": self.game, "deal": number}), rng)
            while seats := self.actors(state):
                moves = {seat: shown_moves(self.view(state, seat)[-1].content) for seat in seats}
                found |= dict.fromkeys(chain(*moves.values()))
                state, _ = self.step(state, {seat: rng.choice(names) for seat, names in moves.items()}, rng)
        return tuple(found)

    def outcome(self, state: Table) -> Outcome:
        """It is solved if every seat got the game's largest payoff. A seat's effort is its number of moves."""
        return ended(state, self.seats, self._low, self._high)

    def _seeded(self, deal: random.Random) -> Any:
        """The game, with a seed of its own if it draws by itself."""
        name = seed_of(self._spiel, self._kind)
        if not name or name in self._spiel.game_parameters_from_string(self.game):
            return self._game
        base, _, inside = self.game.partition("(")
        inside = inside[:-1]
        return self._spiel.load_game(f"{base}({inside}{',' * bool(inside)}{name}={deal.randrange(2**31)})")

    def _dealt(
        self, problem: str, at: Any, moves: tuple[int, ...], illegal: Sequence[int], made: Sequence[int],
        rng: random.Random,
    ) -> Table:  # fmt: skip
        """The table once chance has drawn all that comes before the next seat's move; `at` is this table's own."""
        while at.is_chance_node():
            actions, weights = zip(*at.chance_outcomes(), strict=True)
            moves = (*moves, *rng.choices(actions, weights))
            at.apply_action(moves[-1])
        returns = tuple(at.returns())  # some games search for what they pay: asked for once
        return Table(problem, moves, tuple(illegal), tuple(made), returns, at)
