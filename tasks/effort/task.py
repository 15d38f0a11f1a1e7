"""The rules: what a seat sees, what its reply means, what it is paid, and how an episode ended.

`options` reads which game is played with which words; `llm_sra.games` computes its equilibria.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import ClassVar

import numpy as np

from llm_sra.games.game import MatrixGame
from llm_sra.games.known import KNOWN, SUCCESS, WORK
from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.bare import bare
from tasks.effort.options import default_words, known_game, own_game, plain, words
from tasks.effort.partners import ASK, PARTNERS
from tasks.options import check_asked, check_switches

SPLITS = ("train", "dev", "test")
BENEFIT, COST = 1.0, 0.3  # of the known effort game
WORKED, EARNED = "somebody works", "share of the best joint payoff"  # headlines
EQUAL = 1e-9  # sums of payoffs, as a share of their range, may differ by rounding
_WORD = re.compile(r"[^\W_]+")
INTRODUCTION = "You and your partner each choose a word at once. Yours, theirs: points for you, for them."

Said = tuple[str, ...]  # the replies in seating order; empty before the only step


class Effort(Task[Said]):
    """Two seats choose an action of a matrix game at once, once.

    A reply is the word of one of the seat's actions; case, and white space and punctuation around it, do not matter.
    Any other reply is illegal and counts as the seat's first action (in the effort game: it rests). Unless `strict` is
    on, a reply that says more than one word is legal, too, if just one of the seat's words is among them: `I work`.

    A payoff is the seat's `own` reward, or `team` if every cell pays both seats the same. In the effort game the
    benefit is `team` and working is the `cost`.

    A model chooses from the words of its seat, so it cannot say anything illegal.

    Args:
        game: Name of a game of `llm_sra.games.known`, with spaces or underscores; `effort` if neither this nor
            `payoffs` is given.
        payoffs: Your own game: what each seat is paid, `first` and `second`, in units of the reward. Lists of
            rows; the first seat chooses the row, the second the column.
        actions: The words: a list for both seats, or a list of two lists. By default a known game's own names if they
            are the same for both seats, else `A`, `B`, ... for both.
        normalise: Whether payoffs are divided by the larger seat's range of them, so that τ and ε mean the same in all
            games.
        explain: Whether what a seat sees says how to read the cells, with one of them as an example, and shows right
            replies: for models that were not taught the game.
        strict: Whether a reply that says more than one word is illegal.

    Attributes:
        game: The game, with the words as names of its actions.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    max_reply_tokens: int = 1
    max_reply_chars: int = 256
    partners: Mapping[str, Callable[[], ScriptedPartner]] = PARTNERS
    idle = "first_action"

    def __init__(
        self,
        *,
        game: str | None = None,
        payoffs: Mapping[str, Sequence[Sequence[float]]] | None = None,
        actions: Sequence[str] | Sequence[Sequence[str]] | None = None,
        normalise: bool = False,
        explain: bool = False,
        strict: bool = True,
    ) -> None:
        if game is not None and payoffs is not None:
            raise ValueError("effort takes one of the options `game` and `payoffs`, got both")
        chosen = known_game("effort" if game is None else game) if payoffs is None else own_game(payoffs)
        names = default_words(chosen) if actions is None else words(actions, chosen.shape)
        check_switches("effort", normalise=normalise, explain=explain, strict=strict)
        scale = chosen.scale if normalise else 1.0
        self.game = MatrixGame(chosen.name, chosen.first / scale, chosen.second / scale, names)
        self.choices = names[0] if names[0] == names[1] else dict(zip(self.seats, names, strict=True))
        self.explain, self.strict = explain, strict
        self.headline = WORKED if chosen.name in SUCCESS else EARNED
        self._success = _success(self.game)
        self._has_costs = chosen is KNOWN["effort"]
        self._is_shared = np.array_equal(chosen.first, chosen.second)

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """The game, as often as asked for: an evaluation plays so many episodes. Only the ids differ; None: once."""
        check_asked(split, SPLITS, count)
        name = f"{plain(self.game.name)}/{split}"
        return [Problem(f"{name}/{number}" if number else name, {}) for number in range(1 if count is None else count)]

    def start(self, problem: Problem, rng: random.Random) -> Said:
        """Nothing has been said yet."""
        return ()

    def actors(self, state: Said) -> tuple[str, ...]:
        """Both seats, once."""
        return () if state else self.seats

    def view(self, state: Said, seat: str) -> Sequence[Message]:
        """The game from the seat's side: what it and its partner get in each cell, and the words that it may say."""
        me = self.seats.index(seat)
        mine, theirs = self.game.actions[me], self.game.actions[1 - me]
        paid, partner_paid = self.game.own[me], self.game.own[1 - me].T  # both with this seat's actions as rows
        cells = [
            f"{mine[a]}, {theirs[b]}: {_written(paid[a, b])}, {_written(partner_paid[a, b])}"
            for a, b in product(range(len(mine)), range(len(theirs)))
        ]
        told = [_told(mine, theirs, paid, partner_paid)] if self.explain else []
        return [Message("user", "\n".join([INTRODUCTION, *told, *cells, ASK + ", ".join(mine)]))]

    def step(self, state: Said, replies: Mapping[str, str], rng: random.Random) -> tuple[Said, Mapping[str, Reward]]:
        """Both seats move and are paid."""
        said = tuple(replies[seat] for seat in self.seats)
        cell = self._cell(said)
        return said, {seat: self._reward(me, cell) for me, seat in enumerate(self.seats)}

    def outcome(self, state: Said) -> Outcome:
        """The effort game is solved if anyone works; its headline is that share.

        Any other game is solved if no other cell pays both seats together more. Its headline is where their joint
        payoff lies between the least, 0, and the most, 1; in a zero-sum game always 1, which says nothing.

        A seat's effort is 1 if it played its last action, else 0. In known games that is the cooperative action, such
        as work or stag, if there is one. `illegal/SEAT` is 1 if the seat's reply was none of its words, else 0.
        """
        cell = self._cell(state)
        metrics = {f"illegal/{seat}": float(self._action(me, state) is None) for me, seat in enumerate(self.seats)}
        return Outcome(
            solved=bool(self._success[cell] >= 1 - EQUAL),
            effort={seat: float(cell[me] == self.game.shape[me] - 1) for me, seat in enumerate(self.seats)},
            metrics={**metrics, self.headline: float(self._success[cell])},
        )

    def _cell(self, said: Said) -> tuple[int, int]:
        """The row and the column that were played."""
        return self._action(0, said) or 0, self._action(1, said) or 0

    def _action(self, me: int, said: Said) -> int | None:
        """Index of the action that a seat named; None if it named none."""
        names = [bare(name).casefold() for name in self.game.actions[me]]
        word = bare(said[me]).casefold()
        if word in names or self.strict:
            return names.index(word) if word in names else None
        named = {names.index(each) for each in _WORD.findall(word) if each in names}
        return named.pop() if len(named) == 1 else None

    def _reward(self, me: int, cell: tuple[int, int]) -> Reward:
        if self._has_costs:
            return Reward(team=BENEFIT * (WORK in cell), cost=COST * (cell[me] == WORK))
        payoff = float((self.game.first, self.game.second)[me][cell])
        return Reward(team=payoff) if self._is_shared else Reward(own=payoff)


def _success(game: MatrixGame) -> np.ndarray:
    """(A, B), in [0, 1], 1 where the team succeeds; see `Effort.outcome`."""
    if game.name in SUCCESS:
        return np.array(SUCCESS[game.name], dtype=np.float64)
    joint = game.first + game.second
    spread = float(np.ptp(joint))
    return np.asarray((joint - joint.min()) / spread) if spread > EQUAL * game.scale else np.ones(game.shape)


def _told(mine: Sequence[str], theirs: Sequence[str], paid: np.ndarray, partner_paid: np.ndarray) -> str:
    """How to read the cells, by the one of both first words, and two right replies."""
    return (
        "Each line below has your word, your partner's word, and the points. If you say "
        f"{mine[0]} and your partner says {theirs[0]}, you get {_written(paid[0, 0])} and your partner gets "
        f"{_written(partner_paid[0, 0])}. Two examples of a reply: {mine[0]}; {mine[-1]}."
    )


def _written(payoff: float) -> str:
    return f"{payoff + 0.0:.12g}"  # the sum turns -0 into 0
