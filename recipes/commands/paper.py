"""`llm-sra paper`: the comparison that makes the paper's table, printed, or made."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from recipes.commands import compare
from recipes.commands.train_help import takes_fields
from recipes.comparing.printing import LINES, SLURM

ARMS = ("ippo", "srpo")
MODELS = ("qwen2.5-0.5b-instruct", "qwen2.5-3b-instruct", "qwen3-0.6b", "qwen3-4b-instruct-2507")
ROSTER = "gsm8k_models"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the commands, or run them and show the table.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.

    Raises:
        ComparisonError, ConfigError, RosterError, TrainingError: As `llm-sra compare`.
    """
    args, further = parser().parse_known_args(argv)
    asked = [
        "--config", *(f"gsm8k/{model}/{arm}" for model in args.models for arm in ARMS),
        "--seeds", *map(str, args.seeds), "--out", str(args.out), "--jobs", str(args.jobs),
        "--roster", args.roster, "--problems", str(args.problems), "--decoding", "greedy", *further,
    ]  # fmt: skip
    compare.main(asked if args.run else [*asked, "--print", args.print])
    if args.run:
        _show_table(args.out, [cell.name for cell in compare.cells_of(asked)])


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra paper",
        allow_abbrev=False,
        description="Print the commands that make the paper's table on GSM8K: each model trained by IPPO and by SRPO, "
        "each agent played beside the agents of every other model (0.6B with 4B among them) and beside the untrained "
        "models. With --run they are run here, and the table is shown.",
        epilog="Any field of a recipe is a flag, too, and holds for all trainings: --task_args "
        """'{"data_path": "FOLDER"}' reads the problems from a folder (--help-all lists them).""",
    )
    takes_fields(parser)
    parser.add_argument("what", choices=("gsm8k",), metavar="gsm8k", help="the table of the paper: there is one")
    parser.add_argument("--run", action="store_true", help="run the commands; what is there is kept")
    parser.add_argument(
        "--print", choices=(LINES, SLURM), default=LINES,
        help="without --run: a line for each command, or a SLURM array (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL",
        help=f"{', '.join(MODELS)} (default: all four)",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="(default 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/paper/gsm8k"), help="(default %(default)s)")
    parser.add_argument("--roster", default=ROSTER, help="further partners (default %(default)s: untrained models)")
    parser.add_argument("--problems", type=int, default=1319, help="of the test set (default %(default)s: all)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, a GPU each (default %(default)s)")
    return parser


def _show_table(out: Path, names: Sequence[str]) -> None:
    """Show who reaches what beside whom, and write it to `paper.md`."""
    from eval.grid import grid_markdown
    from eval.models import models_grid
    from eval.table import print_grid
    from llm_sra.evaluation.results import read_results
    from llm_sra.files import write_whole
    from llm_sra.runs import Run
    from recipes.terminal import console

    grid = models_grid([Run.open(out / name) for name in names], read_results(out / "eval"), "greedy")
    write_whole(out / "paper.md", grid_markdown(grid) + "\n")
    shown = console()
    shown.print()
    print_grid(grid, shown)
    shown.print(f"\nwritten: {out / 'paper.md'}", markup=False, soft_wrap=True)
