"""The rules of word lists: problems and splits, turns, what a seat sees, pay, and how an episode ended.

It does not know which words a category has (`words`), what a reply says (`listing`), how the rules are told
(`briefing`) or who plays (`partners`).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task
from tasks.options import check_asked, check_numbers, check_switches, check_whole
from tasks.wordlist.briefing import draw_words, examples, rules
from tasks.wordlist.listing import PASS, Listing, write
from tasks.wordlist.partners import PARTNERS, TURNS, WANTED
from tasks.wordlist.words import categories, category

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("animals", "clothes", "colours", "fruit", "sports"),
    "dev": ("instruments",),
    "test": ("countries", "trades", "vegetables"),
}
VARIANTS = 200  # problems of a category: they differ in the words of their examples
MOST_WANTED = 50  # all categories have twice as many words


class WordList(Task[Listing]):
    """Two seats fill one list with words of a category, in turns.

    A reply is one word of the category, or `pass`; see `listing.read` for how it is read. The list is complete when, at
    the end, `wanted` different words of the category stand on it. Both seats get 1 if it is; every reply but `pass`
    costs its writer. What is no word of the category stands on the list, too, and counts for nothing.

    A seat sees the list at each of its turns, and its own earlier replies: its view only grows.

    Args:
        wanted: How many different words complete the list, 1 to 50.
        turns: Turns of an episode, both seats together; each seat has enough of them to complete the list alone.
        cost: What a reply other than `pass` costs its writer, in units of the team reward.
        explain: Whether a view begins with the rules in words and four worked examples, for models that were not
            taught them.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    stop: tuple[str, ...] = ("\n",)
    max_reply_tokens: int = 12
    max_reply_chars: int = 256
    idle = "lazy"

    def __init__(self, *, wanted: int = WANTED, turns: int = TURNS, cost: float = 0.15, explain: bool = True) -> None:
        _check(wanted, turns, cost, explain)
        self.wanted, self.turns, self.cost, self.explain = wanted, turns, float(cost), explain
        self.partners: Mapping[str, Callable[[], ScriptedPartner]] = {
            name: partial(cls, wanted, turns) for name, cls in PARTNERS.items()
        }
        self._rules = Message("system", rules(wanted=wanted, turns=turns, cost=self.cost))

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Problems of a split: a category, and the words of its examples; no category is in two splits."""
        check_asked(split, SPLITS, count)
        chosen = [_problem(name, index) for name in SPLITS[split] for index in range(VARIANTS)]
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> Listing:
        """An empty list."""
        return Listing(problem.data["category"], self.wanted, shown=tuple(problem.data["examples"]))

    def actors(self, state: Listing) -> tuple[str, ...]:
        """The seats in turn, the first one first."""
        return () if len(state.said) >= self.turns else (self._writer(len(state.said)),)

    def view(self, state: Listing, seat: str) -> Sequence[Message]:
        """Rules and examples, if wanted; then the list as it stood at each of the seat's turns, and what it said."""
        messages = [self._rules, *examples(state.category, state.shown)] if self.explain else []
        me = self.seats.index(seat)
        for turn in range(me, len(state.said) + 1, len(self.seats)):
            messages.append(Message("user", write(state.until(turn), first=turn == me)))
            if turn < len(state.said):
                messages.append(Message("assistant", state.replies[turn]))
        return messages

    def step(
        self, state: Listing, replies: Mapping[str, str], rng: random.Random
    ) -> tuple[Listing, Mapping[str, Reward]]:
        """Write one entry; its writer pays for it, and after the last turn both are paid if the list is complete."""
        writer = self._writer(len(state.said))
        state = state.add(replies[writer])
        team = float(len(state.said) >= self.turns and state.complete)
        cost = 0.0 if state.said[-1] == PASS else self.cost
        return state, {seat: Reward(team=team, cost=cost if seat == writer else 0.0) for seat in self.seats}

    def legal_replies(self) -> Sequence[str]:
        """`pass`, and all words of all categories."""
        return (PASS, *(word for name in categories() for word in category(name).words))

    def outcome(self, state: Listing) -> Outcome:
        """Whether the list is complete; a seat's effort is what it wrote.

        By seat: `new/SEAT`, `repeated/SEAT`, `wrong/SEAT` (entries of each kind) and `contribution/SEAT`, the share of
        the wanted words that it was the first to write.
        """
        effort: dict[str, float] = {}
        metrics: dict[str, float] = {}
        worth = _first(state.verdicts, state.wanted)
        for index, seat in enumerate(self.seats):
            verdicts = state.verdicts[index :: len(self.seats)]
            effort[seat] = float(len(verdicts) - verdicts.count("pass"))
            for verdict in ("new", "repeated", "wrong"):
                metrics[f"{verdict}/{seat}"] = float(verdicts.count(verdict))
            metrics[f"contribution/{seat}"] = sum(worth[index :: len(self.seats)]) / state.wanted
        return Outcome(state.complete, effort, metrics)

    def _writer(self, turn: int) -> str:
        return self.seats[turn % len(self.seats)]


def _first(verdicts: Sequence[str], wanted: int) -> list[bool]:
    """Which sayings were among the first `wanted` new words."""
    return [verdict == "new" and verdicts[:at].count("new") < wanted for at, verdict in enumerate(verdicts)]


def _problem(name: str, index: int) -> Problem:
    problem_id = f"{name}/{index:03}"
    return Problem(problem_id, {"category": name, "examples": draw_words(name, random.Random(problem_id))})


def _check(wanted: int, turns: int, cost: float, explain: bool) -> None:
    check_whole("wordlist", 1, MOST_WANTED, wanted=wanted)
    check_whole("wordlist", turns=turns)
    if turns // 2 < wanted:
        raise ValueError(
            f"each seat must be able to complete the list alone: with `turns`={turns} the second seat has "
            f"{max(turns // 2, 0)} of them for `wanted`={wanted} words; use `turns` >= {2 * wanted} or fewer `wanted`"
        )
    check_numbers("wordlist", cost=cost)
    check_switches("wordlist", explain=explain)
