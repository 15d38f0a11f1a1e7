"""The flags of `llm-sra eval --single`, with lm-eval's names, and what each command needs them for."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.terminal import console

if TYPE_CHECKING:
    from llm_sra.runs import Run

OPTIONS = ("include_path", "num_fewshot", "limit", "apply_chat_template", "batch_size", "confirm_run_unsafe_code")
# What means something without partners, too.
SHARED = ("run", "single", "out", "disable_tqdm", "trust_remote_code", "help", *OPTIONS)


def single_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    group = parser.add_argument_group(
        "tasks of lm-eval, on each agent alone and on its base (extra `lm-eval`)",
        "Did anything else get worse? The options have lm-eval's names.",
    )
    group.add_argument(
        "--single", action="extend", nargs="+", metavar="TASK",
        help="lm-eval's tasks, groups or tags; patterns (arc_*); YAML files. Needs no --roster",
    )  # fmt: skip
    group.add_argument(
        "--include_path", metavar="FOLDER", type=Path,
        help="further tasks; those whose documents are files here need no network",
    )  # fmt: skip
    group.add_argument("--num_fewshot", type=int, metavar="N", help="solved examples in a prompt (default: the task's)")
    group.add_argument(
        "--limit", type=float, metavar="N", help="first documents of each task, or a share below 1 (default: all)"
    )
    group.add_argument(
        "--apply_chat_template",
        action="store_true",
        help="ask as in a chat, by the run's template (default: plain text)",
    )
    group.add_argument("--batch_size", type=int, metavar="N", help="most prompts at a time (default 8)")
    group.add_argument(
        "--confirm_run_unsafe_code", action="store_true",
        help="run tasks that execute what a model wrote, and Python of --include_path",
    )  # fmt: skip


def check_single(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """See that every flag has an effect.

    Raises:
        ValueError: If one has none; names it.
    """
    given = [key for key, value in vars(args).items() if value != parser.get_default(key)]
    if args.single is None:
        for key in OPTIONS:
            if key in given:
                raise ValueError(f"--{key} is of --single: add --single TASK, or leave it out")
    elif not plays(args):
        for key in given:
            if key not in SHARED:
                raise ValueError(f"--{key} is of play with partners: add --roster, or leave it out")


def plays(args: argparse.Namespace) -> bool:
    """Whether agents also play with others."""
    return bool(args.roster or args.strangers or args.cross_play or args.contributions)


def evaluate_alone(args: argparse.Namespace, runs: "Sequence[Run]") -> list[Path]:
    """Measure, write and show; returns what was written."""
    from eval.single import single_grids, write_single_table
    from eval.table import print_grid
    from llm_sra import evaluate_single
    from llm_sra.evaluation.single.results import SINGLE, Single, read_single
    from llm_sra.evaluation.single.shown import sentence
    from llm_sra.untrusted import one_line

    chosen = {key: value for key in OPTIONS if (value := getattr(args, key)) is not None}
    evaluate_single(
        runs, args.single, args.out, trust_remote_code=args.trust_remote_code, disable_tqdm=args.disable_tqdm or None,
        **chosen,
    )  # fmt: skip
    single = read_single(args.out) or Single()
    for grid in single_grids(single):
        print_grid(grid, console())
    print(one_line(sentence(single)))
    return [args.out / SINGLE, write_single_table(single, args.out)]
