"""What the best responses that ship earn, beside the best that theory allows.

    python -m benchmarks.best_responses --write

Prints a table of the partners of two test rosters; `--write` puts it into the documentation. What a
scripted partner leaves to earn is exact: in the effort game the larger of two payoffs, on the worksheet by going
backwards from the last turn. A model or an agent leaves what nobody has computed; whoever writes the whole sheet alone
has a floor on it.
"""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from benchmarks.pages import put_between
from eval.table import NOTHING
from llm_sra.evaluation.best_responses import ENDING, BestResponses, read_best_responses
from llm_sra.games.known import REST, WORK, effort
from llm_sra.partners.rosters import read_roster
from llm_sra.registry import shipped_rosters, task_class
from recipes.terminal import run_command
from tasks.worksheet import Worksheet

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "partners.md"
BEGIN, END = "<!-- best: python -m benchmarks.best_responses -->\n", "<!-- end of best -->\n"
ROSTERS = ("effort_test", "worksheet_test")  # of whom theory says something
DECODINGS = ("greedy", "sampled")
COLUMNS = 120  # of a line of the page
ACTIONS: Mapping[str, int] = {"first-action": REST, "last-action": WORK}
# The chance that a scripted partner adds the next right line, at each of its turns.
LINES: Mapping[str, tuple[float, ...]] = {
    "diligent": (1, 1, 1),
    "lazy": (0, 0, 0),
    "late": (0, 0, 1),
    "sloppy": (0.7, 0.7, 0.7),
    "saboteur": (0, 0, 0),
}
HEAD = (
    "| roster | partner | seat | can be earned | greedy | sampled | short by |\n"
    "|---|---|---|---|---|---|---|\n"
)  # fmt: skip


def of_effort(partner: str, seat: str) -> float:
    """The best return with a partner of the effort game that always does the same."""
    game, action = effort(), ACTIONS[partner]
    return float(game.first[:, action].max() if seat == "first" else game.second[action, :].max())


def of_worksheet(partner: str, seat: str) -> float:
    """The largest expected return with a partner that writes by `LINES`, of an agent that makes no mistakes."""
    task = Worksheet()
    chances, mine = LINES[partner], task.seats.index(seat)

    @cache
    def value(turn: int, missing: int) -> float:
        if not missing:
            return 1.0
        if turn == task.turns:
            return 0.0
        passed, written = value(turn + 1, missing), value(turn + 1, missing - 1)
        if turn % 2 == mine:
            return max(passed, written - task.cost)
        chance = chances[turn // 2]
        return chance * written + (1 - chance) * passed

    return value(0, task.numbers - 1)


def can_be_earned(task: str, partner: str, seat: str) -> tuple[float, float] | None:
    """The least and the most that the best return with a partner can be; equal where it is known.

    Args:
        task: Name of the task.
        partner: Of its test roster.
        seat: Of the best response.

    Returns:
        None if nothing is known.
    """
    if task == "effort" and partner in ACTIONS:
        return (of_effort(partner, seat),) * 2
    if task == "worksheet" and partner in LINES:
        return (of_worksheet(partner, seat),) * 2
    # With no help at all, and with all that is needed.
    return (of_worksheet("lazy", seat), of_worksheet("diligent", seat)) if task == "worksheet" else None


def shipped() -> dict[str, BestResponses]:
    """By the name of a roster that ships, its best responses, if they ship, too."""
    files = {name: path.with_suffix(ENDING) for name, path in shipped_rosters().items()}
    return {name: read_best_responses(path) for name, path in files.items() if path.is_file()}


def rows(roster: str, best: BestResponses | None) -> list[str]:
    """Lines of the table: each partner of a roster, in each seat of an agent that meets it.

    Args:
        roster: Its name begins with its task's.
        best: What best responses to its partners earn; None if none ship.
    """
    name = roster.split("_")[0]
    lines = []
    for entry in read_roster(roster):
        for seat in task_class(name).seats:
            bounds = can_be_earned(name, entry.name, seat)
            earned = [best.earned(entry.name, seat, decoding) if best else None for decoding in DECODINGS]
            shown = [f"{one.own_return:.2f}" if one else NOTHING for one in earned]
            short = short_by(bounds, earned[-1].own_return) if earned[-1] else NOTHING
            lines.append(f"| `{roster}` | {' | '.join([entry.name, seat, possible(bounds), *shown, short])} |\n")
    return lines


def possible(bounds: tuple[float, float] | None) -> str:
    """What can be earned, as a cell."""
    if bounds is None:
        return NOTHING
    least, most = (f"{bound:.2f}" for bound in bounds)
    return least if least == most else f"{least} to {most}"


def short_by(bounds: tuple[float, float] | None, earned: float) -> str:
    """By how much a best response falls short of the best return, as a cell; a dash if that is not known."""
    if bounds is None or (bounds[0] < bounds[1] and earned >= bounds[0]):
        return NOTHING
    words = "" if bounds[0] == bounds[1] else "at least "
    return f"{words}{round(bounds[0] - earned, 2) + 0.0:.2f}"  # no -0.00


def table() -> str:
    """The table, and below it what made each roster's best responses."""
    known = shipped()
    lines = [line for roster in ROSTERS for line in rows(roster, known.get(roster))]
    return f"{HEAD}{''.join(lines)}\n{''.join(budgets(name, best) for name, best in known.items())}"


def budgets(roster: str, best: BestResponses) -> str:
    """What made best responses, as an item of a list."""
    made = dict.fromkeys(
        ", ".join(f"{key} {value}" for key, value in one.budget.items()) for one in best.partners.values()
    )
    told = f"- `{roster}`: {'; '.join(made)}; played on {best.problems} problems of the {best.split} split."
    return f"{textwrap.fill(told, COLUMNS, subsequent_indent='  ', break_on_hyphens=False)}\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, or put it into the documentation."""
    parser = argparse.ArgumentParser("best_responses", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write it into {PAGE.relative_to(ROOT)}, too")
    args = parser.parse_args(argv)
    text = table()
    print(text)
    if args.write:
        put_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    sys.exit(run_command(main))
