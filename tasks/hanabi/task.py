"""Hanabi as a task: options, problems, what a seat sees, what it is paid, and how a game ended.

`rules` says what a move does, `words` writes views and reads replies, `partners` has the scripts.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.hanabi.cards import Setup, default_hand
from tasks.hanabi.partners import PARTNERS
from tasks.hanabi.problems import SPLITS, all_problems, read_deck
from tasks.hanabi.rules import Move, State, apply, deal, forced_move, is_over, legal_moves, score
from tasks.hanabi.words import move_text, read_move, view_text
from tasks.options import check_asked, check_numbers, check_switches

SEATS = ("first", "second", "third", "fourth", "fifth")
HEADLINE = "share of the full score"


class Hanabi(Task[State]):
    """Two to five seats build stacks of cards; each sees all hands except its own.

    The defaults are the game of the paper (arXiv 2602.21515): 4 players, 3 colours, 3 ranks; `colours: 5, ranks: 5` is
    the full game. The team gets 1 for every card that is played correctly. When all lives are lost it pays back what it
    got (unless `keep_score`), so a seat's return is the score.

    A reply names a move, alone on one of its lines. If it names none, several, or an illegal one, the seat's oldest
    card is discarded; if no token is missing, the first legal hint is given instead. So an illegal reply never does
    more than some legal one. It costs no life: a model that cannot yet write moves would otherwise end nearly all games
    with a score of 0, which teaches it nothing. `illegal/SEAT` counts such replies.

    Args:
        players: Seats, 2 to 5.
        colours: 1 to 5.
        ranks: 2 to 5.
        hand: Cards dealt to each. None: 5 for up to three players and 4 for more, or the largest smaller number with
            which the full score can be reached: 3 in the game of the paper.
        information: Information tokens at the start, which is also the most there can be; 1 or more.
        lives: Misplays that end the game, 1 or more.
        keep_score: Whether the score stays when all lives are lost. The official rules make it 0.
        hint_cost: What a hint costs the seat that gives it, in units of the reward; also one that replaces an illegal
            reply.
        explain: Whether a seat's view begins with the rules, for models that were not trained on the game.
        strict: Whether the line of a move must have nothing else. See `words.read_move`.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range, or the deck is too small for such hands.
    """

    seats: ClassVar[tuple[str, ...]] = SEATS[:4]
    max_reply_tokens: int = 256
    max_reply_chars: int = 2000
    headline: str = HEADLINE
    idle = "discarder"
    partners: Mapping[str, Callable[[], ScriptedPartner]] = PARTNERS

    def __init__(
        self,
        *,
        players: int = 4,
        colours: int = 3,
        ranks: int = 3,
        hand: int | None = None,
        information: int = 8,
        lives: int = 3,
        keep_score: bool = False,
        hint_cost: float = 0.0,
        explain: bool = True,
        strict: bool = True,
    ) -> None:
        check_numbers("hanabi", hint_cost=hint_cost)
        check_switches("hanabi", explain=explain, strict=strict)
        self.hint_cost, self.explain, self.strict = float(hint_cost), explain, strict
        smallest = Setup(players, colours, ranks, 1, information, lives, keep_score)  # checks all options but `hand`
        self.setup = replace(smallest, hand=default_hand(smallest) if hand is None else hand)
        self.seats = SEATS[:players]  # type: ignore[misc]  # how many there are is an option of this task

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Orders of the deck: 4096 for `train`, 512 each for `dev` and `test`, the same for any number of players."""
        check_asked(split, SPLITS, count)
        chosen = list(all_problems(self.setup.colours, self.setup.ranks, split))
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> State:
        """The cards are dealt in the problem's order, the same in all its episodes: there is no chance here."""
        return deal(self.setup, read_deck(problem.data["deck"]))

    def actors(self, state: State) -> tuple[str, ...]:
        """The seats in turn, the first one first."""
        return () if is_over(state) else (self.seats[state.mover],)

    def view(self, state: State, seat: str) -> Sequence[Message]:
        """The table as the seat sees it, in one message; earlier moves show in it only where they matter."""
        return (Message("user", view_text(state, self.seats.index(seat), self.explain)),)

    def step(self, state: State, replies: Mapping[str, str], rng: random.Random) -> tuple[State, Mapping[str, Reward]]:
        """One move. All seats get the change of the score; a seat that gives a hint pays for it."""
        mover = self.seats[state.mover]
        move = read_move(replies[mover], self.strict)
        is_forced = move is None or move not in legal_moves(state)
        made = forced_move(state) if move is None or is_forced else move
        after = apply(state, made, is_forced)
        team = float(score(after) - score(state))
        cost = self.hint_cost if made.kind == "hint" else 0.0
        return after, {seat: Reward(team=team, cost=cost if seat == mover else 0.0) for seat in self.seats}

    def legal_replies(self) -> Sequence[str]:
        """Every move that can be legal in some state."""
        setup = self.setup
        own = [Move(kind, at) for kind in ("play", "discard") for at in range(1, setup.hand + 1)]
        told = (*setup.palette, *range(1, setup.ranks + 1))
        return [
            move_text(move)
            for move in (*own, *(Move("hint", at, what) for at in range(1, setup.players) for what in told))
        ]

    def outcome(self, state: State) -> Outcome:
        """Whether the full score was reached. A seat's effort is the number of cards that it played correctly.

        Metrics are `score`, and its share of the full score; `lives` left; and for every seat `hints/SEAT`,
        `misplays/SEAT` (cards played that did not fit) and `illegal/SEAT` (replies that were not a legal move; the
        moves made in their place are counted like others).
        """
        effort: dict[str, float] = {}
        reached = score(state)
        metrics = {
            "score": float(reached),
            HEADLINE: reached / state.setup.full_score,
            "lives": float(state.lives),
        }
        for player, seat in enumerate(self.seats):
            events = [event for event in state.log if event.player == player]
            plays = [event for event in events if event.move.kind == "play"]
            effort[seat] = float(sum(event.right for event in plays))
            metrics[f"hints/{seat}"] = float(sum(event.move.kind == "hint" for event in events))
            metrics[f"misplays/{seat}"] = len(plays) - effort[seat]
            metrics[f"illegal/{seat}"] = float(sum(event.forced for event in events))
        return Outcome(reached == state.setup.full_score, effort, metrics)
