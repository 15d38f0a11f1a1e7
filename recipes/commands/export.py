"""`llm-sra export`: write a trained policy as a PEFT adapter or a merged model."""

import argparse
from collections.abc import Sequence

from recipes.terminal import trust_flags


def main(argv: Sequence[str]) -> None:
    """Export, and say where."""
    args = parser().parse_args(argv)
    from llm_sra import export

    exported = export(
        args.run,
        args.policy,
        args.out,
        merge=args.merge,
        evaluation=args.eval,
        push_to_hub=args.push_to_hub,
        private=args.private,
        trust_remote_code=args.trust_remote_code,
        trust_task=args.trust_task,
    )
    print(f"exported: {exported}")
    if args.push_to_hub:
        print(f"pushed:   {args.push_to_hub}")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser("llm-sra export", description="Write a trained policy.")
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--policy", required=True, help="adapter of the run, such as a seat's name")
    parser.add_argument("--out", required=True, help="new folder")
    parser.add_argument("--merge", action="store_true", help="merge into the base: a plain model folder")
    parser.add_argument(
        "--eval", metavar="FOLDER", help="of llm-sra eval; its table goes into the card (default: RUN/report, if any)"
    )
    parser.add_argument(
        "--push_to_hub", metavar="REPO_ID", help="upload to this repository; the token is HF_TOKEN or hf auth login's"
    )
    parser.add_argument("--private", action="store_true", help="make that repository private")
    trust_flags(parser)
    return parser
