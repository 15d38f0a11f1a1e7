"""The command line `llm-sra`: a thin wrapper around the Python interface."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from llm_sra.engines import EngineError
from llm_sra.policies import PolicyError


def main(argv: Sequence[str] | None = None) -> int:
    """`llm-sra train | watch | eval | report | oracle | play | export | serve | quickstart`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {
        "train": (_train, "train agents: --config RECIPE, and any field as a flag"),
        "watch": (_watch, "show a run's curves and newest episode as it trains"),
        "eval": (_eval, "play runs with the partners of a roster, and with each other"),
        "oracle": (_oracle, "hold agents of a matrix game against its exact equilibria"),
        "report": (_report, "one page on runs that were evaluated, and the same as Markdown"),
        "play": (_play, "show episodes as they are played, or sit down yourself"),
        "export": (_export, "write a trained policy as a PEFT adapter or a merged model"),
        "serve": (_serve, "serve a recipe's model with vLLM: --config RECIPE"),
        "quickstart": (_quickstart, "train and compare both arms on the embedded task"),
    }
    if not arguments or arguments[0] not in commands:
        wants_help = bool(arguments) and arguments[0] in ("-h", "--help")
        listing = "\n".join(f"  {name:11} {text}" for name, (_, text) in commands.items())
        print(f"usage: llm-sra COMMAND ...\n\n{listing}\n\nllm-sra COMMAND --help says more", file=sys.stderr)
        return 0 if wants_help else 2
    command, _ = commands[arguments[0]]
    return run_command(command, arguments[1:])


def run_command(command: Callable[..., Any], *args: Any) -> int:
    """Run a command; what the user can mend is one line on stderr and exit code 2."""
    try:
        command(*args)
    except (ValueError, KeyError, OSError, NotImplementedError, PolicyError, EngineError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"llm-sra: {type(error).__name__}: {' '.join(str(message).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("llm-sra: interrupted", file=sys.stderr)
        return 130
    return 0


def _train(argv: Sequence[str]) -> None:
    from recipes.train import main as train

    train(argv)


def _watch(argv: Sequence[str]) -> None:
    from recipes.watch import main as watch

    watch(argv)


def _eval(argv: Sequence[str]) -> None:
    from eval.crossplay import main as crossplay

    crossplay(argv)


def _oracle(argv: Sequence[str]) -> None:
    from eval.oracle import main as oracle

    oracle(argv)


def _report(argv: Sequence[str]) -> None:
    from eval.report import main as report

    report(argv)


def _play(argv: Sequence[str]) -> None:
    from recipes.show import main as show

    show(argv)


def _export(argv: Sequence[str]) -> None:
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
    args = parser.parse_args(argv)
    from llm_sra import export

    options = {"evaluation": args.eval, "push_to_hub": args.push_to_hub, "private": args.private}
    print(f"exported: {export(args.run, args.policy, args.out, merge=args.merge, **options)}")
    if args.push_to_hub:
        print(f"pushed:   {args.push_to_hub}")


def _serve(argv: Sequence[str]) -> None:
    from recipes.serve import main as serve

    serve(argv)


def _quickstart(argv: Sequence[str]) -> None:
    from recipes.quickstart import main as quickstart

    quickstart(argv)


if __name__ == "__main__":
    sys.exit(main())
