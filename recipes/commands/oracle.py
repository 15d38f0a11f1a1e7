"""`llm-sra oracle`: compare trained agents of a matrix game with its exact equilibria."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from recipes.terminal import trust_flags


def main(argv: Sequence[str]) -> None:
    """Compare runs and print the table; with `--picture`, draw those of the effort game, too."""
    args = parser().parse_args(argv)
    from eval.oracle import compare_with_oracle, draw, oracle_table

    compared = [compare_with_oracle(run, args.trust_remote_code, args.trust_task) for run in args.runs]
    if args.picture:
        print(f"picture: {draw(compared, args.picture)}\n")
    print(oracle_table(compared))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser("llm-sra oracle", description="Compare runs with exact equilibria.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder of task effort, arm ippo, srpo or adversary")
    parser.add_argument("--picture", type=Path, help="PNG: the effort game's equilibria over tau, and its runs on them")
    trust_flags(parser)
    return parser
