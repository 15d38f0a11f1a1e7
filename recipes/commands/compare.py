"""`llm-sra compare`: train settings over seeds, play them with a roster and with each other, and report."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llm_sra.registry import find_roster
from recipes.commands.train_help import takes_fields
from recipes.comparing.cells import Cell, ComparisonError, as_flags, check_counts, fields_of, make_cells
from recipes.comparing.printing import LINES, SLURM, as_lines, as_slurm
from recipes.fields import check_early
from recipes.terminal import jobs_flag, playing_flags

SHARE = 0.7  # of a GPU, for the vLLMs of several models; partners that are other models need the rest

if TYPE_CHECKING:
    from recipes.comparing.evaluating import Played


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing of a comparison, or print its commands.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ComparisonError: If the comparison cannot be made as asked, or its folder holds something else.
        ConfigError: If a recipe or a flag cannot be used.
        RosterError: If the roster cannot be used.
        TrainingError: If a training failed.
    """
    args, cells = parser().parse_known_args(argv)[0], cells_of(argv)
    _check_early(args, cells)
    from recipes.comparing.whole import Comparison, check, compare

    check_counts(args.jobs, args.problems)
    alone = len(cells) == 1 or not args.cross_play
    if alone and args.roster is None and not (args.contributions or args.train_only):
        raise ComparisonError("nobody to play with: name a --roster, or more --arms or --seeds for cross-play")
    comparison = Comparison(cells, args.out, _played(args, cells), args.jobs, args.again, args.title)
    if args.print:
        check(comparison)
        commands = comparison.trainings, comparison.rest
        print(
            as_slurm(*commands, args.out.name) if args.print == SLURM else as_lines([*commands[0], *commands[1]]),
            end="",
        )
        return
    from recipes.terminal import console

    shown = console()
    compare(comparison, shown)
    if comparison.played:
        from recipes.comparing.ending import finish

        finish(comparison, comparison.played, shown)


def cells_of(argv: Sequence[str] | None) -> list[Cell]:
    """The trainings that a command line asks for."""
    args, further = parser().parse_known_args(argv)
    return make_cells(args.config, args.arms, args.seeds, fields_of(further))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra compare",
        allow_abbrev=False,
        description="Train each setting with each seed, play all agents with the partners of a roster and with each "
        "other, and write a report. What --out holds already is kept: the same command goes on where it was stopped, "
        "and with more seeds or settings it makes what is missing.",
        epilog="Any field of a recipe is a flag, too, and holds for all trainings: --max_steps 40 (--help-all lists "
        "them).",
    )
    takes_fields(parser)
    parser.add_argument(
        "--config", action="extend", nargs="+", required=True, metavar="RECIPE",
        help="YAML files, or names of shipped recipes; each is a setting",
    )  # fmt: skip
    parser.add_argument(
        "--arms", action="extend", nargs="+", default=[], metavar="ARM",
        help="arms that take the place of the recipe's own: ippo srpo adversary. An arm that needs other fields, too, "
        "is a recipe of its own: name it with --config",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", action="extend", nargs="+", type=int, default=[], metavar="SEED", help="(default: the recipe's own)"
    )
    parser.add_argument("--roster", help="partners to play with: YAML file, or a shipped roster's name")
    parser.add_argument("--out", required=True, type=Path, help="folder for runs, logs, eval/ and report/")
    jobs_flag(parser)
    parser.add_argument(
        "--print", nargs="?", const=LINES, choices=(LINES, SLURM),
        help="print the commands, a line each, or as a SLURM array, and run nothing",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="replace trainings, evaluation and report in --out")
    parser.add_argument("--train_only", action="store_true", help="neither play nor report")
    playing_flags(parser)
    parser.add_argument(
        "--cross_play", action=argparse.BooleanOptionalAction, default=True,
        help="play each run's agents with those of every other run (default: yes)",
    )  # fmt: skip
    parser.add_argument(
        "--contributions", action="store_true", help="play each team with others in its seats, too (as llm-sra eval)"
    )
    parser.add_argument(
        "--eval_engine",
        choices=("transformers", "vllm", "server"),
        help="plays the agents (default: the recipe's engine)",
    )
    parser.add_argument("--title", help="heading of the report (default: names the settings)")
    return parser


def _check_early(args: argparse.Namespace, cells: Sequence[Cell]) -> None:
    """Refuse what can be seen before the imports that take seconds."""
    if args.roster is not None:
        find_roster(args.roster)
    for cell in cells:
        check_early(cell.recipe, as_flags(cell.flags))


def _played(args: argparse.Namespace, cells: Sequence[Cell]) -> "Played | None":
    """With whom the agents play."""
    if args.train_only:
        return None
    from transformers.hf_argparser import string_to_bool

    from llm_sra.registry import models_named
    from recipes.comparing.evaluating import TRUST, Played

    all_values = [cell.written() for cell in cells]
    values = all_values[0]
    engine = args.eval_engine or str(values.get("engine", "transformers"))
    further = [f"--{name}" for name in TRUST if any(string_to_bool(one.get(name, False)) for one in all_values)]
    if engine == "server" and values.get("vllm_server_base_url"):
        further += ["--server", str(values["vllm_server_base_url"])]
    if engine != "transformers" and values.get("vllm_max_model_length"):
        further += ["--max_model_length", str(values["vllm_max_model_length"])]
    models = {model for one in all_values for model in models_named(one)}
    if engine == "vllm" and len(models) > 1:  # each has a vLLM of its own, all on one GPU
        share = min(float(values.get("vllm_gpu_memory_utilization", 1.0)), SHARE / len(models))
        further += ["--gpu_memory_utilization", f"{share:.2g}"]
    return Played(
        args.roster, args.problems, args.split, list(dict.fromkeys(args.decoding)), args.cross_play,
        args.contributions, engine, further,
    )  # fmt: skip
