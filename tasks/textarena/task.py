"""A game of TextArena for two as a task: problems, whose turn it is, what seats read, and what a game pays.

`arena` makes games and moves in them, `scores` reads payoffs, `known` lists moves, `partners` has the scripts.
TextArena comes with the extra `textarena`.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.adapters import HEADLINE, Table, deal_of, deals, ended, illegal, require_switches
from tasks.moves import LETTERS, read_move
from tasks.moves import MOVES as YOUR_MOVES
from tasks.textarena.arena import after, begun, inside
from tasks.textarena.known import MOVES, OneList
from tasks.textarena.partners import ANY, LISTED
from tasks.textarena.scores import SCORES, Score


@dataclass(frozen=True)
class Chat:
    """A game between two replies.

    Attributes:
        env: TextArena's environment with its wrappers; never changed in place.
        seen: By player, what it was shown and said.
        over: Whether it is over, or cut.
        moves: Legal ones of the player to reply, where they can be listed.
    """

    env: Any
    seen: tuple[tuple[Message, ...], tuple[Message, ...]]
    over: bool
    moves: tuple[str, ...] = ()


class TextArena(Task[Table]):
    """A game of TextArena (https://github.com/LeonGuertler/TextArena) for two players, who reply in turn.

    A seat reads what the game shows it, and its own replies. A reply that is no legal move counts in `illegal/SEAT`;
    the game then asks again, or ends: such an end pays the least score, or -1, to who caused it.

    What chance draws first belongs to the problem, so the episodes of a group have one deal; later chance is each
    episode's own. Payoffs are each seat's `own`, at the end.

    Args:
        game: As TextArena calls it: `KuhnPoker-v0`.
        game_args: What it is made with instead of its own values: `{max_rounds: 5}`.
        pay: `score`, what the game counts, or `result`, TextArena's 1, 0 or -1; by default the score if there is one.
        max_replies: Replies of a seat after which an episode is cut. It pays the scores so far, and no result.
        letters: Whether moves are shown with letters, and a model chooses among these alone: for games that have the
            same moves in every state. Its letter without a move is what it says.
        goal: The team solved it if every seat was paid more than this; None: if no seat lost by TextArena's result,
            which says little of a game in which one seat may get more than the other and both do well.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If TextArena is not installed, there is no such game, two cannot play it here, or it has no score or
            no list of moves and is asked for it.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    max_reply_tokens: int = 256
    max_reply_chars: int = 2000

    def __init__(
        self,
        *,
        game: str = "IteratedPrisonersDilemma-v0",
        game_args: Mapping[str, Any] | None = None,
        pay: str | None = None,
        max_replies: int = 100,
        letters: bool = False,
        goal: float | None = None,
    ) -> None:
        if not isinstance(game, str) or not isinstance(game_args or {}, Mapping):
            raise TypeError(f"textarena takes `game`, a name, and `game_args`, a mapping; got {game!r}, {game_args!r}")
        if isinstance(max_replies, bool) or not isinstance(max_replies, int) or max_replies < 1:
            raise ValueError(f"textarena option `max_replies` must be a whole number, 1 or more, got {max_replies!r}")
        if isinstance(goal, bool) or not isinstance(goal, int | float | None):
            raise TypeError(f"textarena option `goal` must be a number, or none, got {goal!r}")
        require_switches("textarena", letters=letters)
        self._name, self._options, self.max_turns, self.goal = game, dict(game_args or {}), max_replies, goal
        self.game = " ".join([game, *(f"{name}={value!r}" for name, value in sorted(self._options.items()))])
        family = game.partition("-v")[0]
        self._moves: Callable[[Any], Sequence[str]] = MOVES.get(family, lambda env: ())
        self._score: Score | None = SCORES.get(family) if pay != "result" else None
        if pay not in (None, "score", "result") or (pay == "score" and self._score is None):
            raise ValueError(
                f"textarena option `pay` of {game} must be {'score or ' * (family in SCORES)}result, got {pay!r}"
            )
        self.letters = letters
        if letters:
            if not isinstance(self._moves, OneList):
                some = ", ".join(sorted(name for name, moves in MOVES.items() if isinstance(moves, OneList)))
                raise ValueError(
                    f"textarena option `letters` is for games that have the same moves in every state ({some}), "
                    f"got {game}"
                )
            self.choices = tuple(LETTERS[: len(self._moves.moves)])
        self.partners: Mapping[str, Callable[[], ScriptedPartner]] = LISTED if family in MOVES else ANY
        first = begun(self._name, self._options, 0)  # so that a game that cannot be played is reported before any is
        self._low, self._high = self._score.bounds(inside(first)) if self._score else (-1.0, None)
        self.headline = "" if self._high is None else HEADLINE

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Deals: 4,096 of `train`, 512 of `dev` and of `test`."""
        return deals(self.game, split, count, seed)

    def start(self, problem: Problem, rng: random.Random) -> Table:
        """The game after the deal."""
        env = begun(self._name, self._options, deal_of(problem, self.game).randrange(2**31))
        return Table(problem.id, (), (0, 0), (0, 0), (0.0, 0.0), self._shown(env, ((), ()), (0, 0)))

    def actors(self, state: Table) -> tuple[str, ...]:
        """The player whose turn it is."""
        return () if state.at.over else (self.seats[inside(state.at.env).state.current_player_id],)

    def view(self, state: Table, seat: str) -> Sequence[Message]:
        """What the seat was shown and said so far, and its moves where they can be listed."""
        seen: tuple[Message, ...] = state.at.seen[self.seats.index(seat)]
        return seen

    def step(self, state: Table, replies: Mapping[str, str], rng: random.Random) -> tuple[Table, Mapping[str, Reward]]:
        """One reply. At the end, both are paid."""
        ((seat, reply),) = replies.items()
        player = self.seats.index(seat)
        env, bad = after(state.at.env, self._meant(reply, state.at.moves), rng.getrandbits(32))
        wrong, made = list(state.illegal), list(state.made)
        wrong[player] += bad
        made[player] += 1
        seen = list(state.at.seen)
        seen[player] = (*seen[player], Message("assistant", reply))
        at = self._shown(env, (seen[0], seen[1]), (made[0], made[1]))
        returns = self._payoffs(env) if at.over else (0.0, 0.0)
        table = Table(state.problem, (*state.moves, reply), (wrong[0], wrong[1]), (made[0], made[1]), returns, at)
        return table, {seat: Reward(own=got) for seat, got in zip(self.seats, returns, strict=True)} if at.over else {}

    def outcome(self, state: Table) -> Outcome:
        """Solved if the game came to its end, and all seats were paid more than the goal; without one, if none lost.

        A seat's effort is the number of its replies.

        `payoff/SEAT` is what was paid, `result/SEAT` TextArena's 1, 0 or -1, whatever is paid.
        """
        game = inside(state.at.env).state
        results = [float((game.rewards or {}).get(player, 0.0)) for player in (0, 1)]
        metrics = {f"result/{seat}": value for seat, value in zip(self.seats, results, strict=True)}
        metrics |= {f"payoff/{seat}": value for seat, value in zip(self.seats, state.returns, strict=True)}
        metrics |= {**illegal(state, self.seats), "truncated": float(not game.done)}
        if self._high is not None:
            metrics |= {HEADLINE: ended(state, self.seats, self._low, self._high).metrics[HEADLINE]}
        effort = dict(zip(self.seats, map(float, state.made), strict=True))
        well = min(results) >= 0 if self.goal is None else min(state.returns) > self.goal
        return Outcome(game.done and well, effort, metrics)

    def _meant(self, reply: str, moves: Sequence[str]) -> str:
        """What a reply tells the game: the move of a letter, or the reply itself."""
        place = read_move(reply, moves, strict=True, letters=True) if self.letters else None
        return reply if place is None else moves[place]

    def _shown(self, env: Any, seen: tuple[tuple[Message, ...], tuple[Message, ...]], made: tuple[int, int]) -> Chat:
        """The game once the player to reply has read what is new; `env` is this state's own."""
        game = inside(env)
        player = game.state.current_player_id
        if game.state.done or made[player] >= self.max_turns:
            return Chat(env, seen, True)
        lines = []
        for sender, text, kind in game.get_observation()[1]:
            if sender != player or kind.name != "PLAYER_ACTION":  # its own replies are messages of their own
                lines.append(f"[{game.state.role_mapping.get(sender, f'Player {sender}')}] {text}")
        legal = tuple(move for move in self._moves(game) if not after(env, move, 0)[1])
        named = [f"{letter}: {move}" for letter, move in zip(LETTERS, legal, strict=False)] if self.letters else legal
        told = "\n".join([*lines, YOUR_MOVES, *named] if legal else lines) or "It is your turn."
        both = list(seen)
        both[player] = (*both[player], Message("user", told))
        return Chat(env, (both[0], both[1]), False, legal)

    def _payoffs(self, env: Any) -> tuple[float, float]:
        game = inside(env)
        rewards = game.state.rewards or {}
        got = list(self._score.read(game)) if self._score else [float(rewards.get(player, 0.0)) for player in (0, 1)]
        for player in (0, 1):
            if game.state.game_info[player]["invalid_move"]:
                got[player] = self._low
        return got[0], got[1]
