"""Shows results as tables: with rich in a terminal, and as Markdown, from the same `Grid`."""

from collections.abc import Iterator, Sequence
from itertools import product
from textwrap import wrap

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.grid import Grid, grid_markdown
from eval.stats import Estimate, Summary, compare_runs, summarise
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import Results, labels
from llm_sra.partners.rosters import SELF_PLAY
from llm_sra.untrusted import as_markdown, one_line, printable

WIDTH = 100  # of the widest table, if at least one run fits into it
EXAMPLES = 6  # most shares whose interval a note tells
NOTHING = "-"
NO_SPREAD = "(no spread)"  # instead of an interval, where all outcomes are the same


def print_tables(results: Results, console: Console | None = None, more: Sequence[Grid] = ()) -> None:
    """Print results in the terminal.

    Args:
        results: Results of an evaluation.
        console: Where to print; None: standard output.
        more: Further tables, after these.
    """
    console = console or Console()
    for grid in (*grids(results), *more):
        print_grid(grid, console)
        console.print()
    for note in _missing(results):
        console.print(one_line(note), style="bold red", highlight=False, markup=False)


def print_grid(grid: Grid, console: Console, edge: bool = True) -> None:
    """Print one table in the terminal.

    Args:
        grid: The table.
        console: Where.
        edge: Whether an empty line is above it, and one below.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=edge)
    for index, head in enumerate(grid.header):
        # If it gets narrow, names break into more lines; numbers never do.
        table.add_column(
            Text(_folded(printable(head))),
            justify="right" if index else "left",
            no_wrap=index > 0,
            vertical="bottom",
        )
    for section in grid.sections:
        for row in section:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        table.add_section()
    console.print(one_line(grid.title), style="bold", highlight=False, markup=False)
    console.print(table)
    for note in grid.notes:
        console.print(one_line(note), style="dim", highlight=False, markup=False)


def markdown(results: Results, more: Sequence[Grid] = ()) -> str:
    """Results as Markdown.

    Args:
        results: Results of an evaluation.
        more: Further tables, after these.
    """
    parts = [grid_markdown(grid) for grid in (*grids(results), *more)]
    parts += ["\n".join(f"- {as_markdown(note)}" for note in _missing(results))] if results.missing else []
    return "\n\n".join(parts) + "\n"


def grids(results: Results) -> Iterator[Grid]:
    """All tables: for each decoding partners by agents; last, the later runs compared with the first."""
    per_table = _runs_per_table(results)
    summaries = summarise(results.records, results.idle)
    for decoding in results.decodings:
        for start in range(0, len(results.runs), per_table):
            runs = results.runs[start : start + per_table]
            shown = [s for s in summaries if s.decoding == decoding and s.run in runs]
            yield _agents(results, decoding, shown)
    if results.runs[1:]:
        yield _differences(results)


def _missing(results: Results) -> list[str]:
    return [f"Not played: {name}: {reason}" for name, reason in results.missing.items()]


def name_of(results: Results, run: str) -> str:
    """A run's short name, with its arm if the name does not contain it."""
    arm = next(record.arm for record in results.records if record.run == run)
    label = labels(results.runs)[run]
    return label if arm in label else f"{label} ({arm})"


