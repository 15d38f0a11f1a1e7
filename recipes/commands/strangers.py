"""`llm-sra strangers`: train partners with hidden preferences, and make a roster of those that differ most."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from recipes.commands.train_help import takes_fields
from recipes.fields import check_early
from recipes.terminal import response_flags

if TYPE_CHECKING:
    from eval.grid import Grid
    from recipes.comparing.generating import Generated

WEIGHTS = (-1.0, 1.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, write the roster, and show who is in it.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ComparisonError: If it cannot be made as asked, or its folder holds something else.
        ConfigError: If the recipe or a flag cannot be used.
        TrainingError: If a training failed.
        UnknownNameError: If the task lacks a metric.
    """
    args, further = parser().parse_known_args(argv)
    check_early(args.config, further)  # before the imports below, which take seconds
    from eval.table import print_grid
    from recipes.comparing.generating import ROSTER, Asked, generate
    from recipes.comparing.responding import Wanted
    from recipes.terminal import console, kept_if_stopped

    wanted, shown = Wanted.of(args, further, args.task), console()
    with kept_if_stopped():
        found = generate(Asked(args.metrics, args.weights, args.k, wanted), shown)
    for decoding in wanted.decodings:
        print_grid(chosen_grid(found, decoding), shown)
    print(f"Written: {args.out / ROSTER}\nnext: llm-sra eval --roster {args.out / ROSTER} ...")


def chosen_grid(found: "Generated", decoding: str) -> "Grid":
    """What best responses to the candidates do and earn: those chosen above, the others below."""
    from eval.grid import Grid

    first = found.chosen[0]
    seats = [name.split("/")[1] for name in first.earned if name.startswith(f"{decoding}/")]
    metrics = list(dict.fromkeys(name.split("/", 2)[2] for name in first.does))
    rows = [
        tuple(
            (
                f"{one.name} (hopeless)" if one.hopeless else one.name,
                *(f"{one.earned[f'{decoding}/{seat}']:.2f}" for seat in seats),
                *(f"{fmean(one.does[f'{decoding}/{seat}/{metric}'] for seat in seats):.2f}" for metric in metrics),
            )
            for one in found.candidates
            if one.does and one.chosen is chosen
        )
        for chosen in (True, False)
    ]
    header = ("partner", *(f"return\n{seat}" for seat in seats), *metrics)
    notes = (
        f"By their best responses the {len(found.chosen)} chosen, above the line, count as {found.different:.1f} "
        "different ones (Vendi score). Metrics are those of the best responses, means over seats.",
    )
    title = f"What best responses to the candidates earn and do, {decoding}"
    return Grid(title, header, tuple(row for row in rows if row), notes)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra strangers",
        allow_abbrev=False,
        description="Make a roster of generated strangers. Candidates are trained with a hidden preference each: the "
        "task's reward plus a weight times a metric of their own. A best response is trained to each, and those K are "
        "chosen whose best responses differ most. What --out holds already is kept: the same command goes on where it "
        "was stopped.",
        epilog="Any field of a recipe is a flag, too, and holds for all trainings: --max_steps 40, --seed 1, which "
        "also decides between sets that are equally diverse (--help-all lists them).",
    )
    takes_fields(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--task", help="takes this task's recipe: TASK/best_response, TASK/ippo or TASK/srpo, the first that ships"
    )
    which.add_argument(
        "--config", metavar="RECIPE",
        help="how candidates and best responses are trained: YAML file or name; its arm and partners are replaced",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="METRIC",
        help="that candidates want more or less of: effort, words, or one of the task's (default all)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", nargs="+", type=float, default=list(WEIGHTS), metavar="WEIGHT",
        help="what a unit of a metric earns, in units of the reward: a candidate each (default -1 1)",
    )  # fmt: skip
    parser.add_argument("--k", type=int, default=8, help="how many are chosen (default %(default)s)")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder for the roster, strangers.yaml, and everything beside it"
    )
    response_flags(parser)
    return parser
