"""The rules of the worksheet: problems and splits, turns, what a seat sees, pay, and how an episode ended.

`sheet` says which lines are right, `briefing` tells the rules in words, `partners` has the scripts.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import ClassVar

from llm_sra.task import Message, Outcome, Problem, Reward, ScriptedPartner, Task, merge_roles
from tasks.options import check_asked, check_numbers, check_switches, check_whole
from tasks.worksheet.briefing import told
from tasks.worksheet.partners import PARTNERS
from tasks.worksheet.sheet import CROSS_OUT, HEADER, PASS, Sheet, read_line

MAX_LINE_CHARS = 40
MAX_PROBLEMS = 1_000_000
SPLITS: Mapping[str, range] = {"train": range(0, 70), "dev": range(70, 85), "test": range(85, 100)}


class Worksheet(Task[Sheet]):
    """Two seats fill one sheet in turns to add up a few numbers.

    The first line of a reply, cut at 40 characters, goes onto the sheet: `a+b=c` or `pass`. It is taken as it is (no
    white space is stripped) unless `strict` is off: see `sheet.read_line`. The sheet is solved if at the end it has the
    right chain of partial sums, in order. Both seats get 1 if it is solved; every line except `pass` costs its writer.

    Args:
        numbers: Number of numbers to add up, 2 or more.
        low: Smallest number, 1 or more.
        high: Largest number.
        turns: Turns of an episode, both seats together; enough for each seat to solve the sheet alone.
        cost: What a line other than `pass` costs its writer, in units of the team reward.
        spoil_price: If given, a seat may cross out the whole sheet by the reply `0`: the sheet is then never solved,
            and the `0` costs its writer this much in place of `cost`. None: a `0` is a wrong line like others.
        last_word: Whether the last line of the form `a+b=c` must also give the total. Then a partner can spoil
            everything at its last turn.
        explain: Whether views begin with the rules in words and two worked examples, for models that were not taught
            them.
        strict: Whether a line must be written exactly so. If not, spaces, markup, capitals and a full stop do not
            matter.

    Raises:
        TypeError: If an option is of the wrong kind.
        ValueError: If an option is out of range.
    """

    seats: ClassVar[tuple[str, ...]] = ("first", "second")
    stop: tuple[str, ...] = ("\n",)
    max_reply_tokens: int = 24
    max_reply_chars: int = 256
    partners: Mapping[str, Callable[[], ScriptedPartner]] = PARTNERS
    idle = "lazy"

    def __init__(
        self,
        *,
        numbers: int = 3,
        low: int = 1,
        high: int = 9,
        turns: int = 6,
        cost: float = 0.1,
        spoil_price: float | None = None,
        last_word: bool = False,
        explain: bool = False,
        strict: bool = True,
    ) -> None:
        _check_options(numbers=numbers, low=low, high=high, turns=turns)
        check_numbers("worksheet", cost=cost, **({} if spoil_price is None else {"spoil_price": spoil_price}))
        check_switches("worksheet", last_word=last_word, explain=explain, strict=strict)
        self.numbers, self.low, self.high = numbers, low, high
        self.turns, self.cost, self.last_word = turns, float(cost), last_word
        self.strict = strict
        self.spoil_price = None if spoil_price is None else float(spoil_price)
        self._told = told(turns=turns, cost=self.cost, last_word=last_word, spoil_price=spoil_price) if explain else ()

    def problems(self, split: str, count: int | None = None, seed: int = 0) -> Sequence[Problem]:
        """Problems of a split: about 70 % of all are `train`, 15 % `dev`, 15 % `test`, whatever the seed."""
        check_asked(split, SPLITS, count)
        sheets = (Sheet(numbers) for numbers in product(range(self.low, self.high + 1), repeat=self.numbers))
        chosen = [
            Problem(sheet.problem, {"numbers": list(sheet.numbers)})
            for sheet in sheets
            if _bucket(sheet.problem) in SPLITS[split]
        ]
        random.Random(seed).shuffle(chosen)
        return chosen[:count]

    def start(self, problem: Problem, rng: random.Random) -> Sheet:
        """An empty sheet."""
        return Sheet(tuple(problem.data["numbers"]))

    def actors(self, state: Sheet) -> tuple[str, ...]:
        """The seats in turn, the first one first."""
        if len(state.lines) >= self.turns:
            return ()
        return (self._writer(len(state.lines)),)

    def view(self, state: Sheet, seat: str) -> Sequence[Message]:
        """The problem, then the lines in order: the seat's own as `assistant`, the partner's as `user`.

        With `explain` the rules and two examples come before the problem.
        """
        messages = [*self._told, Message("user", f"{HEADER}{state.problem}")]
        for index, line in enumerate(state.lines):
            messages.append(Message("assistant" if self._writer(index) == seat else "user", line))
        return merge_roles(messages)

    def step(self, state: Sheet, replies: Mapping[str, str], rng: random.Random) -> tuple[Sheet, Mapping[str, Reward]]:
        """Write one line. Its writer pays for it; after the last line both are paid if the sheet is solved."""
        writer = self._writer(len(state.lines))
        reply = replies[writer]
        line = (reply.split("\n", 1)[0] if self.strict else read_line(reply))[:MAX_LINE_CHARS]
        state = Sheet(state.numbers, (*state.lines, line))
        team = float(self._is_over(state) and self._is_solved(state))
        cost = self._cost(state)
        return state, {seat: Reward(team=team, cost=cost if seat == writer else 0.0) for seat in self.seats}

    def legal_replies(self) -> Sequence[str]:
        """`pass`, the longest line of a chain, and `0` where it crosses out the sheet."""
        total = self.high * self.numbers
        crossing = () if self.spoil_price is None else (CROSS_OUT,)
        return (PASS, *crossing, f"{total - self.high}+{self.high}={total}")

    def outcome(self, state: Sheet) -> Outcome:
        """Whether the sheet is solved; lines written, right, wrong, and share of the chain filled in, by seat.

        Right lines complete a link of the chain or repeat one. `contribution/SEAT` is the share of the chain's links
        that the seat completed first. Where a `0` crosses out the sheet, it is no line; `crossed_out/SEAT` counts it.
        """
        effort: dict[str, float] = {}
        metrics: dict[str, float] = {}
        for index, seat in enumerate(self.seats):
            verdicts = state.verdicts[index :: len(self.seats)]
            right, wrong = verdicts.count("useful") + verdicts.count("repeated"), verdicts.count("wrong")
            if self.spoil_price is not None:
                crossed_out = state.lines[index :: len(self.seats)].count(CROSS_OUT)
                wrong -= crossed_out
                metrics[f"crossed_out/{seat}"] = float(crossed_out)
            effort[seat] = float(right + wrong)
            metrics[f"right_lines/{seat}"] = float(right)
            metrics[f"wrong_lines/{seat}"] = float(wrong)
            metrics[f"contribution/{seat}"] = verdicts.count("useful") / len(state.chain)
        return Outcome(self._is_solved(state), effort, metrics)

    def _writer(self, index: int) -> str:
        return self.seats[index % len(self.seats)]

    def _is_over(self, state: Sheet) -> bool:
        return len(state.lines) >= self.turns

    def _cost(self, state: Sheet) -> float:
        """Of the last line."""
        if state.lines[-1] == PASS:
            return 0.0
        if self.spoil_price is not None and state.lines[-1] == CROSS_OUT:
            return self.spoil_price
        return self.cost

    def _is_solved(self, state: Sheet) -> bool:
        spoilt = self.spoil_price is not None and CROSS_OUT in state.lines
        return state.complete and not spoilt and (not self.last_word or state.last_value == sum(state.numbers))


def _bucket(problem_id: str) -> int:
    """A number from 0 to 99 that depends only on the problem."""
    return int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big") % 100


def _check_options(numbers: int, low: int, high: int, turns: int) -> None:
    check_whole("worksheet", numbers=numbers, low=low, high=high, turns=turns)
    if numbers < 2:
        raise ValueError(f"worksheet option `numbers` must be 2 or more (there is nothing to add up), got {numbers}")
    if low < 1 or high < low:
        raise ValueError(f"worksheet options must satisfy 1 <= `low` <= `high`, got low={low} and high={high}")
    each = turns // 2
    if numbers - 1 > each:
        raise ValueError(
            f"each seat must be able to solve the sheet alone: {numbers} numbers need {numbers - 1} lines, but with "
            f"`turns`={turns} the second seat has {max(each, 0)}; use `turns` >= {2 * (numbers - 1)} or fewer `numbers`"
        )
    if (high - low + 1) ** numbers > MAX_PROBLEMS:
        raise ValueError(
            f"{numbers} numbers from {low} to {high} make more than {MAX_PROBLEMS:,} problems; "
            "use fewer `numbers` or a narrower range"
        )
    longest = f"{high * (numbers - 1)}+{high}={high * numbers}"
    if len(longest) > MAX_LINE_CHARS:
        raise ValueError(
            f"a line holds {MAX_LINE_CHARS} characters, but {longest} has {len(longest)}; use a smaller `high`"
        )