def _runs_per_table(results: Results) -> int:
    """How many runs fit side by side; rich puts 3 characters between columns, and 4 around them."""
    names = [len(name) for name in (*results.partners, "effort in self-play")]
    heads = [_folded(f"{name_of(results, run)}\n{seat}") for run in results.runs for seat in results.seats]
    column = 3 + max(len(line) for head in heads for line in head.splitlines())
    return max(1, (WIDTH - 4 - max(names)) // column // len(results.seats))


def _agents(results: Results, decoding: str, shown: Sequence[Summary]) -> Grid:
    def row(name: str, numbers: Sequence[float | None], sign: str = "") -> tuple[str, ...]:
        return name, *(_number(number, sign) for number in numbers)

    strangers = [row(name, [s.partners.get(name) for s in shown]) for name in results.partners]
    over = [row(f"{what} of these", [getattr(s, what) for s in shown]) for what in ("mean", "worst", "spread")]
    riding = [
        row("effort in self-play", [s.effort for s in shown]),
        row("contribution share", [s.contribution_share for s in shown]),
    ]
    if results.idle:
        riding.append(row("reliance", [s.reliance for s in shown], sign="+"))
    own = [row(SELF_PLAY, [s.self_play for s in shown])]
    sections = [own, strangers, over, riding] if strangers else [own, riding]
    problems = sorted({s.n for s in shown})
    return Grid(
        f"{results.measure.capitalize()}, {decoding}, {' or '.join(map(str, problems))} problems with each partner",
        ("partner", *(f"{name_of(results, s.run)}\n{s.seat}" for s in shown)),
        tuple(tuple(section) for section in sections),
        _notes(results, decoding, shown),
    )


def _notes(results: Results, decoding: str, shown: Sequence[Summary]) -> tuple[str, ...]:
    runs = {s.run for s in shown}
    interval = _intervals(results, [r for r in results.records if r.decoding == decoding and r.run in runs])
    if decoding != results.decodings[-1] or results.runs[-1] not in runs:
        return (interval,)  # the last of these tables explains the words
    even = f"{1 / len(results.seats):.2g}"
    words = [
        interval,
        f"contribution share: own effort / all seats' in self-play ({even} is even; 0: the others do all the work).",
    ]
    if results.idle:
        words.append(f"reliance: self-play - {results.idle!r} (0: as good when others rest; 1: solves nothing then).")
    return tuple(words)


def _intervals(results: Results, records: Sequence[Record]) -> str:
    """What the shares in a table may be: the interval of each, or of some, the widest where a share has several."""
    ends: dict[str, tuple[float, float]] = {}
    for low, high, share in sorted((*r.solve_rate_ci95, r.solve_rate) for r in records):
        name = f"{share:.2f}"
        if name not in ends or high - low > ends[name][1] - ends[name][0]:
            ends[name] = low, high
    names = sorted(ends)
    if len(names) > EXAMPLES:
        names = [names[0], min(names, key=lambda name: abs(float(name) - 0.5)), names[-1]]
    listed = ", ".join(f"{name} [{ends[name][0]:.2f}, {ends[name][1]:.2f}]" for name in dict.fromkeys(names))
    return f"A share with its 95 % interval ({results.interval_name}): {listed}."


def _differences(results: Results) -> Grid:
    """Each later run with each decoding, beside the first: with the roster's partners, and in self-play."""
    first, *later = results.runs
    kinds = {"all partners": results.partners, SELF_PLAY: (SELF_PLAY,)}
    rows = []
    for run, decoding, (what, partners) in product(later, results.decodings, kinds.items()):
        if partners:
            found = compare_runs(results, first, run, decoding, partners)
            rows.append((name_of(results, run), what, decoding, difference(found.resampled), difference(found.student)))
    return Grid(
        f"{results.measure.capitalize()}: difference run - {name_of(results, first)}, with 95 % intervals",
        ("run", "with", "decoding", "problems resampled", "Student's t over problems"),
        (tuple(rows),),
        ("Paired on the same problems, mean over seats and partners. Other training seeds are not covered.",),
    )


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return NOTHING
    return f"{value:{sign}z.2f}"


def with_interval(value: float | None, ends: Estimate | None, sign: str = "") -> str:
    """A number with its interval if there is one; a dash without a number."""
    if value is None:
        return NOTHING
    number = _number(value, sign)
    if ends is None:
        return number
    return f"{number} [{ends.low:{sign}z.2f}, {ends.high:{sign}z.2f}]" if ends.has_width else f"{number} {NO_SPREAD}"


def difference(value: Estimate | None) -> str:
    """A difference with its interval, or a dash."""
    return NOTHING if value is None else with_interval(value.value, value, "+")


def _folded(head: str) -> str:
    """A header in short lines; names break at their hyphens."""
    return "\n".join(part for line in head.splitlines() for part in wrap(line, 10))
