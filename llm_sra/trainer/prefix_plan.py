"""A plan for reading rows that begin alike: every common beginning is read once.

Rows that begin with the same tokens have the same hidden states there. A plan cuts rows into segments and reads them
level by level: what all rows share, then what groups of them share, then what is each row's own. A row that is there
twice is read once. A level is one forward pass; its lines are the batch, and a line holds one or more segments that
follow the same earlier tokens and do not see each other.

Plans are made from tokens alone and are always the same for the same rows. No model is run here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
PAYS = 0.85  # of the plain way's cost: a plan that costs more is not worth its passes
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Costs:
    """What reading costs, in units of one token's linear layers; estimated, not measured.

    Attributes:
        hidden: The model's hidden size, which the others follow from.
    """

    hidden: int

    @property
    def attention(self) -> float:
        """For each token that a token sees: 4 hidden operations beside 24 hidden^2, less efficient by a factor of 2."""
        return 1 / (3 * self.hidden)

    @property
    def copy(self) -> float:
        """For each earlier token whose keys and values a line gets a copy of; bound by memory."""
        return 8 / self.hidden

    @property
    def one_pass(self) -> float:
        """For a forward and backward pass, however small."""
        return max(16.0, 1e6 / self.hidden**2)

    def lines(self, count: int, columns: int, known: int) -> float:
        """Of one pass over lines of so many columns that follow so many known tokens."""
        seen = 1 + (known + columns) * self.attention
        return count * columns * seen + count * known * self.copy + self.one_pass

    def line_size(self, known: int, longest: int) -> int:
        """Columns of a line: its copy of what is known is shared by its segments, which costs attention in vain."""
        return max(longest, int(math.sqrt(known * self.copy / self.attention)))


@dataclass(frozen=True, slots=True)
class Level:
    """One forward pass over n lines of q columns.

    Attributes:
        ids: (n, q) tokens, 0 where a line is filled up.
        positions: (n, q), the place of each token in its row, from 0.
        segments: (n, q), which of its line's segments a column belongs to; -1 where the line is filled up.
        known: (n, k) slots of the earlier tokens that a line follows; -1 where it follows fewer.
    """

    ids: Ints
    positions: Ints
    segments: Ints
    known: Ints


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows are read.

    Attributes:
        levels: The passes, in order.
        slots: For each row, where its tokens are read: the columns of all lines of all levels are numbered in order.
        cost: In the units of `Costs`.
    """

    levels: tuple[Level, ...]
    slots: tuple[Ints, ...]
    cost: float

    @property
    def room(self) -> float:
        """Tokens that take as much memory: those that are read, and copies of keys and values, a quarter each."""
        return sum(level.ids.size + level.known.size / 4 for level in self.levels)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Tokens that rows `first` to `last` (not included) share, from place `start` to `end`, read after `parent`."""

    first: int
    last: int
    start: int
    end: int
    parent: int


def plan(rows: Sequence[Ints], costs: Costs) -> Plan:
    """The cheapest plan of those that are tried.

    Args:
        rows: The tokens of each row, one or more.
        costs: Of the model.
    """
    places: dict[bytes, int] = {}
    keys = [row.tobytes() for row in rows]
    unique = sorted({key: row for key, row in zip(keys, rows, strict=True)}.values(), key=lambda row: row.tolist())
    places = {row.tobytes(): place for place, row in enumerate(unique)}
    common = _common(unique)
    plans = [_build(unique, common, levels, costs) for levels in _candidates(common)]
    best = min(plans, key=lambda one: one.cost)  # the first of equals: the one with the fewest levels
    return Plan(best.levels, tuple(best.slots[places[key]] for key in keys), best.cost)


def _common(rows: Sequence[Ints]) -> Ints:
    """(n,) how many tokens each row has in common with the one before it; -1 for the first."""
    common = np.full(len(rows), -1, dtype=np.int64)
    for place in range(1, len(rows)):
        size = min(len(rows[place - 1]), len(rows[place]))
        differ = rows[place - 1][:size] != rows[place][:size]
        common[place] = int(differ.argmax()) if differ.any() else size
    return common


def _candidates(common: Ints) -> list[tuple[int, ...]]:
    """What to try: at each level, how many tokens neighbours must have in common to be one group."""
    tried: list[tuple[int, ...]] = [()]
    if len(common) < 2:
        return tried
    root = int(common[1:].min())
    groups = _best_groups(common, 0)
    if root:
        tried.append((root,))
        within = _best_groups(common, root)
        if within:
            tried.append((root, within))
    if groups and groups != root:
        tried.append((groups,))
    return tried


def _best_groups(common: Ints, start: int) -> int:
    """The threshold whose groups save the most tokens behind `start`; 0 if none saves any."""
    best, most = 0, 0
    for threshold in sorted({int(value) for value in common[1:] if value > start}):
        opens = common < threshold
        shared = np.minimum.reduceat(np.where(opens, np.iinfo(np.int64).max, common), np.flatnonzero(opens))
        sizes = np.diff(np.append(np.flatnonzero(opens), len(common)))
        saved = int(((sizes - 1) * (np.where(sizes > 1, shared, start) - start)).sum())
        if saved > most:
            best, most = threshold, saved
    return best


def _build(rows: Sequence[Ints], common: Ints, thresholds: Sequence[int], costs: Costs) -> Plan:
    """The plan with a level for each threshold, and one for what is left of each row."""
    paths = [_NONE] * len(rows)  # slots of the tokens that are read so far
    parents = [-1] * len(rows)  # which segment was the last
    levels: list[Level] = []
    cost, slots, count = 0.0, 0, 0
    for threshold in (*thresholds, None):
        segments = _segments(rows, common, threshold, paths, parents)
        if not segments:
            continue
        lines = _lines(segments, costs)
        level = _level(rows, lines, paths)
        for number, line in enumerate(lines):
            at = slots + number * level.ids.shape[1]
            for segment in line:
                size = segment.end - segment.start
                path = np.concatenate([paths[segment.first], np.arange(at, at + size)])
                for row in range(segment.first, segment.last):
                    paths[row], parents[row] = path, count
                at, count = at + size, count + 1
        slots += level.ids.size
        cost += costs.lines(len(level.ids), level.ids.shape[1], level.known.shape[1])
        levels.append(level)
    return Plan(tuple(levels), tuple(paths), cost)


def _segments(
    rows: Sequence[Ints], common: Ints, threshold: int | None, paths: Sequence[Ints], parents: Sequence[int]
) -> list[_Segment]:
    """What is read at a level; a row without a group goes as far as the longest group, which costs nothing."""
    opens = range(len(rows)) if threshold is None else np.flatnonzero(common < threshold).tolist()
    groups = list(zip(opens, [*opens[1:], len(rows)], strict=True))
    ends = [len(rows[first]) if last - first == 1 else int(common[first + 1 : last].min()) for first, last in groups]
    done = [len(paths[first]) for first, _ in groups]
    if threshold is not None:
        widths = [e - d for (f, t), e, d in zip(groups, ends, done, strict=True) if t - f > 1]
        ends = [
            min(e, d + max(widths, default=0)) if t - f == 1 else e
            for (f, t), e, d in zip(groups, ends, done, strict=True)
        ]
    return [
        _Segment(first, last, start, end, parents[first])
        for (first, last), start, end in zip(groups, done, ends, strict=True)
        if end > start
    ]


def _lines(segments: Sequence[_Segment], costs: Costs) -> list[list[_Segment]]:
    """Segments with the same parent side by side, as many as a line should hold."""
    longest = max(segment.end - segment.start for segment in segments)
    lines: list[list[_Segment]] = []
    parent, free = None, 0
    for segment in segments:
        size = segment.end - segment.start
        if segment.parent != parent or size > free:
            lines.append([])
            parent, free = segment.parent, costs.line_size(segment.start, longest)
        lines[-1].append(segment)
        free -= size
    return lines


def _level(rows: Sequence[Ints], lines: Sequence[Sequence[_Segment]], paths: Sequence[Ints]) -> Level:
    columns = max(sum(segment.end - segment.start for segment in line) for line in lines)
    follows = [paths[line[0].first] for line in lines]
    ids, positions = np.zeros((2, len(lines), columns), dtype=np.int64)
    segments = np.full((len(lines), columns), -1, dtype=np.int64)
    known = np.full((len(lines), max(map(len, follows))), -1, dtype=np.int64)
    for number, line in enumerate(lines):
        known[number, : len(follows[number])] = follows[number]
        at = 0
        for place, segment in enumerate(line):
            here = slice(at, at + segment.end - segment.start)
            ids[number, here] = rows[segment.first][segment.start : segment.end]
            positions[number, here] = np.arange(segment.start, segment.end)
            segments[number, here] = place
            at = here.stop
    return Level(ids, positions, segments, known)
