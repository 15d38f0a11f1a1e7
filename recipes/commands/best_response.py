"""`llm-sra best-response`: train a best response to each partner of a roster, and keep what it earns."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llm_sra.registry import find_roster
from recipes.commands.train_help import takes_fields
from recipes.fields import check_early
from recipes.terminal import response_flags, roster_flag

if TYPE_CHECKING:
    from eval.grid import Grid
    from llm_sra.evaluation.best_responses import BestResponses


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, write it, and show what each partner leaves to earn.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ComparisonError: If it cannot be made as asked, or its folder holds something else.
        ConfigError: If the recipe or a flag cannot be used.
        RosterError: If the roster cannot be used.
        TrainingError: If a training failed.
    """
    args, further = parser().parse_known_args(argv)
    find_roster(args.roster)
    check_early(args.config, further)  # before the imports below, which take seconds
    from eval.table import print_grid
    from llm_sra.evaluation.best_responses import ENDING, write_best_responses
    from llm_sra.partners.rosters import file_beside
    from recipes.comparing.responding import FILE, Wanted, best_responses
    from recipes.terminal import console, kept_if_stopped

    wanted = Wanted.of(
        args, further, args.roster, roster=args.roster, trust_scripts=args.trust_scripts,
        trust_remote_code=args.trust_remote_code,
    )  # fmt: skip
    shown = console()
    with kept_if_stopped():
        known = best_responses(wanted, shown)
    written = [args.out / FILE]
    if Path(args.roster).is_file():  # what ships stays as it ships
        written.append(file_beside(args.roster, ENDING))
        write_best_responses(written[-1], known)
    for decoding in wanted.decodings if known.partners else ():
        print_grid(earned_grid(known, decoding), shown)
    print("Written:", *written, sep="\n  ")
    if len(written) == 1:
        print(f"next: llm-sra eval --roster {args.roster} --best_responses {written[0]} ...")


def earned_grid(known: "BestResponses", decoding: str) -> "Grid":
    """What best responses earn with each partner, by seat, hopeless ones marked."""
    from eval.grid import Grid
    from eval.proximity import Known

    seats = list(dict.fromkeys(one.seat for made in known.partners.values() for one in made.earned))
    names = [name for name in known.partners if all(known.earned(name, seat, decoding) for seat in seats)]
    there = Known.of(known, names, seats, decoding)
    rows = []
    for name in names:
        earned = [known.earned(name, seat, decoding) for seat in seats]
        returns = [f"{one.own_return:.2f}" for one in earned if one]
        shares = [f"{one.solve_rate:.2f}" for one in earned if one]
        rows.append((there.mark(name), *returns, *shares, str(known.partners[name].budget.get("steps", "-"))))
    header = ("partner", *(f"return\n{seat}" for seat in seats), *(f"share\n{seat}" for seat in seats), "steps")
    note = "A best response is learned within its budget: more may be earned. Share: of problems solved."
    return Grid(f"What best responses earn, {decoding}", header, (tuple(rows),), (note,))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra best-response",
        allow_abbrev=False,
        description="Train a best response to each partner of a roster, in each seat, play it with that partner, and "
        "keep what it earns: in --out, and beside a roster that is named by its file. llm-sra eval reads that and says "
        "how much of it agents earn. What --out holds already is kept: the same command goes on where it was stopped, "
        "and makes anew what belongs to a partner that has changed.",
        epilog="Any field of a recipe is a flag, too, and holds for all trainings: --max_steps 40 (--help-all lists "
        "them).",
    )
    takes_fields(parser)
    parser.add_argument("--roster", required=True, help="YAML file, or a shipped roster's name (worksheet_test)")
    parser.add_argument(
        "--config", metavar="RECIPE",
        help="how a best response is trained: YAML file or name; its arm and partners are replaced (default: of the "
        "roster's task, TASK/best_response, TASK/ippo or TASK/srpo)",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, help="folder for runs, logs, eval/ and the file of results")
    response_flags(parser)
    roster_flag(parser)
    parser.add_argument(
        "--trust_remote_code", action="store_true",
        help="run Python that comes with the roster's models for which it says so",
    )  # fmt: skip
    return parser
