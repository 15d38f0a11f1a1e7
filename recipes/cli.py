"""The command line `llm-sra`: names to the commands of `recipes.commands`."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from llm_sra import __version__
from llm_sra.errors import did_you_mean
from recipes.stopping import interrupt, stopping

# Each is a module of `recipes.commands` with a function `main(argv)`.
COMMANDS = {
    "new": "write a task of your own to start from",
    "check": "hold a task of your own against the protocol, and show what each seat sees",
    "train": "train agents: --config RECIPE, and any field as a flag",
    "warm-start": "teach an adapter a task's replies by scripted play: a start that all arms share",
    "compare": "train settings over seeds, play them with a roster and each other, report",
    "paper": "the comparison that makes the paper's table: paper gsm8k",
    "watch": "show a run's curves and newest episode as it trains",
    "eval": "play runs with the partners of a roster, and with each other",
    "best-response": "train a best response to each partner of a roster: what could be earned",
    "strangers": "train partners with hidden preferences: a roster of those that differ most",
    "oracle": "compare agents of a matrix game with its exact equilibria",
    "report": "one page on runs that were evaluated, and the same as Markdown",
    "play": "show episodes as they are played, or take a seat yourself",
    "table": "play in a browser on this machine: people with each other, or with an agent",
    "export": "write a trained policy as a PEFT adapter or a merged model",
    "serve": "serve a recipe's model with vLLM: --config RECIPE",
    "list": "list what ships: tasks, recipes, rosters, models, configurations of accelerate",
    "quickstart": "train and compare both arms on the embedded task",
    "completion": "print a script that completes commands and flags: completion bash",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help", "--version"):
        from recipes.terminal import run_command

        return run_command(print, f"llm-sra {__version__}" if name == "--version" else usage())
    if name not in COMMANDS:
        what = f"unknown command {name!r}{did_you_mean(name, COMMANDS)}\n\n" if name else ""
        print(f"{what}{usage()}", file=sys.stderr)
        return 2
    if name == "train" and argv is None:
        stopping.install(["llm-sra"])  # before the imports below: they take seconds
    elif argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        from recipes.terminal import run_command

        return run_command(lambda: import_module(f"recipes.commands.{name.replace('-', '_')}").main(arguments))
    except KeyboardInterrupt:  # while it was still importing
        print("llm-sra: interrupted", file=sys.stderr)
        return 130


def usage() -> str:
    """The commands, a line each."""
    listing = "\n".join(f"  {name:13} {text}" for name, text in COMMANDS.items())
    return f"usage: llm-sra COMMAND ...\n\n{listing}\n\nllm-sra COMMAND --help says more; llm-sra --version"


if __name__ == "__main__":
    sys.exit(main())
