"""Counts of a campaign: what was tried, how often the promise held, and the first cases in which it did not."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHOWN = 3  # failures of a kind


@dataclass
class Tally:
    """The count of one kind of fault.

    Attributes:
        part: Of the campaign.
        what: Was tried.
        promise: What has to hold each time.
        wanted: How often it was to be tried.
        tried: How often.
        survived: How often the promise held.
        failures: What went wrong, one line each.
        note: What else was counted.
        minutes: That it took.
    """

    part: str
    what: str
    promise: str
    wanted: int
    tried: int = 0
    survived: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""
    minutes: float = 0.0

    def add(self, wrong: str | None, times: int = 1) -> None:
        """Count something that was tried.

        Args:
            wrong: What did not hold; None if all did.
            times: How many faults that was.
        """
        self.tried += times
        if wrong is None:
            self.survived += times
        else:
            self.failures.append(" ".join(wrong.split())[:600])

    @property
    def held(self) -> bool:
        """Whether it was tried as often as wanted, and the promise held each time."""
        return not self.failures and self.survived == self.tried >= self.wanted


@dataclass(frozen=True)
class Limit:
    """How much of a part is tried.

    Attributes:
        count: Faults.
        until: When to stop in any case, on the clock of `time.monotonic`.
    """

    count: int
    until: float = float("inf")

    def reached(self, tried: int) -> bool:
        """Whether to stop."""
        return tried >= self.count or time.monotonic() >= self.until

    def over(self, kinds: int) -> "Limit":
        """Its part for each of so many kinds."""
        return Limit(-(-self.count // kinds), self.until)


def table(tallies: Sequence[Tally]) -> str:
    """The counts as Markdown."""
    rows = [("what was tried", "what has to hold", "tried", "survived", "minutes", "counted besides")]
    rows += [
        (f"{t.part}: {t.what}", t.promise, _tried(t), f"{t.survived:,}", f"{t.minutes:.1f}", t.note) for t in tallies
    ]
    lines = [_line(row) for row in rows]
    return "\n".join([lines[0], "|---|---|---:|---:|---:|---|", *lines[1:]])


def failures(tallies: Iterable[Tally]) -> list[str]:
    """The first failures of each kind, and the kinds of which too little was tried."""
    lines = []
    for tally in tallies:
        said = tally.failures[:SHOWN]
        if tally.tried < tally.wanted and not said:
            said = [f"only {tally.tried:,} of {tally.wanted:,} were tried"]
        lines += [f"{tally.part}, {tally.what}: {each}" for each in said]
    return lines


def _tried(tally: Tally) -> str:
    short = tally.tried < tally.wanted
    return f"{tally.tried:,} of {tally.wanted:,}" if short else f"{tally.tried:,}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
