"""A worksheet: its lines, and what they are worth. Rules, metrics and partners all read it here.

This module knows neither seats nor rewards nor policies.
"""

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

PASS = "pass"
CROSS_OUT = "0"  # where the task's rules know it
HEADER = "Q: "

Verdict = Literal["pass", "useful", "repeated", "wrong"]
Slip = Literal["sum", "addend", "swap", "skip"]
SLIPS: tuple[Slip, ...] = ("sum", "addend", "swap", "skip")

EXPLAINED = 5  # messages before the sheet's own, where the rules are told: see `briefing`
_BEGIN = re.compile(r"\A\s*(?:[-+•>]|#{1,6})\s+")  # a line of a list, a quote or a heading in Markdown
_SIGNS = re.compile(r"[\s\u200b-\u200d\u2060\ufeff*_`$~\"'“”„‘’‚«»‹›\\()\[\]{}]+")  # what may stand anywhere in it
_ENDS = ".,;:!。"  # what may stand at its end
_SAID = re.compile(rf"[0-9]+\+[0-9]+=[0-9]+|{CROSS_OUT}|(?:i)?(pass)")
_LINE = re.compile(r"[0-9]+\+[0-9]+=([0-9]+)")
_PROBLEM = re.compile(r"[0-9]+(\+[0-9]+)+")


@dataclass(frozen=True)
class Sheet:
    """The numbers to add up, and the lines written so far.

    Attributes:
        numbers: Two or more, in the order of the problem.
        lines: Oldest first, `pass` included. The first seat wrote the even indices, the second the odd ones.
    """

    numbers: tuple[int, ...]
    lines: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """The problem as text: `3+2+5`."""
        return "+".join(map(str, self.numbers))

    @property
    def text(self) -> str:
        """The problem, and under it the lines, as one message."""
        return "\n".join([f"{HEADER}{self.problem}", *self.lines])

    @cached_property
    def chain(self) -> tuple[str, ...]:
        """The right partial sums in order: for 3+2+5 they are `3+2=5` and `5+5=10`."""
        sums = tuple(accumulate(self.numbers))
        return tuple(
            f"{before}+{number}={after}"
            for before, number, after in zip(sums, self.numbers[1:], sums[1:], strict=False)
        )

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What each line is worth.

        `pass`: nothing written. `useful`: the next link of the chain. `repeated`: a link that is already on the sheet.
        `wrong`: everything else, also a link before its turn.
        """
        verdicts: list[Verdict] = []
        done = 0
        for line in self.lines:
            if line == PASS:
                verdicts.append("pass")
            elif line in self.chain[:done]:
                verdicts.append("repeated")
            elif done < len(self.chain) and line == self.chain[done]:
                verdicts.append("useful")
                done += 1
            else:
                verdicts.append("wrong")
        return tuple(verdicts)

    @property
    def links(self) -> int:
        """Number of links of the chain on the sheet."""
        return self.verdicts.count("useful")

    @property
    def complete(self) -> bool:
        """Whether the whole chain is on the sheet."""
        return self.links == len(self.chain)

    @property
    def next_line(self) -> str:
        """The next right line; `pass` once the chain is complete."""
        return PASS if self.complete else self.chain[self.links]

    @property
    def last_value(self) -> int | None:
        """The number after the equals sign of the last line of the form `a+b=c`; None if there is none."""
        values = [int(match[1]) for line in self.lines if (match := _LINE.fullmatch(line))]
        return values[-1] if values else None

    def wrong_line(self, rng: random.Random, slips: Sequence[Slip] = SLIPS) -> str:
        """A plausible wrong line in place of the next right one, or of the last one once the chain is complete.

        Args:
            rng: Draws one of `slips`, and its details.
            slips: `sum` (a sum that is 1 to 3 off), `addend` (a right sum with a number that is not the next one),
                `swap` (the two summands in the other order), `skip` (a right sum with some number of the problem). If
                the drawn slip would give a line of the chain, it is `sum` instead.
        """
        link = min(self.links, len(self.chain) - 1)
        before, number = sum(self.numbers[: link + 1]), self.numbers[link + 1]
        slip = rng.choice(slips)
        line = f"{before}+{number}={_off(before + number, rng)}"
        if slip == "addend":
            other = _off(number, rng)
            line = f"{before}+{other}={before + other}"
        elif slip == "swap":
            line = f"{number}+{before}={before + number}"
        elif slip == "skip":
            start, other = rng.choice(self.numbers), rng.choice(self.numbers)
            line = f"{start}+{other}={start + other}"
        return line if line not in self.chain else f"{before}+{number}={_off(before + number, rng)}"


def _off(value: int, rng: random.Random) -> int:
    """A positive number that is 1 to 3 away from `value`."""
    return rng.choice([value + step for step in (-3, -2, -1, 1, 2, 3) if value + step > 0])


def read_line(reply: str) -> str:
    """What a reply writes on the sheet, if it is read leniently.

    Its first line that is not blank counts. White space, markup, quotes and brackets in it do not matter, nor do
    capitals or a `.`, `,`, `;`, `:` or `!` at its end, nor `I` before `pass`; full-width characters are read as usual
    ones. If what is left is `a+b=c`, `0` or `pass`, that is written (`3 + 2 = 5`, `**3+2=5**`, `- 5+4=9.`, `“Pass”`).
    Everything else is written as it stands.
    """
    line = next((line for line in reply.splitlines() if line.strip()), "")
    plain = _SIGNS.sub("", _BEGIN.sub("", unicodedata.normalize("NFKC", line), count=1))
    match = _SAID.fullmatch(plain.rstrip(_ENDS).casefold())
    return line if match is None else match[1] or match[0]


def read(messages: Sequence[Mapping[str, str]]) -> Sheet:
    """The sheet, read from a seat's messages.

    Raises:
        ValueError: If the first line is not a problem of this task.
    """
    is_explained = bool(messages) and messages[0]["role"] == "system"
    shown = "\n".join(message["content"] for message in messages[EXPLAINED if is_explained else 0 :])
    header, *lines = shown.split("\n")
    problem = header.removeprefix(HEADER)
    if not header.startswith(HEADER) or not _PROBLEM.fullmatch(problem):
        raise ValueError(
            f"a worksheet begins with a line like 'Q: 3+2+5', got {header[:80]!r}: "
            "the worksheet's partners play worksheets only"
        )
    return Sheet(tuple(map(int, problem.split("+"))), tuple(lines))
